"""A large model that keeps its support: each save writes what changed, and loading gives the same, bit for bit."""

import os
import pickle
import random
import shutil
import signal
import time
from base64 import b64decode, b64encode

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as parse
from safetensors.numpy import save as dump

from fewshot import FewShotModel, MatchingLearner, MultiPrototypicalLearner, OwnEmbedder
from fewshot.errors import ArtifactError
from fewshot.images import parts, segments
from fewshot.images.kept_rows import APPENDED, MemoryRows
from fewshot.images.stored import StoredModel
from fewshot.persistence.manifest import FORMAT
from tests.forging import manifest_of, seal

D = 3


def as_they_are(items):
    return np.asarray(items, np.float32)


EMBEDDER = OwnEmbedder(as_they_are, "as they are")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Treat small models as large, with small blocks, changes of a few rows as too long for the manifest, and
    allow changes that are larger than the base."""
    monkeypatch.setattr("fewshot.utils.blocks.BLOCK_BYTES", 4 * 8 * D)
    monkeypatch.setattr(segments, "LARGE", 0)
    monkeypatch.setattr(parts, "INLINE", 1500)
    monkeypatch.setattr(parts, "BASE_SHARE", 0.05)


#: The learner of models that are made without one; None is the default one.
LEARNER = None


@pytest.fixture(params=["few classes", "live", "matching", "several prototypes"])
def living(request, monkeypatch):
    """Models of the default learner that copy their rows, and those of it and of others that share them."""
    if request.param == "live":
        for place in ("fewshot.classifiers.kinds", "fewshot.classifiers.taught"):
            monkeypatch.setattr(f"{place}.MOST_CLASSES", 3)
    elif request.param != "few classes":
        monkeypatch.setattr("fewshot.classifiers.kinds.LIVE_FROM", 3)
        learner = MatchingLearner() if request.param == "matching" else MultiPrototypicalLearner(n_prototypes=2)
        monkeypatch.setattr(f"{__name__}.LEARNER", learner)


def rows(*seeds):
    return [np.random.default_rng(seed).normal(size=D).tolist() for seed in seeds]


def make(learner=None, n=12, name="class {}"):
    model = FewShotModel(EMBEDDER, learner or LEARNER)
    labels = [name.format(i // 2) if isinstance(name, str) else name(i // 2) for i in range(n)]
    return model.fit(rows(*range(n)), labels, ids=[f"{i}.png" for i in range(n)])


def load(folder):
    return FewShotModel.load(folder, embedder=EMBEDDER)


def state(model):
    """All that a model has learned."""
    fitted, support = model.classifier_.model_, model.support_
    kept = {name: x.numpy().tobytes() for name, x in fitted.statistics.support.items()}
    items = support.ids, support.labels.tolist(), support.embeddings.tobytes(), support.thumbnails
    return model.classes_.tolist(), model.n_support_.tolist(), fitted.statistics.count.tolist(), kept, items


def same(model, folder, whole):
    """The folder gives the model that one that is written whole gives."""
    again = load(folder)
    assert state(again) == state(model)
    shutil.rmtree(whole, ignore_errors=True)
    pickle.loads(pickle.dumps(model)).save(whole)  # a copy writes all
    other = load(whole)
    np.testing.assert_array_equal(again.predict_proba(rows(1, 2)), other.predict_proba(rows(1, 2)))
    assert again.support_.labels.dtype == other.support_.labels.dtype
    stored = StoredModel.open(folder)
    assert (stored.classes_.tolist(), stored.n_support_.tolist()) == state(model)[:2]
    assert stored.support_.ids == model.support_.ids
    return again


def change(model, kind, seed, drop_empty=False):
    """Change a model in one of several ways; small numbers meet known classes."""
    known, label = model.classes_.tolist(), f"class {seed % 9}"
    ids = model.support_.ids
    if kind == "learn" and not {f"{seed} a", f"{seed} b"} & set(ids):
        model.partial_fit(rows(seed, seed), [label, f"class {seed % 7}"], ids=[f"{seed} a", f"{seed} b"])
    elif kind == "remove class" and len(known) > 4:
        model.remove_class(known[seed % len(known)])
    elif kind == "rename" and f"änderung {seed}" not in known:
        model.rename_class(known[seed % len(known)], f"änderung {seed}")
    elif kind == "swap" and "between" not in known:
        one, other = known[0], known[-1]
        model.rename_class(one, "between").rename_class(other, one).rename_class("between", other)
    elif kind == "remove images" and len(ids) > 8:
        how = {} if isinstance(model, StoredModel) else {"drop_empty": drop_empty or seed % 2 == 0}
        model.remove_support([ids[seed % len(ids)], ids[0]], **how)
    elif kind == "many":
        model.merge(make(n=20, name="more {}"))
    return model


KINDS = ["learn", "remove class", "rename", "swap", "remove images", "many", "nothing"]
#: Those that need no network.
EDITS = {"remove class", "rename", "swap", "remove images"}
CHANGES = st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.sampled_from(["here", "loaded", "stored"]))


@given(st.lists(CHANGES, min_size=1, max_size=8))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_what_is_saved_is_loaded_whatever_changed_and_every_version_comes_back(tmp_path, living, changes):
    folder = tmp_path / "m"
    shutil.rmtree(folder, ignore_errors=True)
    model, states = make(), {}
    model.save(folder)
    for kind, seed, where in changes:
        if where == "stored" and kind in EDITS:
            model = load(folder)
            change(StoredModel.open(folder), kind, seed).save(kind)
            assert state(load(folder)) == state(change(model, kind, seed, drop_empty=True))
            model = load(folder)
        else:
            change(model, kind, seed).save(folder, note=kind)
        again = same(model, folder, tmp_path / "whole")
        states[next(one for one in FewShotModel.history(folder) if one.is_current).number] = state(model)
        if where == "loaded":
            model = again
    for one in FewShotModel.history(folder):
        if one.number in states:
            if next(other.number for other in FewShotModel.history(folder) if other.is_current) != one.number:
                FewShotModel.undo(folder, one.number)
            assert state(load(folder)) == states[one.number]


@pytest.mark.parametrize("name", ["class {}", int])
@pytest.mark.filterwarnings("ignore")
def test_a_change_writes_what_changed(tmp_path, living, name, monkeypatch):
    monkeypatch.setattr(parts, "INLINE", 2**15)
    model = make(n=400, name=name)
    model.save(tmp_path / "m")
    files = {path.name for path in (tmp_path / "m").iterdir()}
    label = 7_000 if name is int else "new"
    for number in range(4):
        model.partial_fit(rows(1000 + number), [label], ids=[f"new {number}"])
        model.remove_support([f"{number}.png"])
        model.rename_class(label, label := label + 1 if name is int else f"{label}er")
        model.save(tmp_path / "m")
        manifest = manifest_of(tmp_path / "m")
        assert {entry["name"] for entry in manifest["files"].values()} <= files  # all that is new is in the manifest
        assert all(1 <= len(changes) <= 3 for changes in manifest[APPENDED].values())
        again = load(tmp_path / "m")
        assert state(again) == state(model)
        model = again if number == 1 else model


def killed(seed, act):
    """Return what a process acknowledges that is killed while it acts again and again."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            for i in range(99):
                os.write(write, b"%d\n" % act(i))
        finally:
            os._exit(0)
    os.close(write)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = os.read(read, 10_000).split()
    os.close(read)
    return int(said[-1]) if said else 0


