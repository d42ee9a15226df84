"""One query in numpy is answered as a batch is."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot import PrototypeIndex
from fewshot.search.similarity import pairwise_similarity
from fewshot.search.single import best, similarities

RNG = np.random.default_rng(0)
METRICS = ("sqeuclidean", "cosine", "dot")
#: The last 30 keys are equal.
KEYS = np.r_[RNG.normal(size=(400, 12)), np.zeros((1, 12)), RNG.normal(size=(1, 12)).repeat(30, 0)]
QUERIES = np.r_[RNG.normal(size=(20, 12)), KEYS[:3], KEYS[-4:], np.zeros((1, 12))]


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 3, 1000])
def test_it_answers_as_a_batch_does(kind, metric, dtype, offset):
    keys, queries = (KEYS + offset).astype(dtype), (QUERIES + offset).astype(dtype)
    index = PrototypeIndex(metric, kind).add(keys)
    index.build()
    far = offset == 1000 and metric != "sqeuclidean"  # where float32 rounds by more than keys differ
    for k in (1, 3, 40):
        labels, values = index.search(queries, k)
        for i, x in enumerate(queries):
            own, value = index.search(x[None], k)
            assert value.dtype == values.dtype
            assert own.shape == value.shape == (1, k)
            np.testing.assert_allclose(value[0], values[i], rtol=1e-5, atol=1e-3 if far else 2e-5)
            if not far:
                apart = np.abs(np.diff(values[i])) > 1e-4
                same = (
                    (np.minimum(own[0], 401) == np.minimum(labels[i], 401)) | ~np.r_[True, apart] | ~np.r_[apart, True]
                )
                assert same.all()


@given(arrays(np.float64, st.integers(1, 30), elements=st.integers(-3, 3).map(float)), st.integers(1, 30))
def test_the_best_come_in_order_and_ties_by_place(ranks, k):
    k = min(k, len(ranks))
    assert best(ranks, k).tolist() == np.argsort(-ranks, kind="stable")[:k].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_similarities_are_those_of_the_formula(metric):
    found = similarities(QUERIES, np.broadcast_to(KEYS, (len(QUERIES), *KEYS.shape)), metric)
    expected = pairwise_similarity(torch.from_numpy(QUERIES), torch.from_numpy(KEYS), metric)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_host_programs_handling_of_errors_does_not_matter():
    index, x = PrototypeIndex("dot").add(np.full((3, 4), 1e-30, np.float32)), np.full((1, 4), 1e-30, np.float32)
    expected = index.search(x)[1]
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(index.search(x)[1], expected)


@pytest.mark.slow
def test_a_query_costs_little_beside_its_product():
    keys, x = RNG.normal(size=(100, 512)).astype(np.float32), RNG.normal(size=(1, 512)).astype(np.float32)
    index, squares, took = PrototypeIndex().add(keys), np.vecdot(keys, keys), []
    for _ in range(1000):
        times = [time.perf_counter()]
        index.search(x)
        times.append(time.perf_counter())
        (squares - 2 * (x @ keys.T)).argmin(1)
        times.append(time.perf_counter())
        took.append(np.diff(times))
    ours, bare = np.median(took, 0)
    assert ours - bare < 4e-5


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_added_and_removed_is_seen_as_in_a_batch(kind, metric, dtype):
    index = PrototypeIndex(metric, kind).add(KEYS.astype(dtype))
    index.build()
    index.add((KEYS[:50] + 0.1).astype(dtype), range(1000, 1050)).remove([0, 2, 401, 402, 1000, 1007])
    for k in (1, 3, 40):
        labels, values = index.search(QUERIES.astype(dtype), k)
        for i, x in enumerate(QUERIES.astype(dtype)):
            own, value = index.search(x[None], k)
            assert own.dtype == labels.dtype
            assert not {0, 2, 401, 402, 1000, 1007} & set(own[0].tolist())
            np.testing.assert_allclose(value[0], values[i], rtol=1e-5, atol=2e-5)
    for _ in range(3):  # equal keys come in the order in which they were added
        index.add(KEYS[5:6].astype(dtype), [5])
    assert metric == "dot" or index.search(KEYS[5:6].astype(dtype), 5)[0][0].tolist()[:4].count(5) >= 3
