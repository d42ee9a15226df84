"""The rows of a model that changes class by class: opened without a look at each, and refused if forged."""

from pathlib import Path

import numpy as np
import pytest

from fewshot import FewShotModel, MatchingLearner, MultiPrototypicalLearner
from fewshot.classifiers.live import LiveModel
from fewshot.errors import ArtifactError
from fewshot.images import parts
from fewshot.images.stored import StoredModel
from tests.forging import manifest_of, seal
from tests.test_images_kept_rows import EMBEDDER, D, forge, load, rows, small  # noqa: F401 - a fixture

NAMES = [f"class {i}" for i in range(9)]


@pytest.fixture(params=["default", "matching", "several prototypes"])
def model(request, monkeypatch):
    """A model that changes class by class, of nine classes with a row or two."""
    for place in ("fewshot.classifiers.kinds", "fewshot.classifiers.taught"):
        monkeypatch.setattr(f"{place}.MOST_CLASSES", 3)
    monkeypatch.setattr("fewshot.classifiers.kinds.LIVE_FROM", 3)
    monkeypatch.setattr(parts, "INLINE", 2**15)
    learners = {"matching": MatchingLearner(), "several prototypes": MultiPrototypicalLearner(n_prototypes=2)}
    found = FewShotModel(EMBEDDER, learners.get(request.param), keep_support=False)
    found.fit(rows(*range(12)), [*NAMES, *NAMES[:3]])
    assert isinstance(found.classifier_.model_, LiveModel)
    return found


def is_mapped(x, folder):
    """Whether an array reads from a mapped file of a folder."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return any(start <= x.ctypes.data < end for start, end in ranges)


def test_it_opens_with_mapped_rows_and_makes_keys_when_asked(tmp_path, model):
    model.save(tmp_path / "m")
    again = load(tmp_path / "m").classifier_.model_
    assert "memory" not in vars(again)
    assert not again._held
    assert all(is_mapped(block, tmp_path) for block in again.support.x.blocks)
    assert not is_mapped(model.classifier_.model_.support.x.blocks[0], tmp_path)
    np.testing.assert_array_equal(load(tmp_path / "m").predict(rows(3, 4)), model.predict(rows(3, 4)))


def test_one_change_may_replace_everything(tmp_path, model):
    model.save(tmp_path / "m")
    model.partial_fit(rows(50), ["class 0"]).save(tmp_path / "m")
    forge(tmp_path / "m", "memory", gone=np.arange(12))
    seal(tmp_path / "m", {**manifest_of(tmp_path / "m"), "classes": {"n": 1}, "n_support": 1})
    again, one = load(tmp_path / "m"), FewShotModel(EMBEDDER, model.learner).fit(rows(50), ["class 0"])
    for kind in (again, StoredModel.open(tmp_path / "m")):
        assert (kind.classes_.tolist(), kind.n_support_.tolist()) == (["class 0"], [1])
    for each in (again, one):
        each.partial_fit(rows(51, 52), ["class 0", "new"])
    np.testing.assert_array_equal(again.predict_proba(rows(1, 2)), one.predict_proba(rows(1, 2)))


TEXT = np.array([[ord("q")]], np.int32)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"gone": np.array([99])}, "rows that are not among"),
        ({"gone": np.array([1, 1])}, "a row twice"),
        ({"old.labels": TEXT}, "without a new label"),
        ({"old.labels": TEXT, "new.labels": TEXT + 1}, "there is no class 'q'"),
        ({"old.labels": np.array([list(map(ord, n)) for n in NAMES[:2]], np.int32),
          "new.labels": np.array([list(map(ord, NAMES[2]))] * 2, np.int32)}, "two classes would be 'class 2'"),
        ({"labels": np.array([9])}, "without a class"),
        ({"x": np.zeros((1, D + 1))}, "expected rows of 3 numbers"),
        ({"x": np.zeros((1, D), np.float32)}, "is float32"),
        ({"x": np.full((1, D), np.nan)}, "not finite"),
        ({"x": np.full((1, D), 1e200)}, "overflows"),
        ({"of.labels": np.array([7])}, "mix text and numbers"),
        ({"of.labels": np.array([[98], [97]], np.int32)}, "sorted labels"),
        ({"of.labels": np.array([[97], [98]], np.int32)}, "lacks rows of some"),
    ],
)  # fmt: skip
def test_a_forged_change_is_refused_in_one_sentence(tmp_path, model, arrays, why):
    model.save(tmp_path / "m")
    model.partial_fit(rows(50), ["class 0"]).save(tmp_path / "m")
    forge(tmp_path / "m", "memory", **arrays)
    with pytest.raises(ArtifactError, match=why):
        load(tmp_path / "m")


@pytest.mark.filterwarnings("ignore")
def test_sums_do_not_depend_on_how_rows_came(model):
    """So that a model that is loaded, whose rows came at once, is the same to the last bit."""
    x = np.random.default_rng(99).normal(size=(40, D))
    labels = [*NAMES, *NAMES[:3], *NAMES[:4] * 10]
    one = FewShotModel(EMBEDDER, model.learner).fit([*rows(*range(12)), *x], labels)
    for start in range(0, 40, 4):
        model.partial_fit(x[start : start + 4], NAMES[:4])
    mine, other = (each.classifier_.model_ for each in (model, one))
    for name in NAMES:
        sums = (each.known.sums.rows(np.array([each.known.places.of(name)])) for each in (mine, other))
        np.testing.assert_array_equal(*sums)
    np.testing.assert_array_equal(model.predict_proba(rows(1, 2)), one.predict_proba(rows(1, 2)))


def test_a_base_may_list_a_class_that_had_no_support(tmp_path, model):
    model.set_params(keep_support=True).fit(rows(*range(12)), [*NAMES, *NAMES[:3]], ids=[f"{i}.png" for i in range(12)])
    model.remove_support(["5.png"], drop_empty=False).save(tmp_path / "m")
    StoredModel.open(tmp_path / "m").remove_class(NAMES[5]).save("remove")
    again = load(tmp_path / "m")
    assert again.classes_.tolist() == [name for name in NAMES if name != NAMES[5]]
    np.testing.assert_array_equal(again.predict(rows(1, 2)), model.remove_class(NAMES[5]).predict(rows(1, 2)))
