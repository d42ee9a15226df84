import numpy as np
import pytest

from fewshot import Embedder, FewShotModel, LabeledImages, digits
from fewshot.errors import ImageDecodeError
from fewshot.images.sets import Promise

DATA = digits()
ROWS = np.random.default_rng(0).permutation(len(DATA))[:400]
IMAGES, LABELS = [DATA.images[i] for i in ROWS], DATA.labels[ROWS]
ASKED, TRUTH = IMAGES[150:], LABELS[150:].tolist()


@pytest.fixture(scope="module")
def model():
    model = FewShotModel(Embedder("conv4", weights="random", img_size=28), on_error="unknown")
    return model.fit(IMAGES[:150], LABELS[:150])


def kept(sets):
    return np.mean([label in found for label, found in zip(TRUTH, sets, strict=True)])


@pytest.mark.parametrize("learner", [None, "prototypical"])
@pytest.mark.parametrize("keep_support", [True, False])
def test_from_the_support_that_the_model_or_its_learner_keeps(learner, keep_support):
    model = FewShotModel(Embedder("conv4", weights="random", img_size=28), learner, keep_support=keep_support)
    model.fit(IMAGES[:150], LABELS[:150])
    if learner and not keep_support:
        with pytest.raises(ValueError, match="keeps no support that could be left out; give held_out"):
            model.predict_set(ASKED)
        assert kept(model.predict_set(ASKED, held_out=(IMAGES[:150], LABELS[:150]))) > 0.5
        return
    assert abs(kept(model.predict_set(ASKED, 0.9)) - 0.9) < 0.07


@pytest.mark.parametrize("held_out", [IMAGES[:9], list(IMAGES[:2]), (IMAGES[:9], None)])
def test_held_out_items_without_labels_are_refused(model, held_out):
    with pytest.raises(TypeError, match="held_out has no labels; give .* or LabeledImages"):
        model.predict_set(ASKED[:1], held_out=held_out)


def test_held_out_items_may_be_labelled_images_and_unreadable_ones_are_left_out(model):
    held = LabeledImages(np.stack(IMAGES[150:250]), LABELS[150:250])
    sets = model.predict_set(ASKED[100:], 0.8, held_out=held)
    pair = ([*IMAGES[150:250], b"no image"], [*LABELS[150:250].tolist(), 3])
    with pytest.warns(UserWarning, match="could not be read|unreadable|cannot"):
        assert model.predict_set(ASKED[100:], 0.8, held_out=pair) == sets
    with pytest.raises(ImageDecodeError):
        model.predict_set(ASKED[:1], held_out=([b"no image"], [3]))


def test_answers_show_the_same_sets_and_an_item_that_cannot_be_read_has_none(model):
    items = [*ASKED[:20], b"no image"]
    sets = model.predict_set(items, 0.8)
    answers = model.answer(items, promise=Promise(0.8))
    assert [answer.label_set for answer in answers] == sets
    assert sets[-1] == []
    assert all(answer.label_set is None for answer in model.answer(items[:2]))
    for found, answer in zip(sets[:-1], answers[:-1], strict=True):
        assert found[:3] == [label for label, _ in answer.ranking][: len(found)]


def test_by_class_needs_enough_images_of_one(model):
    with pytest.raises(ValueError, match="needs 99 images of a class"):
        model.predict_set(ASKED[:1], 0.99, by_class=True)
