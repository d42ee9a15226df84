"""A saved index: what is written, what is mapped, what is only a cache."""

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fewshot import FewShotImageClassifier, PrototypeIndex
from fewshot.errors import ArtifactError
from fewshot.search import saving
from fewshot.search.approximate import faiss_module
from tests.processes import python

RNG = np.random.default_rng(0)
KEYS = RNG.normal(size=(400, 6)).astype(np.float32)
QUERIES = RNG.normal(size=(50, 6)).astype(np.float32)
SEARCH = """
import json, sys
import numpy as np
from fewshot import PrototypeIndex
queries = np.load(sys.argv[1])
for folder in sys.argv[2:]:
    print(json.dumps([part.tolist() for part in PrototypeIndex.load(folder).search(queries, 5)]))
"""
METRICS, KINDS = ("sqeuclidean", "cosine", "dot"), ("exact", "faiss", "ivf", "hnsw")


def answers(index, k=5):
    return [part.tolist() for part in index.search(QUERIES, k)]


def changed(index):
    """An index with a base, a delta, and dead keys in both."""
    index.search(QUERIES)  # builds what is built when first asked
    return index.add(KEYS[:30] + 1).remove([3, 7, 405]).add(KEYS[:2] - 2)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_as_if_it_had_never_been_saved(metric, kind, tmp_path):
    index = changed(PrototypeIndex(metric, kind).add(KEYS))
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path)
    assert repr(loaded) == repr(index)
    assert loaded.build().kind == index.build().kind
    for one in (index, loaded):
        one.add(KEYS[:3] * 3).remove([0]).update(KEYS[:1] * 2, [5])
    assert answers(loaded) == answers(index)
    assert answers(loaded.compact()) == answers(index.compact())


def test_another_process_answers_the_same_bit_for_bit(tmp_path):
    indexes = {f"{metric}-{kind}": PrototypeIndex(metric, kind) for metric in METRICS for kind in KINDS}
    for name, index in indexes.items():
        changed(index.add(KEYS)).save(tmp_path / name)
    np.save(tmp_path / "queries.npy", QUERIES)
    found = python(SEARCH, *(tmp_path / name for name in ("queries.npy", *indexes))).stdout.splitlines()
    assert [json.loads(line) for line in found] == [answers(index) for index in indexes.values()]


@pytest.mark.parametrize("labels", [["a", "ü\n", "c"], [2**60, 5, 5], [True, False, True]])
def test_labels_keep_their_type(labels, tmp_path):
    index = PrototypeIndex(recall=0.5).add(KEYS[:3], labels).add(KEYS[3:4], labels[:1])
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path)
    assert answers(loaded, 4) == answers(index, 4)
    assert loaded.recall == 0.5


@pytest.mark.parametrize("index", [PrototypeIndex("dot"), PrototypeIndex().add(KEYS).remove(np.arange(400))])
def test_an_empty_index_can_be_saved(index, tmp_path):
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path)
    assert len(loaded) == 0
    assert loaded.add(KEYS[:2]).search(KEYS[:1])[0].tolist() == index.add(KEYS[:2]).search(KEYS[:1])[0].tolist()