@pytest.mark.slow
def test_killed_at_any_moment_it_has_lost_nothing_that_was_acknowledged(tmp_path):
    folder = tmp_path / "m"
    make(n=60).save(folder)
    for number in range(60):
        held = []

        def act(i):
            held[:] = held or [load(folder)]  # noqa: B023
            (model,) = held  # noqa: B023
            n = len(model.support_)
            model.partial_fit(rows(10_000 + n), [f"k {i % 5}"], ids=[f"kill {n}"]).save(folder)
            return len(model.support_)

        said = killed(number, act)
        model = load(folder)
        assert len(model.support_) >= said
        assert model.n_support_.sum() == len(model.support_)


@pytest.mark.slow
@pytest.mark.parametrize("inline", [0, 2**15], ids=["files", "manifest"])
def test_killed_while_a_folder_is_edited_it_has_lost_nothing_that_was_acknowledged(tmp_path, monkeypatch, inline):
    monkeypatch.setattr(parts, "INLINE", inline)
    folder = tmp_path / "m"
    make(n=60).rename_class("class 0", "now 0000").save(folder)

    def act(_):
        model = StoredModel.open(folder)
        (old,) = (label for label in model.classes_.tolist() if label.startswith("now"))
        new = int(old.split()[1]) + 1
        model.rename_class(old, f"now {new:04}")
        if new % 7 == 0 and len(model.support_) > 20:  # the last ones are not of the class that is renamed
            model.remove_support([model.support_.ids[-1]])
        model.save("edit")
        return new

    for number in range(60):
        said = killed(number, act)
        model = load(folder)
        (label,) = (label for label in model.classes_.tolist() if label.startswith("now"))
        assert int(label.split()[1]) >= said
        assert model.n_support_.sum() == len(model.support_)
        assert len(model.support_.of(label)) == 2
    assert said or int(label.split()[1]) > 60
    before = FewShotModel.history(folder)
    for one in before:
        if not one.is_current:
            FewShotModel.undo(folder, one.number)
            assert load(folder).n_support_.sum() == one.n_support


