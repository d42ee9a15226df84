"""FAISS proposes: tuned to a recall against exact answers, on the threads that torch has."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fewshot import PrototypeIndex
from fewshot.search.approximate import Approximate, Choice, faiss_module

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
    ran = subprocess.run(
        [sys.executable, "-c", AFTER_TORCH_UTILS, str(tmp_path / "saved ")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
