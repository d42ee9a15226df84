"""A large model in a folder: each save writes what changed, and loading gives the same model, bit for bit."""

import os
import pickle
import random
import shutil
import signal
import time
from base64 import b64encode

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fewshot import FewShotModel, OwnEmbedder
from fewshot.classifiers.live import LiveModel
from fewshot.cli import main
from fewshot.errors import ArtifactError
from fewshot.images import parts, segments
from fewshot.images.class_changes import change_to_arrays
from fewshot.images.stored import StoredModel
from fewshot.persistence.arrays import map_arrays
from fewshot.persistence.artifact import read_artifact
from tests.forging import manifest_of, put, seal

D = 3


def as_they_are(items):
    return np.asarray(items, np.float32)


EMBEDDER = OwnEmbedder(as_they_are, "as they are")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Treat small models as large, with small blocks, changes of a few rows as too long for the manifest, and
    allow changes that are larger than the base."""
    monkeypatch.setattr("fewshot.classifiers.kinds.LIVE_FROM", 3)
    monkeypatch.setattr("fewshot.utils.blocks.BLOCK_BYTES", 4 * 8 * D)
    monkeypatch.setattr(segments, "LARGE", 0)
    monkeypatch.setattr(parts, "INLINE", 600)
    monkeypatch.setattr(parts, "BASE_SHARE", 0.05)


def rows(*seeds):
    return [np.random.default_rng(seed).normal(size=D).tolist() for seed in seeds]


def make(n=12, name="class {}"):
    model = FewShotModel(EMBEDDER, "prototypical", keep_support=False)
    return model.fit(rows(*range(n)), [name.format(i) if isinstance(name, str) else name(i) for i in range(n)])


def load(folder):
    return FewShotModel.load(folder, embedder=EMBEDDER)


def state(model):
    """All that a model has learned."""
    fitted = model.classifier_.model_
    found = {"x": fitted.statistics.sums["x"], "count": fitted.statistics.count}
    return model.classes_.tolist(), model.n_support_.tolist(), {name: x.numpy().tobytes() for name, x in found.items()}


def same(model, folder):
    again = load(folder)
    assert isinstance(again.classifier_.model_, LiveModel)
    assert state(again) == state(model)
    assert again.classes_.dtype == model.classes_.dtype or model.classes_.dtype.kind == "U"
    np.testing.assert_array_equal(again.predict_proba(rows(1, 2)), model.predict_proba(rows(1, 2)))
    stored = StoredModel.open(folder)
    assert (stored.classes_.tolist(), stored.n_support_.tolist()) == state(model)[:2]
    return again


def change(model, kind, seed):
    """Change a model in one of five ways; small numbers meet known classes."""
    known, label = model.classes_.tolist(), f"class {seed % 40}"
    if kind == "learn":
        model.partial_fit(rows(seed, seed + 1), [label, f"class {seed % 7}"])
    elif len(known) > 4 and kind == "remove":
        for _ in range(1 + seed % 3):
            model.remove_class(model.classes_.tolist()[seed % (len(model.classes_) - 1)])
    elif kind == "rename" and f"änderung {seed}" not in known:
        model.rename_class(known[seed % len(known)], f"änderung {seed}")
    elif len(known) > 4 and kind == "one image":
        model.partial_fit(rows(seed), [label]).remove(rows(seed), [label])
    elif kind == "many":
        model.partial_fit(rows(*range(9)), [f"more {seed} {i}" for i in range(9)])
    return model


CHANGES = st.tuples(
    st.sampled_from(["learn", "remove", "rename", "one image", "many"]), st.integers(0, 99), st.booleans()
)


@given(st.lists(CHANGES, min_size=1, max_size=25))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_saved_is_loaded_whatever_changed_and_every_version_comes_back(tmp_path, changes):
    folder = tmp_path / "m"
    shutil.rmtree(folder, ignore_errors=True)
    model, states = make(), {}
    model.save(folder)
    for kind, seed, fresh in changes:
        change(model, kind, seed).save(folder, note=kind)
        again = same(model, folder)
        current = next(one for one in FewShotModel.history(folder) if one.is_current)
        states[current.number] = state(model)
        assert (current.n_classes, current.n_support) == (len(model.classes_), model.n_support_.sum())
        if fresh:
            model = again
        if kind == "rename":  # and back, without the model
            stored, label = StoredModel.open(folder), model.classes_.tolist()[seed % 4]
            assert stored.is_editable == (len(manifest_of(folder)["changes"]) < 32)
            stored.rename_class(label, "ab").rename_class("ab", "aa").remove_class("aa").save("without")
            model = load(folder)
            assert state(model)[0] == stored.classes_.tolist()
            assert label not in state(model)[0]
    for one in FewShotModel.history(folder):
        if not one.is_current and one.number in states:
            FewShotModel.undo(folder, one.number)
            assert state(load(folder)) == states[one.number]


def test_a_class_costs_its_own_bytes_and_the_base_stays(tmp_path, monkeypatch):
    make(2000).save(tmp_path)
    model, entry = load(tmp_path), manifest_of(tmp_path)["files"]["memory"]
    before, written = os.stat(tmp_path / entry["name"]), 0
    for i in range(60):
        there = set(os.listdir(tmp_path))
        model.partial_fit(rows(i, i + 1), ["new", f"new {i}"]).save(tmp_path, note=f"add {i}")
        written += sum(os.stat(tmp_path / name).st_size for name in set(os.listdir(tmp_path)) - there)
        assert len(manifest_of(tmp_path)["files"]) + len(manifest_of(tmp_path)["changes"]) < 10
    now = os.stat(tmp_path / entry["name"])
    assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert written < 60 * 8000 < entry["bytes"] * 10
    same(model, tmp_path)
    monkeypatch.setattr(parts, "BASE_SHARE", 8)
    model.partial_fit(rows(*range(500)), [f"other {i}" for i in range(500)]).save(tmp_path)
    assert set(manifest_of(tmp_path)["files"]) == {"memory", "learner"}  # a new base
    same(model, tmp_path)


@pytest.mark.parametrize("name", [lambda i: i - 5, "ünï{}\udc80", lambda i: "x" * (i + 1) * 30, lambda i: f"nul {i}\0"])
def test_labels_may_be_of_any_type(tmp_path, name):
    model = make(name=name)
    model.save(tmp_path)
    model = same(model, tmp_path)
    first, last = model.classes_.tolist()[0], model.classes_.tolist()[-1]
    new = 77 if isinstance(first, int) else "new"
    model.partial_fit(rows(3), [new]).remove_class(first).rename_class(last, 99 if new == 77 else "renamed")
    model.save(tmp_path)
    same(model, tmp_path)


def test_other_places_copies_and_other_writers(tmp_path):
    one, two, model = tmp_path / "one", tmp_path / "two", make()
    model.save(one)
    model.partial_fit(rows(50), ["x"]).save(two)
    model.partial_fit(rows(51), ["y"]).save(one)
    same(model, one)
    copy = pickle.loads(pickle.dumps(model))
    assert len(pickle.dumps(model)) < 20_000
    copy.remove_class("x").save(one)
    same(copy, one)
    with pytest.raises(ArtifactError, match="has changed since"):
        model.save(one)
    older = object.__new__(FewShotModel)
    older.__setstate__({**model.__getstate__(), "_versions": model._held.versions})
    with pytest.raises(ArtifactError, match="has changed since"):
        older.save(one)
    model.save(one, overwrite=True)
    same(model, one)
    shutil.rmtree(two)
    model.save(two)
    same(model, two)
    model.save(two)
    assert len(FewShotModel.history(two)) == 1  # nothing had changed
    model.fit(rows(*range(12)), list("abcdefghijkl")).save(two)
    same(model, two)
    os.remove(two / manifest_of(two)["files"]["memory"]["name"])
    with pytest.raises(ArtifactError, match="missing or damaged; restore it from a copy, or save with overwrite=True"):
        model.partial_fit(rows(8), ["m"]).save(two)
    model.save(two, overwrite=True)
    same(model, two)


def test_many_classes_of_the_default_learner_keep_their_support(tmp_path, monkeypatch):
    monkeypatch.setattr("fewshot.classifiers.kinds.MOST_CLASSES", 5)
    model = FewShotModel(EMBEDDER, keep_support=False).fit(rows(*range(12)), [f"class {i % 8}" for i in range(12)])
    assert isinstance(model.classifier_.model_, LiveModel)
    for label in ("new", "newer"):
        model.partial_fit(rows(20), [label]).save(tmp_path)
        assert "changes" not in manifest_of(tmp_path)
        again = load(tmp_path)
        assert again.classes_.tolist() == model.classes_.tolist()
        np.testing.assert_array_equal(again.predict(rows(*range(30))), model.predict(rows(*range(30))))


def test_what_was_prepared_for_answers_is_not_kept_beside_the_folder(tmp_path):
    model = make()
    model.save(tmp_path)
    model = load(tmp_path)
    for i in range(3):
        model.predict(rows(i))
        model.partial_fit(rows(i), [f"new {i}"]).save(tmp_path)
    kept = [part.model for held in model._held.segments.values() for part in held.all]
    assert len(kept) > 1
    assert not any(one._held or "statistics" in vars(one) for one in kept)


def test_a_class_without_support_may_go(tmp_path):
    model = make()
    model.remove(rows(3), ["class 3"], drop_empty=False)
    model.save(tmp_path)
    same(model, tmp_path)
    model.remove_class("class 3").save(tmp_path)
    same(model, tmp_path)


def test_it_is_shown_and_small_again(tmp_path, capsys, monkeypatch):
    model = make()
    model.save(tmp_path)
    model.partial_fit(rows(1), ["new"]).save(tmp_path)
    assert main(["show", str(tmp_path)]) == 0
    assert "classes      13" in capsys.readouterr().out
    assert main(["rename", str(tmp_path), "new", "newer"]) == 0
    assert main(["remove", str(tmp_path), "class 3"]) == 0
    assert main(["undo", str(tmp_path)]) == 0
    model.rename_class("new", "newer")
    same(model, tmp_path)
    model = load(tmp_path)
    monkeypatch.setattr(segments, "LARGE", 2**30)
    model.save(tmp_path)
    assert manifest_of(tmp_path)["format"] == 2
    assert state(load(tmp_path)) == state(model)


def test_every_flipped_byte_is_found(tmp_path):
    model = make()
    model.save(tmp_path)
    for i in range(3):
        model.partial_fit(rows(*range(i + 1)), [f"{i} {j}" for j in range(i + 1)]).save(tmp_path)
    names = [entry["name"] for entry in manifest_of(tmp_path)["files"].values()]
    for name in (*names, "manifest.json"):
        whole = (tmp_path / name).read_bytes()
        for place in range(0, len(whole), 7):
            (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(ArtifactError, match=name):
                load(tmp_path)
        (tmp_path / name).write_bytes(whole)
    same(model, tmp_path)


FORGED = {
    "sums": [np.full((12, D), np.nan), np.full((12, D), 1e200), np.zeros((11, D)), np.zeros((12, D), np.float32)],
    "count": [np.full(12, np.inf), np.full(12, 2.0), np.ones(11)],
    "n_support": [np.full(12, -1), np.zeros(3, np.int64)],
    "labels": [
        np.zeros((12, 4), np.int32),
        np.full((12, 4), 2**30, np.int32),
        np.zeros((12, 0), np.int32),
        np.ones(12),
    ],
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_base_is_refused(tmp_path, name):
    make().save(tmp_path)
    whole = map_arrays(tmp_path / manifest_of(tmp_path)["files"]["memory"]["name"])
    whole = {key: value.copy() for key, value in whole.items()}
    for value in FORGED[name]:
        put_arrays(tmp_path, {**whole, name: value})
        with pytest.raises(ArtifactError, match="cannot be used"):
            load(tmp_path)
    put_arrays(tmp_path, {key: value for key, value in whole.items() if key != name})
    with pytest.raises(ArtifactError, match=f"'{name}' is missing"):
        load(tmp_path)
    put(tmp_path, "memory", (9).to_bytes(8, "little") + b'{"sums":1}')
    with pytest.raises(ArtifactError, match="cannot be used"):
        load(tmp_path)


def put_arrays(folder, arrays):
    put(folder, "memory", save(arrays))


def test_a_forged_manifest_is_refused(tmp_path):
    model = make()
    model.save(tmp_path)
    model.partial_fit(rows(1), ["new"]).save(tmp_path)
    manifest = manifest_of(tmp_path)
    for forged in ({"changes": ["x"]}, {"changes": 3}, {"changes": manifest["changes"] * 2}, {"classes": {"n": 3}},
                   {"n_support": 1}, {"classes": None}, {"changes": []}):  # fmt: skip
        seal(tmp_path, {**manifest, **forged})
        if forged == {"changes": manifest["changes"] * 2}:
            assert state(load(tmp_path)) == state(model)  # twice the same
            continue
        with pytest.raises(ArtifactError, match="cannot be used"):
            load(tmp_path)


def test_a_forged_change_is_refused(tmp_path):
    make().save(tmp_path)
    manifest, names = manifest_of(tmp_path), np.array(["new"])
    for change in (
        change_to_arrays(["nobody"], names[:0]),
        change_to_arrays([], names, np.array([1]), np.ones(1), np.ones((1, D + 1))),
        change_to_arrays([], names, np.array([2]), np.ones(1), np.ones((1, D))),
        change_to_arrays([], np.array([3]), np.array([1]), np.ones(1), np.ones((1, D))),
        change_to_arrays([f"class {i}" for i in range(12)], names[:0]),
    ):
        seal(tmp_path, {**manifest, "changes": [b64encode(save(change)).decode()]})
        with pytest.raises(ArtifactError, match="cannot be used"):
            load(tmp_path)


@pytest.mark.slow
def test_200_kills_lose_nothing_acknowledged(tmp_path):
    """Children learn, rename and remove, save, and acknowledge through a pipe; each is killed at a random moment."""
    folder, rng = tmp_path / "m", random.Random(0)
    make(40).save(folder)
    for round in range(200):
        ends, model = os.pipe(), load(folder)
        known = state(model)
        if (pid := os.fork()) == 0:
            try:
                for i in range(1000):
                    kind = rng.choice(["learn", "learn", "rename", "remove", "many"])
                    change(model, kind, 1000 * round + i).save(folder, note=f"{round} {i}")
                    os.write(ends[1], pickle.dumps(state(model)).ljust(1 << 16))
            finally:
                os._exit(0)
        os.close(ends[1])
        time.sleep(rng.random() ** 2 * 0.3)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(ends[0], "rb") as pipe:
            said = pipe.read()
        whole = len(said) // (1 << 16)
        acknowledged = pickle.loads(said[(whole - 1) << 16 :]) if whole else known
        found = state(load(folder))
        rng.seed(round)
        if found != acknowledged:  # the next save was done, too, but not acknowledged
            current = next(one for one in FewShotModel.history(folder) if one.is_current)
            assert current.note == f"{round} {whole}"
    read_artifact(folder, "classifier")
