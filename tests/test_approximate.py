"""FAISS proposes: tuned to a recall against exact answers, on the threads that torch has."""

import numpy as np
import pytest
import torch

from fewshot import PrototypeIndex
from fewshot.approximate import Approximate, Choice, faiss_module

RNG = np.random.default_rng(0)
KEYS = (RNG.normal(size=(3000, 6)) @ RNG.normal(size=(6, 24)) + 0.3 * RNG.normal(size=(3000, 24))).astype(np.float32)


QUERIES = KEYS[::29] + 0.05 * RNG.normal(size=(104, 24)).astype(np.float32)
NEAREST = ((QUERIES[:, None] - KEYS) ** 2).sum(-1).argmin(1)


def build(kind, recall):
    return Approximate.build(kind, False, *KEYS.shape, lambda places: KEYS[places], lambda: (QUERIES, NEAREST), recall)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_effort_grows_until_the_recall_is_reached(kind):
    low, high = (build(kind, recall) for recall in (0.3, 0.99))
    assert low.choice.recall >= 0.3
    assert high.choice.recall >= 0.99
    assert low.choice.effort <= high.choice.effort
    assert kind == "hnsw" or low.choice.effort < high.choice.effort
    found = (high.search(QUERIES, 256) == NEAREST[:, None]).any(1).mean()
    assert found == pytest.approx(high.choice.recall, abs=1e-4)
    assert (high.search(QUERIES, 1)[:, 0] == NEAREST).mean() >= 0.95


def test_a_recall_that_no_smaller_effort_reaches_looks_everywhere():
    everything = build("ivf", 1.0)
    assert everything.choice.recall == 1.0
    assert everything.choice.n_lists == round(3000**0.5)


def test_a_flat_one_is_exact():
    flat = build("flat", 0.5)
    assert flat.choice.recall == 1.0
    np.testing.assert_array_equal(flat.search(KEYS[:50], 1)[:, 0], np.arange(50))


def test_it_takes_as_many_threads_as_torch_and_one_for_one_query_and_leaves_the_callers_number():
    index, faiss, seen = build("flat", 0.9), faiss_module(), []
    flat = index.index

    class Watched:
        def search(self, *args, **kwargs):
            seen.append(faiss.omp_get_max_threads())
            return flat.search(*args, **kwargs)

    index.index = Watched()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        mine = faiss.omp_get_max_threads()  # the same, where torch and FAISS found one OpenMP
        index.search(KEYS[:5], 1)
        index.search(KEYS[:1], 1)
        build("ivf", 0.3)
        assert (seen, torch.get_num_threads(), faiss.omp_get_max_threads()) == ([3, 1], 3, mine)
    finally:
        torch.set_num_threads(before)


def test_what_was_chosen_is_reported():
    index = PrototypeIndex(index="ivf", recall=0.9).add(KEYS)
    report = index.report()
    assert (report.kind, report.n_lists) == ("ivf", 55)
    assert report.recall >= 0.9
    assert report.seconds > 0
    assert PrototypeIndex().report() == PrototypeIndex().add(KEYS).report() == Choice("exact")
    assert PrototypeIndex("dot", "hnsw").add(KEYS).report().kind == "flat"
