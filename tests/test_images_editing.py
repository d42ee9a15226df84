"""Images and classes of a classifier of images removed, renamed, merged."""

import enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier, LabeledImages, MatchingLearner
from fewshot.errors import ImageDecodeError
from tests.photographs import photos, quick_embedder, write_photos

IMAGES, LABELS = photos(4)
LABELS = np.array(LABELS)
QUERIES, _ = photos(3, seed=1)
RED, BLUE = (Image.new("RGB", (40, 40), name) for name in ("red", "blue"))
KEPT = pytest.mark.parametrize("keep", [True, False])


def fit(rows=slice(None), **params):
    images = [IMAGES[i] for i in np.arange(8)[rows]]
    return FewShotImageClassifier(quick_embedder(), **params).fit(images, LABELS[rows])


def assert_alike(one, other):
    assert one.classes_.tolist() == other.classes_.tolist()
    assert one.n_support_.tolist() == other.n_support_.tolist()
    np.testing.assert_allclose(one.predict_proba(QUERIES), other.predict_proba(QUERIES), atol=1e-5)
    if one.support_ is not None:
        assert one.support_.labels.tolist() == other.support_.labels.tolist()
        assert one.support_.thumbnails == other.support_.thumbnails


NAMES = ["one", "two", "one", "two"]


class Kind(str, enum.Enum):  # noqa: UP042 - older than StrEnum, and what numpy cuts
    """Numpy would call all of them "Kin"."""

    ONE, TWO, NEW = "one", "two", "new"


LABELS_IN = {
    "column of a frame": lambda y: pd.DataFrame({"label": y}),
    "array of shape (n, 1)": lambda y: np.array(y)[:, None],
    "lists of one": lambda y: [[label] for label in y],
    "nullable": lambda y: pd.Series(y, dtype="string[python]", index=range(9, 9 + len(y))),
    "StringDType": lambda y: np.array(y, dtype=np.dtypes.StringDType()),
    "generator": iter,
    "members": lambda y: [Kind(label) for label in y],
}


@pytest.mark.filterwarnings("ignore:A column-vector")
@pytest.mark.parametrize("given", LABELS_IN.values(), ids=LABELS_IN)
def test_labels_in_any_container_live_through_all_changes(given, tmp_path):
    def new():
        model = FewShotImageClassifier(quick_embedder(), progress=False)
        return model.fit(IMAGES[:4], given(NAMES), ids=["a", "b", "c", "d"])

    assert len(new().remove_class(Kind.ONE).support_) == 2
    model = new().partial_fit([IMAGES[4]], given(["new"]), ids=["e"]).remove([IMAGES[0]], given(["one"]))
    model.merge(FewShotImageClassifier(quick_embedder(), progress=False).fit([IMAGES[5]], given(["new"])))
    model.rename_class(Kind.NEW, "three").save(tmp_path / "saved")
    loaded = FewShotImageClassifier.load(tmp_path / "saved")
    for found in (model, loaded):
        assert found.support_.labels.tolist() == ["two", "one", "two", "three", "three"]
        assert found.n_support_.tolist() == [1, 2, 2]
        assert found.classes_.tolist() == ["one", "three", "two"]
        assert len(found.audit()) == 5


def test_a_nul_at_the_end_of_a_label_lives_through_all_changes(tmp_path):
    model = FewShotImageClassifier(quick_embedder(), progress=False).fit(IMAGES[:4], ["a\0", "a", "a\0", "a"])
    model.partial_fit([IMAGES[4]], ["a"]).remove([IMAGES[0]], ["a\0"]).rename_class("a", "\0")
    model.merge(FewShotImageClassifier(quick_embedder(), progress=False).fit([IMAGES[5]], ["a\0"]))
    model.save(tmp_path / "saved")
    for found in (model, FewShotImageClassifier.load(tmp_path / "saved")):
        assert dict(zip(found.classes_.tolist(), found.n_support_.tolist(), strict=True)) == {"\0": 3, "a\0": 2}
        assert found.support_.labels.tolist() == ["\0", "a\0", "\0", "\0", "a\0"]
        assert set(found.predict(IMAGES).tolist()) <= {"\0", "a\0"}
    assert model.remove_class("a\0").support_.labels.tolist() == ["\0"] * 3


def test_labels_are_checked_before_anything_is_embedded():
    model = fit()
    with pytest.raises(TypeError, match="mix the types integer and string"):
        model.partial_fit(["there is no such file"], [3])


@KEPT
def test_images_that_were_removed_were_never_there(keep):
    edited = fit(keep_support=keep).remove([IMAGES[1], IMAGES[6]], [LABELS[1], LABELS[6]])
    assert_alike(edited, fit([0, 2, 3, 4, 5, 7], keep_support=keep))
    assert (edited.support_ is not None) == keep


