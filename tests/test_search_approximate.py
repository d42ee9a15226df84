"""FAISS proposes: tuned to a recall against exact answers, on the threads that torch has."""

import numpy as np
import pytest
import torch

from fewshot import PrototypeIndex
from fewshot.search.approximate import Choice, faiss_module
from fewshot.search.snapshot import FaissSnapshot
from tests.processes import python

RNG = np.random.default_rng(0)
KEYS = (RNG.normal(size=(3000, 6)) @ RNG.normal(size=(6, 24)) + 0.3 * RNG.normal(size=(3000, 24))).astype(np.float32)


def snapshot_of(kind, recall, keys=KEYS):
    return FaissSnapshot(kind, torch.from_numpy(keys), "sqeuclidean", kind, recall)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_effort_grows_until_the_recall_is_reached_for_each_number_of_neighbours(kind):
    low, high = (snapshot_of(kind, recall).build() for recall in (0.3, 0.99))
    assert low.recall >= 0.3
    assert high.recall >= 0.99
    assert low.effort <= high.effort
    for choice in (low, high):
        ks, efforts, candidates = zip(*choice.efforts, strict=True)
        assert ks == (1, 10, 100)
        assert list(efforts) == sorted(efforts)
        assert list(candidates) == sorted(candidates)
        assert efforts[0] == choice.effort


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
def test_it_finds_the_share_that_was_asked_for_also_of_ten_and_for_queries_drawn_as_the_keys(kind, metric):
    """The case that a tuning on moved keys and their nearest neighbour alone fails: half of such were found."""
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(6400, 16)).astype(np.float32)
    keys, queries = drawn[:6000], {"drawn": drawn[6000:], "moved": drawn[:400] + 0.1 * drawn[400:800]}
    index, exact = (PrototypeIndex(metric, kind, 0.95).add(keys) for kind in (kind, "exact"))
    index.build()
    for x in queries.values():
        for k in (1, 10, 40, 200):
            found, right = (index.search(x, k)[1] for index in (index, exact))
            assert (found >= right[:, -1:] - 1e-5).mean() > 0.93


def test_a_recall_of_one_is_exact():
    for kind in ("auto", "ivf", "hnsw"):
        assert PrototypeIndex(index=kind, recall=1).add(KEYS).build() == Choice("exact")


@pytest.mark.filterwarnings("error")
def test_where_no_effort_reaches_the_recall_auto_stays_exact(monkeypatch):
    monkeypatch.setattr("fewshot.search.snapshot.EXACT_LIMIT", 500)
    monkeypatch.setattr("fewshot.search.approximate.WIDEST", 24)
    keys = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    index = PrototypeIndex().add(keys)
    found = index.search(keys[:300] + 1, 5)
    assert index.build().kind == "exact"
    assert index.build().seconds > 0
    np.testing.assert_array_equal(found[0], PrototypeIndex(index="exact").add(keys).search(keys[:300] + 1, 5)[0])
    more = np.concatenate([keys, keys[:50] + 2])
    index.add(more[4000:], np.arange(4000, 4050)).compact()  # there is no graph to grow
    np.testing.assert_array_equal(
        index.search(more[-90:] + 1, 5)[0], PrototypeIndex(index="exact").add(more).search(more[-90:] + 1, 5)[0]
    )


def first_looks(index):
    """Return the effort of each search from now on."""
    found, search, efforts = index._state.base.snapshot.built, index._state.base.snapshot.built.search, []

    def seen(x, k, effort):
        efforts.append((len(x), effort))
        return search(x, k, effort)

    found.search = seen
    return efforts


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
def test_lists_are_read_on_only_where_the_first_look_is_not_sure(monkeypatch, metric):
    monkeypatch.setattr("fewshot.search.snapshot.GLANCED_FROM", 5000)
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(6000, 48)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    near = keys[:200] + rng.normal(size=(200, 48)).astype(np.float32) * 0.02
    strangers = rng.normal(size=(200, 48)).astype(np.float32)
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    index, exact = (PrototypeIndex(metric, kind, 0.97).add(keys) for kind in ("ivf", "exact"))
    choice = index.build()
    assert 0 < choice.glance < choice.effort / 5
    efforts = first_looks(index)

    def ask(x, k=1):
        """Return the share of nearest keys that are found, and how many queries took the whole search."""
        efforts.clear()
        found, expected = index.search(x, k)[0][:, 0], exact.search(x, k)[0][:, 0]
        whole = sum(n for n, effort in efforts if effort >= choice.effort)
        alone = np.array([index.search(row[None], k)[0][0, 0] for row in x])  # by numpy
        assert (alone == found).mean() > 0.97
        return (found == expected).mean(), whole

    right, whole = ask(near)
    assert right > 0.97
    assert whole < 60
    right, whole = ask(strangers)
    assert right > 0.94
    assert whole > 150
    assert ask(near, 2)[1] == 200  # one neighbour is sure, not two
    efforts.clear()
    index.search(np.zeros((1, 48), np.float32), 1)
    assert (1, choice.effort) in efforts or metric != "dot"  # of no direction
    # A removed key is nobody's nearest, and a new one is, wherever it is kept.
    index.remove(np.arange(100))
    exact.remove(np.arange(100))
    right, whole = ask(near[:100])
    assert right > 0.94
    assert whole > 70
    index.add(keys[:100], np.arange(100))
    exact.add(keys[:100], np.arange(100))
    right, whole = ask(near[:100])
    assert right == 1
    assert whole < 30