def test_keys_are_written_once_and_changes_beside_them(tmp_path):
    index = PrototypeIndex(index="ivf").add(KEYS)
    index.build()
    index.save(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    index.add(KEYS[:1]).save(tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    same = {name.split("-")[0] for name in before if before[name] == after.get(name)}
    assert same == {"keys", "lists"}
    assert len(after) == len(before) == 4


def built_anew(monkeypatch):
    calls = []
    from fewshot.search.approximate import Approximate

    build = Approximate.build.__func__
    monkeypatch.setattr(
        Approximate, "build", classmethod(lambda cls, *args: calls.append(args[0]) or build(cls, *args))
    )
    return calls


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_what_was_built_is_opened_and_not_built_again(kind, tmp_path, monkeypatch):
    index = changed(PrototypeIndex(index=kind).add(KEYS))
    index.save(tmp_path / "one")
    calls = built_anew(monkeypatch)
    loaded = PrototypeIndex.load(tmp_path / "one")
    assert answers(loaded) == answers(index)
    loaded.save(tmp_path / "two")  # an opened index is copied, even from a folder that is gone
    shutil.rmtree(tmp_path / "one")
    assert answers(loaded) == answers(index)
    loaded.save(tmp_path / "three")
    assert answers(PrototypeIndex.load(tmp_path / "two")) == answers(index)
    assert answers(PrototypeIndex.load(tmp_path / "three")) == answers(index)
    assert calls == []
    assert answers(PrototypeIndex.load(tmp_path / "two", cache=False)) == answers(index)
    assert calls == [kind]


@pytest.mark.parametrize("harm", ["gone", "flipped", "another version", "nothing FAISS can read"])
def test_a_cache_that_does_not_serve_is_built_anew(harm, tmp_path, monkeypatch):
    index = changed(PrototypeIndex(index="ivf").add(KEYS))
    index.save(tmp_path)
    (lists,) = tmp_path.glob("*.faiss")
    if harm == "gone":
        lists.unlink()
    elif harm == "flipped":
        lists.write_bytes(lists.read_bytes()[:-1] + b"?")
    elif harm == "another version":
        monkeypatch.setattr(faiss_module(), "__version__", "0.0")
    else:

        def read_index(*args):
            raise RuntimeError("Error in faiss::read_index")

        monkeypatch.setattr(faiss_module(), "read_index", read_index)
    calls = built_anew(monkeypatch)
    assert answers(PrototypeIndex.load(tmp_path)) == answers(index)
    assert calls == ["ivf"]


def test_row_70_every_flipped_byte_is_detected(tmp_path):
    PrototypeIndex().add(KEYS[:4, :2]).save(tmp_path)
    for path in list(tmp_path.iterdir()):
        good = path.read_bytes()
        for i in range(len(good)):
            path.write_bytes(good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :])
            with pytest.raises(ArtifactError, match=path.name):
                PrototypeIndex.load(tmp_path)
        path.write_bytes(good)
    assert len(PrototypeIndex.load(tmp_path)) == 4


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"is not a saved index: there is no such folder; make one with save\(\)$"):
        PrototypeIndex.load(tmp_path / "gone")
    PrototypeIndex().add(KEYS).save(tmp_path / "index")
    with pytest.raises(ArtifactError, match="is not a saved classifier: it holds a saved index"):
        FewShotImageClassifier.load(tmp_path / "index")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="holds other files but no saved index"):
        PrototypeIndex().save(tmp_path)


def test_automatic_labels_stay_apart_when_keys_come_while_it_is_saved(tmp_path, monkeypatch):
    index = PrototypeIndex().add(KEYS[:10])
    from fewshot.search import index as module

    def save_late(state, content, *rest):
        index.add(KEYS[10:11])  # another thread, just then
        return save(state, content, *rest)

    save = module.save_index
    monkeypatch.setattr(module, "save_index", save_late)
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path).add(KEYS[10:11])
    labels = loaded.search(KEYS[:1], 11)[0][0].tolist()
    assert len(set(labels)) == 11


def test_an_opened_index_is_copied_whole_by_several_threads_at_once(tmp_path):
    index = PrototypeIndex(index="ivf").add(RNG.normal(size=(3000, 64)).astype(np.float32))
    index.build()
    index.save(tmp_path / "one")
    size = next((tmp_path / "one").glob("*.faiss")).stat().st_size
    loaded = PrototypeIndex.load(tmp_path / "one")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(loaded.save, [tmp_path / f"copy {i}" for i in range(12)]))
    assert {path.stat().st_size for path in tmp_path.glob("*/*.faiss")} == {size}


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_row_74_the_last_byte_that_finds_no_room_is_noticed(kind, tmp_path):
    index = PrototypeIndex(index=kind).add(RNG.normal(size=(900, 16)).astype(np.float32))
    index.build()
    index.save(tmp_path / "whole")
    size = next((tmp_path / "whole").glob("*.faiss")).stat().st_size
    index = pickle.loads(pickle.dumps(index))
    index.build()
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, was[1]))
        with pytest.raises(OSError, match="too large|cannot be written"):
            index.save(tmp_path / "short")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "short" / "manifest.json").exists()
    index.save(tmp_path / "short")
    assert answers_of(PrototypeIndex.load(tmp_path / "short")) == answers_of(index)