def test_kept_images_are_taken_away_exactly():
    """The statistics hold no trace of another rounding of the network."""
    edited = fit()
    before = edited.classifier_.model_.statistics.support["x"].clone()
    edited.partial_fit([RED, BLUE], ["temple", "flower"])
    edited.remove([BLUE], ["flower"]).remove([RED], ["temple"])
    assert edited.classifier_.model_.statistics.support["x"].equal(before)


def test_images_go_by_name(tmp_path):
    paths = write_photos(tmp_path, 3)
    data = LabeledImages.from_folder(tmp_path)
    model = FewShotImageClassifier(quick_embedder()).fit(data)
    model.remove_support([Path(paths[0]), paths[4]])
    assert set(model.support_.ids) == set(paths) - {paths[0], paths[4]}
    assert model.n_support_.tolist() == [2, 2]
    expected = FewShotImageClassifier(quick_embedder()).fit(
        list(model.support_.ids), [name.split("/")[-2] for name in model.support_.ids]
    )
    assert_alike(model, expected)
    model.save(tmp_path / "saved")
    assert_alike(FewShotImageClassifier.load(tmp_path / "saved"), model)


def test_arrays_have_the_names_that_they_are_given():
    arrays = np.stack([np.asarray(image) for image in IMAGES])
    model = FewShotImageClassifier(quick_embedder()).fit(arrays, LABELS, ids=[f"image {i}" for i in range(8)])
    model.partial_fit(arrays[:2], LABELS[:2])
    model.remove_support(["image 3", "image 7"])
    assert model.n_support_.tolist() == [3, 5]
    with pytest.raises(ValueError, match=r"2 support images are <ndarray of shape .*; learn them with ids="):
        model.remove_support([model.support_.ids[-1]])
    with pytest.raises(ValueError, match="the id 'image 0' is in use"):
        model.partial_fit(arrays[:1], LABELS[:1], ids=["image 0"])


def test_an_image_learned_twice_goes_twice(tmp_path):
    paths = write_photos(tmp_path, 2)
    labels = [path.split("/")[-2] for path in paths]
    model = FewShotImageClassifier(quick_embedder()).fit([*paths, paths[0]], [*labels, labels[0]])
    assert model.remove_support([paths[0]]).n_support_.sum() == 3


def test_a_class_without_images_left_is_gone_or_kept():
    temples = [i for i in range(8) if LABELS[i] == "temple"]
    images = [IMAGES[i] for i in temples]
    assert fit().remove(images, LABELS[temples]).classes_.tolist() == ["flower"]
    kept = fit().remove(images, LABELS[temples], drop_empty=False)
    assert kept.classes_.tolist() == ["flower", "temple"]
    assert (kept.predict(QUERIES) == "flower").all()


def test_what_cannot_be_removed_is_told_and_nothing_changes(tmp_path):
    model = fit()
    before = dict(model.__dict__)
    (tmp_path / "broken.png").write_bytes(b"no image")
    for call, error, message in (
        (
            lambda: model.remove([RED], ["temple"]),
            ValueError,
            "image 0, .*, is not among .* 'temple'",
        ),
        (lambda: model.remove([IMAGES[0]] * 2, [LABELS[0]] * 2), ValueError, "image 1, .*, is not among"),
        (lambda: model.remove([IMAGES[0]], ["tempel"]), ValueError, "image 0, .*, is not among .* 'tempel'"),
        (lambda: model.remove([str(tmp_path / "broken.png")], ["temple"]), ImageDecodeError, r"broken\.png"),
        (lambda: model.remove(IMAGES, LABELS), ValueError, "nothing would remain"),
        (lambda: model.remove_support(["gone.png"]), ValueError, r"there is no support image 'gone.png'"),
        (lambda: model.remove_support("gone.png"), TypeError, r"pass a list of them, e.g. \['gone.png'\]"),
        (lambda: model.rename_class("temple", "flower"), ValueError, "'flower' is a class already"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert model.__dict__ == before
    with pytest.raises(ValueError, match="support was not kept, .* fit with keep_support=True, or remove"):
        fit(keep_support=False).remove_support(["x"])


def test_two_classes_are_joined_as_if_their_images_had_been_shown_as_one():
    joined = fit().rename_class("temple", "flower", merge=True)
    expected = FewShotImageClassifier(quick_embedder()).fit(IMAGES, ["flower"] * len(IMAGES))
    assert joined.classes_.tolist() == ["flower"]
    assert joined.n_support_.tolist() == expected.n_support_.tolist()
    with pytest.raises(ValueError, match="support was not kept"):
        fit(keep_support=False).rename_class("temple", "flower", merge=True)


@KEPT
def test_a_class_is_renamed_with_its_images(keep):
    names = np.where(LABELS == "temple", "a temple of a long name", LABELS.astype("<U40"))
    expected = FewShotImageClassifier(quick_embedder(), keep_support=keep).fit(IMAGES, names)
    assert_alike(fit(keep_support=keep).rename_class("temple", "a temple of a long name"), expected)


def test_merging_is_learning_what_both_have_learned():
    one, other = fit([0, 1, 4]), fit([2, 3, 5, 6, 7])
    expected = fit([0, 1, 4, 2, 3, 5, 6, 7])
    assert_alike(one.merge(other), expected)
    assert len(other.support_) == 5


def test_what_does_not_fit_together_is_not_merged():
    model = fit()
    with pytest.raises(TypeError, match="other is 'saved'; expected a model, such as one from load"):
        model.merge("saved")
    larger = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=48)).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="has another network or preprocessing"):
        model.merge(larger)
    without = fit(keep_support=False)
    with pytest.raises(ValueError, match=r"kept no support; .* set_params\(keep_support=False\) here"):
        model.merge(without)
    assert without.merge(model).support_ is None
    assert model.set_params(keep_support=False).merge(fit(keep_support=False)).support_ is None
    assert model.n_support_.tolist() == [8, 8]


