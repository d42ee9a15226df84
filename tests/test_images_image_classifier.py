"""The form for images makes its own embedder; everything else is the base's, and each loads what the other saved."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from fewshot import Embedder, FewShotImageClassifier, FewShotModel, LabeledImages, OwnEmbedder, digits
from tests.photographs import quick_embedder, write_photos

DATA = digits()
SUPPORT, QUERIES = DATA.images[:40], DATA.images[40:60]


def test_both_forms_answer_the_same_and_load_each_others_folders(tmp_path):
    embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
    images = FewShotImageClassifier("conv4", weights="random", img_size=28, progress=False, reject=0.5)
    model = FewShotModel(embedder, reject=0.5)
    for one, other in ((images, FewShotModel), (model, FewShotImageClassifier)):
        one.fit(SUPPORT, DATA.labels[:40]).save(tmp_path / other.__name__)
        loaded = other.load(tmp_path / other.__name__)
        assert type(loaded) is other
        np.testing.assert_array_equal(loaded.predict_proba(QUERIES), images.predict_proba(QUERIES))
        assert (loaded.reject, loaded.classes_.tolist()) == (0.5, list(range(10)))
        assert not loaded.embedder_.progress
        assert clone(loaded).fit(SUPPORT, DATA.labels[:40]).classes_.tolist() == list(range(10))


def test_the_base_takes_anything_that_an_embedder_takes(tmp_path):
    embedder = OwnEmbedder(lambda texts: [[len(text), text.count("a")] for text in texts], "length 1")
    model = FewShotModel(embedder).fit(["a", "aa", "bbbb"], ["short", "short", "long"])
    model.save(tmp_path / "model")
    assert FewShotModel.load(tmp_path / "model", embedder=embedder).predict(["aab", "bcde"]).tolist() == [
        "short",
        "long",
    ]
    assert model.get_params(deep=False)["embedder"] is embedder


def test_the_embedder_that_is_given_is_not_changed():
    embedder = quick_embedder()
    before = embedder.get_params()
    model = FewShotModel(embedder, on_error="skip").fit(SUPPORT, DATA.labels[:40])
    assert embedder.get_params() == before
    assert model.embedder_ is not embedder


@pytest.mark.parametrize("given", ["resnet18", None, Embedder])
def test_what_is_no_embedder_is_refused_in_a_sentence(given):
    with pytest.raises(TypeError, match=r"^embedder is .*; expected an Embedder, such as Embedder\('resnet18'\)"):
        FewShotModel(given).fit(SUPPORT, DATA.labels[:40])


def test_an_embedder_and_its_parameters_cannot_both_be_given():
    with pytest.raises(ValueError, match="img_size belongs to the Embedder that is given as backbone"):
        FewShotImageClassifier(quick_embedder(), img_size=32).fit(SUPPORT, DATA.labels[:40])


def test_whatever_holds_images_and_labels_is_learned_and_tested(tmp_path):
    write_photos(tmp_path / "photos", 3)
    data = LabeledImages.open(tmp_path / "photos")
    expected = FewShotImageClassifier(quick_embedder()).fit(data.images, data.labels)
    table = tmp_path / "table.csv"
    data.to_frame().to_csv(table, index=False)
    kinds = (tmp_path / "photos", str(tmp_path / "photos"), data.to_frame(), ImageFolder(tmp_path / "photos"))
    for given in kinds:
        model = FewShotImageClassifier(quick_embedder()).fit(given)
        assert model.support_.ids == expected.support_.ids
        assert model.support_.labels.tolist() == expected.support_.labels.tolist()
        assert model.test(given).n == len(data)
        assert model.score(given) == model.score(data)
    with pytest.warns(UserWarning, match="learned already or twice, 6 of 6 images"):
        assert model.partial_fit(str(tmp_path / "photos")).n_support_.sum() == 2 * len(data)
    with pytest.raises(ValueError, match=r"nowhere does not exist; expected a folder of class folders, or a table"):
        model.fit("nowhere")
    with pytest.raises(TypeError, match="X is one image"):
        model.fit("photo.jpg", ["a"])
    with pytest.raises(ValueError, match="y is missing; give one label for each image"):
        model.fit(data.images)
    with pytest.raises(ValueError, match="y is missing; pass the data set of the loader, such as loader.dataset"):
        model.fit(DataLoader(ImageFolder(tmp_path / "photos")))
    with pytest.raises(
        TypeError, match="of pairs of image and label, such as LabeledImages, pass data.images and data"
    ):
        model.predict(ImageFolder(tmp_path / "photos"))
    words = FewShotImageClassifier(OwnEmbedder(lambda texts: [[len(text), 1.0] for text in texts], "length 1"))
    with pytest.raises(ValueError, match="y is missing"):  # text is an item there
        words.fit(str(tmp_path / "photos"))
    frame = pd.DataFrame({"text": ["a", "bb"], "label": ["x", "y"]})
    with pytest.raises(ValueError, match=r"y is missing; pass two columns of the frame, .* frame\['text'\], frame\['"):
        words.fit(frame)
    with pytest.raises(TypeError, match=r"pass its column of items, e.g. frame\['text'\]"):
        words.fit(frame["text"], frame["label"]).predict_frame(frame)


def test_a_table_of_several_splits_is_learned_whole_with_a_warning(tmp_path, recwarn):
    write_photos(tmp_path / "photos", 3)
    data = LabeledImages.open(tmp_path / "photos")
    frame = data.to_frame().assign(split=["train", "train", "test"] * 2)
    frame.to_csv(tmp_path / "table.csv", index=False)
    for given in (frame, tmp_path / "table.csv"):
        with pytest.warns(UserWarning, match="X has the splits '.*', and all of them are learned"):
            model = FewShotImageClassifier(quick_embedder()).fit(given)
        assert model.n_support_.sum() == 6
    recwarn.clear()
    for given in (frame[frame["split"] == "train"], LabeledImages.open(tmp_path / "table.csv", "train")):
        assert FewShotImageClassifier(quick_embedder()).fit(given).n_support_.sum() == 4
    assert model.test(frame[frame["split"] == "test"]).n == 2
    assert [one.message for one in recwarn.list if "has the splits" in str(one.message)] == []