def answers_of(index):
    return index.search(np.ones((1, 16)), 5)[0].tolist()


MEMORY = """
import os, sys
import numpy as np
from fewshot import PrototypeIndex
def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
index = PrototypeIndex.load(sys.argv[1])
index.search(np.ones((1, 64)))
before = private()
keep = [PrototypeIndex.load(sys.argv[1]) for _ in range(4)]
for one in keep:
    one.search(np.ones((1, 64)))
print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads what Linux counts")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_keys_and_graphs_are_mapped_and_lists_are_small(kind, tmp_path):
    """Four more openings of 10 MB of keys, with 11 MB of a graph or 1 MB of lists, take little memory of their own."""
    index = PrototypeIndex(index=kind).add(RNG.normal(size=(40_000, 64)).astype(np.float32))
    index.build()
    index.save(tmp_path)
    run = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 4 * 7  # 40 and more if they were read; 9 to 21 was seen


def search_and_tell(index, queue):
    queue.put(index.search(QUERIES[:1])[0].tolist())


def test_a_forked_child_searches_an_opened_index(tmp_path):
    index = PrototypeIndex(index="ivf").add(KEYS)
    index.build()
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path)
    expected = loaded.search(QUERIES[:1])[0].tolist()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=search_and_tell, args=(loaded, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()
    assert os.getpid() != process.pid


@pytest.mark.parametrize("error", [FileNotFoundError, RuntimeError])  # of the system, and of safetensors
def test_an_index_that_is_replaced_while_it_is_opened_is_opened_again(tmp_path, monkeypatch, error):
    keys, read, calls = np.eye(4), saving.read_tensors, []
    PrototypeIndex().add(keys).save(tmp_path / "index")

    def gone_once(path):
        calls.append(path)
        if len(calls) == 1:
            PrototypeIndex().add(2 * keys).save(tmp_path / "index")
            raise error(path)
        return read(path)

    monkeypatch.setattr(saving, "read_tensors", gone_once)
    assert PrototypeIndex.load(tmp_path / "index").search([[2.0, 0, 0, 0]])[1].tolist() == [[0.0]]
    monkeypatch.setattr(saving, "read_tensors", lambda path: int("no number"))
    with pytest.raises(ArtifactError, match="no number"):  # and not again without end, where nothing was written
        PrototypeIndex.load(tmp_path / "index")


def test_what_others_have_added_since_is_not_undone(tmp_path):
    PrototypeIndex().add(KEYS[:2]).save(tmp_path)
    one, two = PrototypeIndex.load(tmp_path), PrototypeIndex.load(tmp_path)
    copied = pickle.loads(pickle.dumps(two))
    one.add(KEYS[2:3]).save(tmp_path)
    one.add(KEYS[3:4]).save(tmp_path)
    for other in (two, copied):
        with pytest.raises(ArtifactError, match="changed since this index was loaded.*overwrite=True"):
            other.add(KEYS[4:5]).save(tmp_path)
    assert len(PrototypeIndex.load(tmp_path)) == 4
    two.save(tmp_path, overwrite=True)
    assert len(PrototypeIndex.load(tmp_path)) == 3
    PrototypeIndex().add(KEYS[:1]).save(tmp_path)  # one that has never been there
    assert len(PrototypeIndex.load(tmp_path)) == 1