@pytest.mark.parametrize("replacement", ["reservoir", "oldest"])
def test_a_bounded_memory_keeps_the_pictures_of_what_it_keeps(replacement):
    learner = MatchingLearner(max_support=2, replacement=replacement)
    model = FewShotImageClassifier(quick_embedder(), learner).fit(IMAGES, LABELS, ids=[f"image {i}" for i in range(8)])
    for i in range(8):
        model.partial_fit([IMAGES[i].rotate(90)], LABELS[[i]], ids=[f"turned {i}"])
    assert model.n_support_.tolist() == [2, 2]
    assert len(model.support_) == 4
    kept = {tuple(row) for row in model.classifier_.model_.statistics.support["x"].tolist()}
    assert kept == {tuple(row) for row in model.support_.embeddings.astype(float).tolist()}
    if replacement == "oldest":
        assert set(model.support_.ids) == {"turned 2", "turned 3", "turned 6", "turned 7"}
    model.remove_support([model.support_.ids[0]])
    assert len(model.support_) == 3


@pytest.mark.parametrize("params", [{"reject": -1.0}, {"on_error": "unknown"}, {"on_error": "skip"}])
def test_no_change_makes_an_answer_mean_a_class_and_the_unknown_alike(params):
    model = fit().set_params(**params)  # not known yet to the classifier of embeddings
    before, other = model.classifier_, FewShotImageClassifier(quick_embedder()).fit(IMAGES[:1], ["unknown"])
    for change in (
        lambda: model.rename_class("temple", "unknown"),
        lambda: model.merge(other),
        lambda: model.partial_fit(IMAGES[:1], ["unknown"]),
    ):
        with pytest.raises(ValueError, match="unknown_label='unknown' is a class; choose another"):
            change()
    assert model.classifier_ is before
    assert model.set_params(unknown_label="?").rename_class("temple", "unknown").classes_.tolist() == [
        "flower",
        "unknown",
    ]


TWICE = {
    "fit": lambda a, b: fit().fit([a, RED, a], ["x", "y", "x"], ids=["a", "r", "again"]),
    "partial_fit": lambda a, b: b.partial_fit([a], ["flower"], ids=["again"]),
    "as another class": lambda a, b: b.partial_fit([a], ["new"], ids=["again"]),
    "merge": lambda a, b: b.merge(fit().fit([BLUE, a], ["x", "y"], ids=["b", "again"])),
}


@pytest.mark.parametrize("learn", TWICE.values(), ids=TWICE)
def test_an_image_that_is_learned_twice_counts_twice_and_is_named(learn):
    model = FewShotImageClassifier(quick_embedder()).fit(IMAGES[:2], LABELS[:2], ids=["a", "c"])
    with pytest.warns(
        UserWarning, match=r"learned already or twice, 1 of . images?: again .*is the same as a\b.*; each copy"
    ):
        learned = learn(IMAGES[0], model)
    assert learned.n_support_.sum() == len(learned.support_)


@KEPT
def test_other_images_are_no_twins(keep, recwarn):
    model = fit([0, 1, 4], keep_support=keep).partial_fit([IMAGES[5]], ["flower"])
    model.merge(fit([2, 6], keep_support=keep))
    assert not [one for one in recwarn if "learned already" in str(one.message)]


def test_twins_are_found_among_the_images_of_one_call_where_support_is_not_kept():
    with pytest.warns(UserWarning, match="learned already or twice"):
        fit(keep_support=False).partial_fit([RED, RED], ["temple", "temple"])
