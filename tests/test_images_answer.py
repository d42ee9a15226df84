import io

import numpy as np
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, LabeledImages, MatchingLearner, PrototypicalLearner
from fewshot.errors import ImageDecodeError
from fewshot.images.sets import Promise
from tests.photographs import blends, photos, quick_embedder, write_photos

IMAGES, LABELS = photos(5)
QUERIES, _ = photos(3, seed=1)
COLOURS = [Image.new("RGB", (40, 40), (r, g, b)) for r in (0, 200) for g in (0, 200) for b in (0, 200)]
HELD_OUT = [image.resize((40, 40)).point(lambda v, k=k: min(255, v + k)) for image in COLOURS for k in (0, 9, 20)]
HELD_OUT_LABELS = np.arange(8).repeat(3)


@pytest.mark.parametrize("learner", [PrototypicalLearner("cosine"), PrototypicalLearner(), MatchingLearner()])
def test_neighbours_are_those_of_a_slow_search(learner):
    (images, labels), (queries, _) = photos(5), photos(2, seed=1)
    model = FewShotImageClassifier(quick_embedder(), learner).fit(images, labels)
    x, s = (model.embedder_.transform(part).astype(float) for part in (queries, images))
    if learner.metric == "cosine":
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, s)]
        similarity = unit[0] @ unit[1].T
    else:
        similarity = -((x[:, None] - s[None]) ** 2).sum(-1)
    for answer, row in zip(model.answer(queries, n_neighbours=3), similarity, strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        assert [neighbour.label for neighbour in answer.neighbours] == [labels[i] for i in order]
        np.testing.assert_allclose([n.similarity for n in answer.neighbours], row[order], rtol=1e-4, atol=1e-4)


def test_an_answer_agrees_with_predict_and_says_where_it_came_from(tmp_path):
    support, queries = write_photos(tmp_path / "support", 3), write_photos(tmp_path / "queries", 2, seed=1)
    labels = [path.split("/")[-2] for path in support]
    model = FewShotImageClassifier(quick_embedder()).fit(support, labels)
    answers = model.answer(queries, top=9, n_neighbours=99)
    assert [answer.id for answer in answers] == queries
    assert [answer.label for answer in answers] == model.predict(queries).tolist()
    for answer, proba in zip(answers, model.predict_proba(queries), strict=True):
        assert answer.probability == pytest.approx(proba.max())
        assert dict(answer.ranking) == pytest.approx(dict(zip(model.classes_.tolist(), proba, strict=True)))
        assert {neighbour.id for neighbour in answer.neighbours} == set(support)
        assert Image.open(io.BytesIO(answer.thumbnail)).size == (32, 32)
        assert Image.open(io.BytesIO(answer.neighbours[0].thumbnail)).size == (32, 32)


def test_without_support_there_are_no_neighbours_and_no_queries_have_no_answers():
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder(), keep_support=False).fit(images, labels)
    assert [answer.neighbours for answer in model.answer(images)] == [[]] * 4
    assert model.answer([]) == []


def test_an_unreadable_query_keeps_its_place():
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder(), on_error="unknown").fit(images, labels)
    good, bad, last = model.answer([images[0], b"no image", images[-1]])
    assert (good.label, last.label) == (labels[0], labels[-1])
    assert (bad.label, bad.probability, bad.ranking, bad.error.index) == (None, 0.0, [], 1)


@pytest.fixture
def model():
    return FewShotImageClassifier(quick_embedder()).fit(IMAGES, LABELS)


def test_an_explanation_has_prototypes_margin_and_support(model):
    answer = model.explain(QUERIES[0], n_neighbours=4)
    labels, similarities = model.nearest(QUERIES[:1], 2)
    assert [label for label, _ in answer.prototypes] == labels[0].tolist()
    assert [s for _, s in answer.prototypes] == pytest.approx(similarities[0].tolist())
    assert answer.margin == pytest.approx(similarities[0, 0] - similarities[0, 1], abs=1e-5)
    assert len(answer.neighbours) == 4
    assert not answer.rejected


