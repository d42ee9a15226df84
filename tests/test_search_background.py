"""An index is built in the background while exact search answers."""

import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from fewshot import PrototypeIndex
from fewshot.search import background, snapshot
from fewshot.search.approximate import Approximate

RNG = np.random.default_rng(0)
KEYS = RNG.normal(size=(3000, 16)).astype(np.float32)
QUERIES = KEYS[:40] + RNG.normal(0, 0.3, (40, 16)).astype(np.float32)
EXACT = PrototypeIndex(index="exact").add(KEYS).search(QUERIES, 5)


@pytest.fixture
def held(monkeypatch):
    """Hold up the build of every index of more than 100 keys until ``held.go`` is set."""
    monkeypatch.setattr(snapshot, "QUICK", 100)
    build = Approximate.build.__func__

    class Held:
        begun, go = threading.Event(), threading.Event()

    def slowly(cls, kind, is_product, n, d, rows, *rest):
        def late(places):
            Held.begun.set()
            assert Held.go.wait(30)
            return rows(places)

        return build(cls, kind, is_product, n, d, late, *rest)

    monkeypatch.setattr(Approximate, "build", classmethod(slowly))
    yield Held
    Held.go.set()


def thread_of(index):
    return background._begun[index._state.base.snapshot]


def search_and_wait(index):
    index.search(QUERIES)
    thread_of(index).join(30)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_search_answers_until_it_is_built_and_build_waits(kind, dtype, held):
    index = PrototypeIndex(index=kind).add(KEYS)
    labels, similarities = index.search(QUERIES.astype(dtype), 5)
    assert held.begun.wait(30)
    np.testing.assert_array_equal(labels, EXACT[0])
    np.testing.assert_allclose(similarities, EXACT[1], rtol=1e-5, atol=1e-5)
    assert similarities.dtype == dtype
    index.add(QUERIES[:1], [9000]).remove([3])
    assert index.search(QUERIES[:1])[0].tolist() == [[9000]]
    assert 3 not in index.search(QUERIES[3:4], 2)[0]
    threading.Timer(0.05, held.go.set).start()
    assert index.build().kind == kind
    assert (index.search(QUERIES[1:3])[0] == EXACT[0][1:3, :1]).all()


def test_an_index_that_is_forgotten_stops_building(held):
    index = PrototypeIndex(index="ivf").add(KEYS)
    index.search(QUERIES)
    thread, gone = thread_of(index), weakref.ref(index._state.base.snapshot)
    assert held.begun.wait(30)
    del index
    gc.collect()
    assert gone() is None
    held.go.set()
    thread.join(30)
    assert not thread.is_alive()


def test_copies_and_forked_children_build_their_own(held):
    index = PrototypeIndex(index="ivf").add(KEYS)
    index.search(QUERIES)
    assert held.begun.wait(30)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(index)).search(QUERIES, 5)[0], EXACT[0])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_search_build_search, args=(queue, index, held))
    process.start()
    try:
        assert queue.get(timeout=60) == [EXACT[0].tolist(), "ivf"]
    finally:
        process.kill()
        process.join()


def _search_build_search(queue, index, held):
    held.go.set()
    queue.put([index.search(QUERIES, 5)[0].tolist(), index.build().kind])


def test_a_failure_is_told_and_exact_search_goes_on(held, monkeypatch):
    def fail(*args):
        raise MemoryError("no room")

    whole = Approximate.build
    monkeypatch.setattr(Approximate, "build", fail)
    index = PrototypeIndex(index="ivf").add(KEYS)
    with pytest.warns(UserWarning, match=r"building an index .* failed \(MemoryError: no room\); answers stay exact"):
        search_and_wait(index)
    np.testing.assert_array_equal(index.search(QUERIES, 5)[0], EXACT[0])
    with pytest.raises(MemoryError):
        index.build()
    held.go.set()
    monkeypatch.setattr(Approximate, "build", whole)
    assert index.build().kind == "ivf"


#: Ends while a background thread builds an index for the first time, or again after many keys were removed.
ENDS = """
import sys, time, numpy as np
from fewshot import PrototypeIndex
kind, again, seconds = sys.argv[1], sys.argv[2] == "again", float(sys.argv[3])
keys = np.random.default_rng(0).normal(size=(30000, 64)).astype("float32")
index = PrototypeIndex("cosine", kind).add(keys)
if again:
    index.build()
    index.remove(range(10000))
print(index.search(keys[-2:])[0].tolist(), flush=True)
time.sleep(seconds)
began = time.perf_counter()
import atexit
atexit._run_exitfuncs()
print(time.perf_counter() - began < 20)
"""


@pytest.mark.parametrize(
    ("kind", "when", "seconds"),
    [
        ("hnsw", "first", 0),
        pytest.param("ivf", "first", 0.5, marks=pytest.mark.slow),
        pytest.param("ivf", "again", 0.8, marks=pytest.mark.slow),
        pytest.param("hnsw", "again", 0.8, marks=pytest.mark.slow),
    ],
)
def test_a_process_may_end_while_it_builds(kind, when, seconds):
    command = [sys.executable, "-c", ENDS, kind, when, str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[[29998], [29999]]\nTrue\n", "")
