"""A folder is edited without its network as `FewShotModel` edits it, file by file."""

import shutil

import numpy as np
import pytest
import torch

from fewshot import Embedder, FewShotImageClassifier, FewShotModel, OwnEmbedder, PrototypicalLearner, digits
from fewshot.errors import ArtifactError
from fewshot.images.stored import StoredModel
from fewshot.persistence.artifact import read_artifact
from tests.forging import put_tensors, tensors_of
from tests.photographs import photos, quick_embedder

LEARNERS = (None, "prototypical", "matching", "k-nearest", "mahalanobis", "multi-prototypical", "lifelong")
CHANGES = {
    "rename to the end": lambda model: model.rename_class("flower", "zebra"),
    "rename in place": lambda model: model.rename_class("heron", "heronry of a longer name"),
    "rename to itself": lambda model: model.rename_class("heron", "heron"),
    "remove a class": lambda model: model.remove_class("heron"),
    "clear": lambda model: model.clear_calibration().set_params(reject=None),
    "several": lambda model: model.remove_class("flower").rename_class("temple", "a").rename_class("heron", "b"),
}


def make(folder, learner=None, **params):
    """Save a calibrated model of three classes, of 3, 4 and 3 images, in an order without a pattern."""
    images, labels = photos(5)
    names = np.array(labels)
    names[[1, 6, 8]] = "heron"
    order = np.random.default_rng(0).permutation(len(names))
    model = FewShotImageClassifier(quick_embedder(), learner, progress=False, **params)
    ids = [f"image {i}" for i in order]
    model.fit([images[i] for i in order], names[order], ids=ids, reject_examples=photos(2, seed=2)[0])
    model.set_params(reject="5%" if learner is None else None).save(folder)
    return folder


def content(folder):
    manifest = read_artifact(folder, "classifier")[0]
    return {name: value for name, value in manifest.items() if name not in ("digest", "saved")}


def both(folder, tmp_path, change):
    """Return what a change makes of two copies of a folder: by the model itself, and without its network."""
    one, other = shutil.copytree(folder, tmp_path / "one"), shutil.copytree(folder, tmp_path / "other")
    model = FewShotImageClassifier.load(one)
    change(model)
    model.save(one, note="x")
    stored = StoredModel.open(other)
    change(stored)
    stored.save("x")
    return content(one), content(other)


@pytest.fixture(scope="module", params=LEARNERS, ids=str)
def folder(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("made") / "model", request.param)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_writes_what_that_of_the_model_writes(folder, tmp_path, name):
    by_model, without = both(folder, tmp_path, CHANGES[name])
    assert without == by_model


@pytest.mark.parametrize("params", [{"keep_support": False}, {"on_error": "unknown", "unknown_label": "?"}])
def test_the_parameters_of_the_model_count(tmp_path, params):
    make(tmp_path / "made", **params)
    by_model, without = both(tmp_path / "made", tmp_path, CHANGES["several"])
    assert without == by_model
    stored = StoredModel.open(tmp_path / "made")
    assert (stored.support_ is None) == ("keep_support" in params)
    with pytest.raises(ValueError, match="is a class; choose another"):
        StoredModel.open(make(tmp_path / "new", unknown_label="?")).rename_class("heron", "?")


@pytest.mark.parametrize("learner", [None, "matching", "k-nearest"])
@pytest.mark.parametrize("names", [[0], [3, 1], [1, 6, 8], [0, 2, 3, 4, 1, 6, 8]])
def test_images_are_removed_by_name(tmp_path, learner, names):
    make(tmp_path / "made", learner)
    ids = [f"image {i}" for i in names]
    by_model, without = both(tmp_path / "made", tmp_path, lambda model: model.remove_support(ids))
    assert without == by_model


def test_of_equal_images_the_oldest_row_goes_as_in_the_model(tmp_path):
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    with pytest.warns(UserWarning, match="twice|same"):
        model.fit([*images, images[0], images[1]], [*labels, labels[0], labels[1]], ids=list("abcdef"))
    model.save(tmp_path / "made")
    by_model, without = both(tmp_path / "made", tmp_path, lambda model: model.remove_support(["e", "b"]))
    assert without == by_model


def test_what_class_sums_cannot_tell_is_left_to_the_model(tmp_path):
    stored = StoredModel.open(make(tmp_path / "made", PrototypicalLearner("cosine")))
    assert stored.find_rows(["image 0"]) is None
    with pytest.raises(ValueError, match="remove images with FewShotModel"):
        stored.remove_support(["image 0"])
    assert stored.is_editable
    put_tensors(tmp_path / "made", "memory", {**tensors_of(tmp_path / "made", "memory"), "totals.x": torch.ones(2)})
    assert not StoredModel.open(tmp_path / "made").is_editable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.rename_class("herons", "x"), "there is no class 'herons'"),
        (lambda model: model.rename_class("heron", "flower"), "'flower' is a class already"),
        (lambda model: model.rename_class("heron", 3), "label"),
        (lambda model: model.remove_class(3), "there is no class 3"),
        (lambda model: [model.remove_class(name) for name in ("heron", "flower", "temple")], "is the only class"),
        (lambda model: model.remove_support(["image 77"]), "there is no support image 'image 77'"),
        (lambda model: model.remove_support([f"image {i}" for i in range(10)]), "nothing would remain"),
    ],
)
def test_mistakes_are_the_same_errors(tmp_path, change, message):
    folder = make(tmp_path / "made")
    said = []
    for model in (FewShotImageClassifier.load(folder), StoredModel.open(folder)):
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            change(model)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("labels", "change"),
    [
        ([1, 1, 7, 9], lambda model: model.rename_class(7, -3)),
        ([True, True, False, False], lambda model: model.remove_class(True)),
    ],
)
def test_labels_and_items_may_be_of_any_type(tmp_path, labels, change):
    embedder = OwnEmbedder(lambda items: [[item, item**2, 1.0] for item in items], "squares")
    FewShotModel(embedder, "prototypical").fit([1.0, 2, 3, 4], labels).save(tmp_path / "m")
    change(FewShotModel.load(tmp_path / "m", embedder=embedder)).save(tmp_path / "m")
    expected = content(tmp_path / "m")
    FewShotModel.undo(tmp_path / "m")
    stored = StoredModel.open(tmp_path / "m")
    change(stored).save("x")
    assert content(tmp_path / "m") == expected
    assert stored.shown["backbone"] == "squares"


def test_what_is_shown_was_saved_and_older_folders_say_nothing(tmp_path):
    data = digits()
    model = FewShotModel(Embedder("conv4", weights="random", img_size=28)).fit(data.images[:5], data.labels[:5])
    model.save(tmp_path / "m")
    shown = StoredModel.open(tmp_path / "m").shown
    assert shown["backbone"] == "conv4, 28 x 28"
    assert shown["learner"] == "discriminant, dot, temperature 0.05"
    stored = StoredModel.open(tmp_path / "m")
    stored._manifest = {name: value for name, value in stored._manifest.items() if name != "shown"}
    assert stored.shown is None


def test_a_forged_memory_is_one_sentence(tmp_path):
    folder = make(tmp_path / "made")
    whole = tensors_of(folder, "memory")
    for name, value in (
        ("count", torch.ones(7)), ("support.labels", whole["support.labels"] + 9), ("support.weight", torch.ones(2))
    ):  # fmt: skip
        put_tensors(folder, "memory", {**whole, name: value})
        with pytest.raises(ArtifactError, match="memory has|its support must be of the 3 classes"):
            StoredModel.open(folder).remove_class("heron")