def test_with_one_class_there_is_no_other_to_be_nearer_to():
    model = FewShotImageClassifier(quick_embedder(), MatchingLearner()).fit(IMAGES[:2], LABELS[:2])
    answer = model.explain(QUERIES[0])
    assert answer.margin == np.inf
    assert len(answer.prototypes) == 2  # here the keys are the support


def test_unknown_images_are_answered_so_after_calibration(model):
    model.calibrate(HELD_OUT, HELD_OUT_LABELS, n_episodes=20).set_params(reject="auto")
    threshold = model.calibration_.threshold
    answers = model.answer([*QUERIES, *COLOURS])
    predicted = model.predict([*QUERIES, *COLOURS])
    assert [answer.label for answer in answers] == predicted.tolist()
    classifier, x = model.snapshot().classifier, model.embedder_.transform([*QUERIES, *COLOURS])
    scores = classifier.reject_rule().open_set().scores(x, classifier.model_.classify(x)[1])
    for answer, score in zip(answers, scores, strict=True):
        assert answer.rejected == (score < threshold) == (answer.label == "unknown")
    assert any(answer.rejected for answer in answers)
    high = model.set_params(reject=2.0, unknown_label="?").answer(QUERIES)
    assert {answer.label for answer in high} == {"?"}
    assert {answer.likeliest for answer in high} <= {"flower", "temple"}
    assert [one.to_dict()["likeliest"] for one in high] == model.set_params(reject=None).predict(QUERIES).tolist()


@pytest.mark.parametrize("top", [1, 5])
def test_an_answer_is_doubtful_if_another_class_is_half_as_likely_or_the_set_does_not_hold_one(top):
    model = FewShotImageClassifier(quick_embedder()).fit(*photos(8))
    asked = [*QUERIES, *blends(6, seed=7)]
    likely, close = np.sort(model.predict_proba(asked), 1)[:, ::-1].T
    expected, sizes = close >= likely / 2, np.array([len(one) for one in model.predict_set(asked, 0.9)])
    assert 0 < expected.sum() < (expected | (sizes != 1)).sum() < len(asked), "each reason comes alone"
    assert [one.doubtful for one in model.answer(asked, top=top)] == expected.tolist()
    given = model.answer(asked, top=top, promise=Promise(0.9))
    assert [one.doubtful for one in given] == (expected | (sizes != 1)).tolist()
    unknown = model.set_params(reject=1e9).answer(asked, top=top, promise=Promise(0.9))
    assert not any(one.doubtful for one in unknown), "unknown is another answer"


def test_calibration_survives_a_file_and_learning_and_goes_with_fit(model, tmp_path):
    model.calibrate(LabeledImages(np.stack([np.asarray(i) for i in HELD_OUT]), HELD_OUT_LABELS), n_episodes=20)
    model.set_params(reject="auto")
    expected = model.predict_proba(QUERIES)
    model.save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(QUERIES), expected)
    np.testing.assert_array_equal(loaded.predict([*QUERIES, *COLOURS]), model.predict([*QUERIES, *COLOURS]))
    assert loaded.calibration_.to_dict() == model.calibration_.to_dict()
    loaded.partial_fit(COLOURS[:1], ["black"]).remove_class("black")
    assert loaded.calibration_.threshold == model.calibration_.threshold
    assert not hasattr(loaded.fit(IMAGES, LABELS), "calibration_")
    with pytest.raises(ValueError, match=r"reject='auto' needs a threshold; call calibrate\(X, y\)"):
        loaded.set_params(learner="prototypical").fit(IMAGES, LABELS).predict(QUERIES)


def test_unreadable_images_are_told_or_left_out(model):
    items, labels = [*HELD_OUT, b"no image"], [*HELD_OUT_LABELS, 1]
    with pytest.raises(ImageDecodeError, match="image 24"):
        model.calibrate(items, labels, n_episodes=5)
    with pytest.raises(AttributeError, match="is not calibrated; call calibrate"):
        _ = model.calibration_
    with pytest.raises(ImageDecodeError):
        model.set_params(on_error="unknown").calibrate(items, labels, n_episodes=5)
    assert model.set_params(on_error="skip").calibrate(items, labels, n_episodes=5).calibration_.protocol["n_way"] == 2