@pytest.mark.filterwarnings("ignore")
def test_editing_a_folder_writes_what_changed(tmp_path, monkeypatch):
    """Without the model: the rows stay where they are, and a label that was another class's is not mistaken for it."""
    monkeypatch.setattr(parts, "INLINE", 2**15)
    model, folder = make(n=400), tmp_path / "m"
    model.save(folder)
    files = {path.name for path in folder.glob("*.safetensors")}

    def edit(*calls):
        for name, *arguments in calls:
            getattr(model, name)(*arguments)
            getattr(stored := StoredModel.open(folder), name)(*arguments).save(name)
            assert (stored.classes_.tolist(), stored.n_support_.tolist()) == state(model)[:2]
            assert state(load(folder)) == state(model)

    edit(
        ("remove_class", "class 7"),
        ("rename_class", "class 5", "class 7"),
        ("rename_class", "class 7", "class 9999"),
        ("remove_support", ["3.png", "20.png", "21.png"]),
        ("rename_class", "class 9999", "class 5"),
    )
    assert {path.name for path in folder.glob("*.safetensors")} == files
    assert manifest_of(folder)["format"] == FORMAT
    stored = StoredModel.open(folder).clear_calibration()
    stored.save("clear")
    assert state(load(folder)) == state(model)


def forge(folder, name, **arrays):
    """Change the arrays of the last change of a folder."""
    manifest = manifest_of(folder)
    change = {**parse(b64decode(manifest[APPENDED][name][-1])), **arrays}
    manifest[APPENDED][name][-1] = b64encode(dump(change)).decode()
    seal(folder, manifest)


@pytest.mark.parametrize("name", ["memory", "support"])
@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"gone": np.array([99])}, "rows that are not among"),
        ({"gone": np.array([-1])}, "rows that are not among"),
        ({"gone": np.array([1, 1])}, "a row twice"),
        ({"old.labels": np.array([[97]], np.int32)}, "without a new label"),
        ({"labels": np.array([9])}, "without a class|labels among"),
    ],
)
def test_a_forged_change_is_refused_in_one_sentence(tmp_path, monkeypatch, name, arrays, why):
    monkeypatch.setattr(parts, "INLINE", 2**15)
    model = make()
    model.save(tmp_path / "m")
    model.partial_fit(rows(50), ["class 0"], ids=["new"]).save(tmp_path / "m")
    forge(tmp_path / "m", name, **arrays)
    with pytest.raises(ArtifactError, match=why):
        load(tmp_path / "m")


def test_a_manifest_lists_no_classes_that_the_rows_tell(tmp_path):
    """A class without rows has to be listed; and what a manifest counts must be there."""
    model, folder = make(n=40), tmp_path / "m"
    model.save(folder)
    manifest = manifest_of(folder)
    assert (manifest["classes"], manifest["n_support"]) == ({"n": 20}, 40)
    assert [(one.n_classes, one.n_support) for one in FewShotModel.history(folder)] == [(20, 40)]
    model.remove_support(["0.png", "1.png"], drop_empty=False).save(folder)
    assert len(manifest_of(folder)["classes"]["values"]) == len(manifest_of(folder)["n_support"]) == 20
    assert state(load(folder)) == state(model)
    for name, value in (("classes", {"n": 19}), ("n_support", 41), ("classes", {"n": "20"}), ("classes", {})):
        seal(folder, {**manifest, name: value})
        for read in (load, StoredModel.open):
            with pytest.raises(ArtifactError, match="unlike its manifest|'n' is missing"):
                read(folder)


def test_rows_are_told_apart_by_their_content():
    x = np.arange(12.0).reshape(4, 3)
    before = MemoryRows([x], np.array([0, 0, 1, 1]), np.array(["a", "b"]))
    now = MemoryRows([np.vstack([x[[1, 2]], x[:1]])], np.array([1, 0, 1]), np.array(["b", "c"]))
    change = now.since(before)
    assert change["gone"].tolist() == [0, 3]
    assert change["x"].tolist() == x[:1].tolist()
    again = before.changed(change)
    assert again.to_memory(np.array(["b", "c"]))["support.labels"].tolist() == [1, 0, 1]
    assert before.since(before) == {}
    assert MemoryRows([x], np.array([0, 1, 1, 1]), np.array(["a", "b"])).since(before) is None  # a class was divided
