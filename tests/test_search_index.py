"""Exact and FAISS search against a float64 oracle, and against what FAISS would get wrong."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from fewshot import PrototypeIndex
from fewshot.search.approximate import Choice
from fewshot.search.snapshot import take_snapshot
from tests.together import together

INDEXES, METRICS = ("exact", "faiss"), ("sqeuclidean", "cosine", "dot")
RNG = np.random.default_rng(0)
KEYS, QUERIES = RNG.normal(size=(200, 16)), RNG.normal(size=(30, 16))


def oracle(queries, keys, metric):
    q, k = np.asarray(queries, float), np.asarray(keys, float)
    if metric == "sqeuclidean":
        return -((q[:, None] - k) ** 2).sum(-1)
    if metric == "cosine":
        q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    return q @ k.T


@pytest.mark.parametrize("offset", [0, 10, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("metric", METRICS)
def test_it_finds_what_brute_force_finds(index, metric, dtype, offset):
    keys, queries = (KEYS + offset).astype(dtype), (QUERIES + offset).astype(dtype)
    expected = oracle(queries, keys, metric)
    labels, similarities = PrototypeIndex(metric, index).add(keys).search(queries, 5)
    best = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    if not (metric == "dot" and offset and dtype == np.float32):  # whose digits go into the offset
        np.testing.assert_array_equal(labels, best)
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, labels, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("k", [1, 3, 7])
def test_among_equals_the_first_comes_first(index, k):
    keys = np.repeat(np.arange(4.0), 5)[:, None]
    labels, _ = PrototypeIndex(index=index).add(keys).search([[2.0]], k)
    assert labels[0].tolist() == [10, 11, 12, 13, 14, 5, 6][:k]


@pytest.mark.parametrize("index", INDEXES)
def test_more_equals_than_candidates_still_begin_with_the_first(index):
    assert PrototypeIndex(index=index).add(np.ones((300, 3))).search(np.ones((1, 3)), 3)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("index", INDEXES)
def test_row_32_keys_added_twice_are_kept_twice(index):
    labels, similarities = PrototypeIndex(index=index).add(KEYS).add(KEYS).search(KEYS[:4], 2)
    assert labels.tolist() == [[i, i + 200] for i in range(4)]
    np.testing.assert_allclose(similarities, 0, atol=1e-12)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("metric", METRICS)
def test_row_6_no_queries_find_nothing(index, metric):
    labels, similarities = PrototypeIndex(metric, index).add(KEYS).search(QUERIES[:0], 3)
    assert labels.shape == similarities.shape == (0, 3)


@pytest.mark.parametrize("index", INDEXES)
def test_row_12_a_zero_row_has_cosine_0_with_everything(index):
    search = PrototypeIndex("cosine", index).add(np.r_[np.zeros((1, 16)), KEYS]).search
    assert np.all(search(np.zeros((1, 16)), 5)[1] == 0)
    assert search(KEYS[:3])[0].tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("scale", [1e8, 1e12, 1e17])
@pytest.mark.parametrize("metric", METRICS)
def test_row_13_large_keys_are_ranked_and_scored_as_small_ones(metric, index, scale):
    keys, queries = KEYS * scale, (QUERIES * scale).astype(np.float32)
    labels, similarities = PrototypeIndex(metric, index).add(keys).search(queries, 3)
    expected = oracle(queries, keys, metric)
    np.testing.assert_array_equal(labels, np.argsort(-expected, axis=1)[:, :3])
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, labels, 1), rtol=1e-4)


def test_row_14_half_precision_is_raised_before_any_square(recwarn):
    keys, queries = (KEYS * 1000).astype(np.float16), (QUERIES * 1000).astype(np.float16)
    labels, similarities = PrototypeIndex().add(keys).search(queries)
    np.testing.assert_array_equal(labels[:, 0], oracle(queries, keys, "sqeuclidean").argmax(1))
    assert np.isfinite(similarities).all()
    assert not recwarn


@pytest.mark.parametrize("index", INDEXES)
def test_keys_and_labels_are_added_bit_by_bit(index):
    whole = PrototypeIndex(index=index).add(KEYS, [f"key {i}" for i in range(200)])
    grown = PrototypeIndex(index=index)
    for start in range(0, 200, 50):
        grown.add(KEYS[start : start + 50], [f"key {i}" for i in range(start, start + 50)])
        grown.search(QUERIES)
    assert len(grown) == 200
    (labels, similarities), (grown_labels, grown_similarities) = whole.search(QUERIES, 4), grown.search(QUERIES, 4)
    np.testing.assert_array_equal(grown_labels, labels)
    np.testing.assert_allclose(grown_similarities, similarities, rtol=1e-12)


def test_the_index_does_not_change_with_the_arrays_it_was_given():
    keys, labels = KEYS.copy(), np.arange(200)
    index = PrototypeIndex().add(keys, labels)
    expected = index.search(QUERIES)[0]
    keys[:], labels[:] = 0, -1
    np.testing.assert_array_equal(index.search(QUERIES)[0], expected)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_the_graph_beyond_the_limit_misses_few_and_never_scores_wrongly(monkeypatch, metric):
    monkeypatch.setattr("fewshot.search.snapshot.EXACT_LIMIT", 500)
    centres = RNG.normal(size=(40, 32))
    keys = np.repeat(centres, 50, 0) + RNG.normal(0, 0.4, (2000, 32)) + 100
    queries = keys[::7] + RNG.normal(0, 0.1, (286, 32))
    index = PrototypeIndex(metric, "auto").add(keys)
    labels, similarities = index.search(queries)
    assert index.build().kind == "hnsw"
    assert index.build().recall >= 0.99
    expected = oracle(queries, keys, metric)
    assert np.mean(labels[:, 0] == expected.argmax(1)) >= 0.95
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, labels, 1), rtol=1e-7)


def test_a_candidate_that_is_not_there_scores_minus_infinity(monkeypatch):
    snapshot = take_snapshot(torch.from_numpy(KEYS), "sqeuclidean", "faiss")

    class Lame:
        choice = Choice("ivf")

        def propose(self, queries, k, least=0):
            ids = np.full((len(queries), max(k, least)), -1)
            ids[:, 0] = 3
            return ids

    monkeypatch.setitem(snapshot.__dict__, "_index", Lame())
    ids, similarity = snapshot.retrieve(torch.from_numpy(QUERIES), 2)
    assert torch.all(similarity[ids < 0] == -torch.inf)
    assert torch.isfinite(similarity[ids == 3]).all()


@pytest.mark.parametrize("index", INDEXES)
def test_copies_and_pickles_answer_alike(index):
    original = PrototypeIndex(index=index).add(KEYS)
    expected = original.search(QUERIES, 3)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        for one, other in zip(expected, twin.search(QUERIES, 3), strict=True):
            np.testing.assert_array_equal(one, other)
    unpickled = pickle.loads(pickle.dumps(original))._state.base.snapshot
    assert getattr(unpickled, "built", None) is None  # FAISS's index is never unpickled


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("k", [0, 201, -1, 2.5, None])
def test_a_k_that_there_is_not_is_refused(index, k):
    with pytest.raises(ValueError, match=f"k is {k}; expected an integer from 1 to 200, the number of keys"):
        PrototypeIndex(index=index).add(KEYS).search(QUERIES, k)


@pytest.mark.parametrize(
    ("use", "error", "match"),
    [
        (lambda i: i.search(QUERIES[:, :3]), ValueError, "queries have 3 dimensions, the index holds 16"),
        (lambda i: i.add(KEYS[:, :3]), ValueError, "keys have 3 dimensions, the index holds 16"),
        (
            lambda i: i.search(QUERIES * np.nan),
            ValueError,
            "the array of queries contains NaN at row 0, column 0; drop or repair",
        ),
        (
            lambda i: i.add(KEYS / 0.0),
            ValueError,
            "the array of keys contains infinity at row 0, column 0; drop or repair",
        ),
        (
            lambda i: i.search(QUERIES[0]),
            ValueError,
            r"shape \(16,\); expected two dimensions, .*; give one as x\[None\]",
        ),
        (lambda i: i.add(KEYS, [1]), ValueError, "found 1 label for 200 keys; give one label for"),
        (lambda i: i.add(KEYS, ["a"] * 200), TypeError, "labels mix the types integer and string"),
        (lambda i: i.add(KEYS[:2], [1, "a"]), TypeError, "labels mix the types integer and string"),
        (lambda i: i.add(KEYS[:2], [1, None]), ValueError, "contains None at index 1"),
        (lambda i: i.add(KEYS[:2], [True, False]), TypeError, "labels mix the types boolean and integer"),
        (lambda i: i.search(QUERIES * 1e19), ValueError, "found .* in queries at row .*; values above 1e.18 overflow"),
        (lambda i: i.add(KEYS * 1e200), ValueError, "found .* in keys at row .*; values above 1e.18 overflow"),
        (lambda i: i.search(QUERIES.astype(str)), TypeError, "expected numbers"),
        (lambda i: PrototypeIndex().search(QUERIES), ValueError, "the index is empty; add keys"),
        (lambda i: PrototypeIndex().add(KEYS[:0]).search(QUERIES), ValueError, "the index is empty; add keys"),
        (lambda i: PrototypeIndex("cosin"), ValueError, "no metric is called 'cosin'; did you mean 'cosine'"),
        (lambda i: PrototypeIndex(index="fais"), ValueError, "no index is called 'fais'; did you mean 'faiss'"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_is_named_and_nothing_is_lost(use, error, match):
    index = PrototypeIndex().add(KEYS)
    with pytest.raises(error, match=match):
        use(index)
    assert len(index) == 200
    assert index.search(KEYS[:3])[0].tolist() == [[0], [1], [2]]


@pytest.mark.slow
def test_a_wrong_length_is_refused_also_where_assertions_are_off():
    code = (
        "import numpy as np; from fewshot import PrototypeIndex\n"
        "try: PrototypeIndex(index='faiss').add(np.ones((5, 4))).search(np.ones((2, 3)))\n"
        "except ValueError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert "queries have 3 dimensions, the index holds 4" in run.stdout


def test_row_79_a_process_forked_after_a_search_can_search():
    code = (
        "import os, numpy as np, faiss; from fewshot import PrototypeIndex\n"
        "keys = np.random.default_rng(0).normal(size=(20000, 64)).astype('float32')\n"
        "index = PrototypeIndex(index='faiss').add(keys); faiss.omp_set_num_threads(4); index.search(keys[:256])\n"
        "pid = os.fork()\n"
        "if not pid: index.search(keys[:256]); os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1])"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=env)
    assert run.stdout.strip() == "0"


def _nearest(queue, index, keys):
    queue.put(index.search(keys)[0][:, 0].tolist())


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("kind", ["exact", "faiss"])
def test_row_79_a_process_started_after_a_search_can_search(method, kind):
    keys = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    index = PrototypeIndex(index=kind).add(keys)
    index.search(keys)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_nearest, args=(queue, index, keys[:9]))
    process.start()
    try:
        assert queue.get(timeout=120) == list(range(9))
    finally:
        process.kill()
        process.join()


def test_threads_that_add_and_remove_lose_no_key_and_give_no_number_twice():
    def number(index, k):
        return [index.add(np.full((1, 4), 100.0 * k + i)) for i in range(10)]

    for _ in range(20):
        index = PrototypeIndex()
        together(partial(number, index, 1), partial(number, index, 2))
        assert sorted(index.search(np.zeros((1, 4)), 20)[0][0].tolist()) == list(range(20))
    index = PrototypeIndex().add(KEYS, [f"k{i}" for i in range(len(KEYS))])

    def remove(start):
        return sum(attempt(lambda i=i: index.remove([f"k{i}"])) for i in range(start, 60))

    def attempt(change):
        try:
            change()
        except ValueError:  # the other thread was quicker
            return 0
        return 1

    assert sum(together(lambda: remove(0), lambda: remove(0), lambda: remove(30))) == 60
    assert len(index) == len(KEYS) - 60


@pytest.mark.parametrize("scale", [1e-12, 1e-22, 1e-30, 1e-40])
@pytest.mark.parametrize("index", ["exact", "faiss", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
def test_tiny_keys_are_told_apart(metric, index, scale):
    keys, queries = ((scale * x).astype(np.float32) for x in (KEYS, QUERIES))
    wanted = oracle(queries.astype(float) / scale, keys.astype(float) / scale, metric).argmax(1)
    assert (PrototypeIndex(metric, index).add(keys).search(queries)[0][:, 0] == wanted).mean() > 0.95
    grown = PrototypeIndex(metric, index).add(keys[:150]).add(keys[150:])
    assert (grown.search(queries)[0][:, 0] == wanted).mean() > 0.95
    if metric != "sqeuclidean":  # queries of another length have the same neighbours
        assert (grown.search(queries / np.float32(scale))[0][:, 0] == wanted).mean() > 0.95
        large = PrototypeIndex(metric, index).add(keys.astype(float) / scale)
        assert (large.search(queries)[0][:, 0] == wanted).mean() > 0.95


def test_labels_in_float16_are_integers_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = PrototypeIndex().add(np.eye(2), np.array([5, 7], np.float16))
    assert index.search(np.eye(2))[0].ravel().tolist() == [5, 7]


def test_keys_that_would_not_fit_in_memory_are_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr("fewshot.utils.heap.available_memory", lambda: 1000.0)
    monkeypatch.setattr("fewshot.utils.heap.ALWAYS_FITS", 100)
    index = PrototypeIndex()
    with pytest.raises(MemoryError, match=r"100 keys of 3 numbers take .* free; add fewer, or take keys='int8'"):
        index.add(np.ones((100, 3), np.float32))
    assert len(index) == 0
    assert len(PrototypeIndex(keys="int8").add(np.ones((100, 3), np.float32))) == 100