def test_a_flat_one_is_exact():
    flat = snapshot_of("flat", 0.5)
    assert flat.build().recall == 1.0
    np.testing.assert_array_equal(flat.search(torch.from_numpy(KEYS[:50]), 1)[0][:, 0], np.arange(50))


def test_links_to_rows_that_are_left_out_come_back():
    snapshot, gone = snapshot_of("hnsw", 0.9), np.arange(3000) % 7 == 0
    snapshot.build()
    before = faiss_module().serialize_index(snapshot.built.index).copy()
    x = snapshot._to_faiss(snapshot.keys[:90])
    with snapshot.built.without(gone):
        found = snapshot.built.search(x, 1, 64)[0][:, 0]
    assert not gone[found].any()
    np.testing.assert_array_equal(faiss_module().serialize_index(snapshot.built.index), before)
    assert (snapshot.built.search(x, 1, 64)[0][:, 0] == np.arange(90)).mean() > 0.9


def test_it_takes_as_many_threads_as_torch_and_one_for_one_query_and_leaves_the_callers_number():
    index, faiss, seen = snapshot_of("flat", 0.9).approximate, faiss_module(), []
    flat = index.index

    class Watched:
        ntotal = len(KEYS)

        def search(self, *args, **kwargs):
            seen.append(faiss.omp_get_max_threads())
            return flat.search(*args, **kwargs)

    index.index = Watched()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        mine = faiss.omp_get_max_threads()  # the same, where torch and FAISS found one OpenMP
        index.propose(KEYS[:5], 1)
        index.propose(KEYS[:1], 1)
        snapshot_of("ivf", 0.3).build()
        assert (seen, torch.get_num_threads(), faiss.omp_get_max_threads()) == ([3, 1], 3, mine)
    finally:
        torch.set_num_threads(before)


def test_what_was_chosen_is_reported():
    index = PrototypeIndex(index="ivf", recall=0.9).add(KEYS)
    report = index.build()
    assert (report.kind, report.n_lists) == ("ivf", 55)
    assert report.recall >= 0.9
    assert report.seconds > 0
    assert PrototypeIndex().build() == PrototypeIndex().add(KEYS).build() == Choice("exact")
    assert PrototypeIndex("dot", "hnsw").add(KEYS).build().kind == "flat"


AFTER_TORCH_UTILS = """
import sys
import numpy as np
from fewshot import FaissStore, PrototypeIndex, PrototypicalClassifier, Record

X = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
KINDS = ("exact", "faiss", "ivf", "hnsw")

def begin():
    indexes = {kind: PrototypeIndex(index=kind).add(X) for kind in KINDS}
    store = FaissStore("cosine", "f", 8)
    store.add(Record(str(i), x, "a") for i, x in enumerate(X))
    return indexes, PrototypicalClassifier(index="faiss").fit(X, np.arange(300) % 20), store

def answers(indexes, model, store, number):
    for kind, index in indexes.items():
        yield kind, index.search(X[:5], 3)[0].tolist()
        index.add(X[:2] + 1, [1000 + number, 2000 + number]).remove([number]).compact()
        yield kind, index.search(X[:5] + 1, 300)[0][:, :2].tolist()
        index.save(sys.argv[1] + kind)
        yield kind, PrototypeIndex.load(sys.argv[1] + kind).search(X[:5] + 1, 2)[0].tolist()
    yield model.predict(X[:9]).tolist(), [match[0].id for match in store.search(X[:9], 1)]

expected, old = list(answers(*begin(), 7)), begin()
import faiss.contrib.torch_utils
for made in (begin(), old):
    assert list(answers(*made, 7)) == expected
"""


def test_faiss_answers_in_a_process_that_lets_it_take_tensors(tmp_path):
    """That import replaces the methods of all indexes, also of those that are there already."""
    ran = python(AFTER_TORCH_UTILS, tmp_path / "saved ")
    assert ran.returncode == 0, ran.stderr[-2000:]
