"""Sets of keys where float32 or an approximate index alone would answer wrongly."""

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier, PrototypeIndex
from fewshot.search.approximate import Choice
from fewshot.search.similarity import search_in_chunks
from fewshot.search.snapshot import FaissSnapshot, take_snapshot

RNG = np.random.default_rng(0)


def oracle(queries, keys):
    return -((queries.astype(float)[:, None] - keys.astype(float)) ** 2).sum(-1)


@pytest.mark.parametrize("index", ["exact", "faiss"])
@pytest.mark.parametrize("case", ["two far clusters", "an outlier", "far and huge"])
def test_float32_queries_are_answered_rightly_wherever_the_keys_lie(index, case):
    keys = RNG.normal(size=(100, 16))
    if case == "two far clusters":
        keys += np.where(np.arange(100) % 2, 1e4, -1e4)[:, None]
    elif case == "an outlier":
        keys[7] = 1e6
    else:
        keys = keys * 1e12 + 1e17
    scale = 1e12 if case == "far and huge" else 1
    keys = keys.astype(np.float32)
    queries = (keys + 0.3 * scale * RNG.normal(size=keys.shape)).astype(np.float32)
    expected = oracle(queries, keys)
    labels, similarities = PrototypeIndex(index=index).add(keys).search(queries)
    assert np.mean(labels[:, 0] == expected.argmax(1)) == 1.0
    np.testing.assert_allclose(similarities[:, 0], expected.max(1), rtol=1e-3, atol=1e-2)


def test_ordinary_keys_stay_in_float32():
    snapshot = take_snapshot(torch.from_numpy(RNG.normal(size=(500, 64))), "sqeuclidean")
    assert snapshot.retrieve(torch.ones(1, 64), 1)[1].dtype == torch.float32


def test_a_graph_that_reaches_too_few_keys_is_helped_out_exactly(monkeypatch):
    """Many equal keys: the graph's neighbours are all the same, and it returns -1 for what it cannot reach."""
    monkeypatch.setattr("fewshot.search.snapshot.EXACT_LIMIT", 500)
    keys = np.repeat(RNG.normal(size=(20, 8)), 110, 0)
    queries = keys[:200:20] + 1e-3
    labels, similarities = PrototypeIndex().add(keys).search(queries, k=300)
    assert np.isfinite(similarities).all()
    exact_labels, exact = PrototypeIndex(index="exact").add(keys).search(queries, k=300)
    np.testing.assert_allclose(similarities[:, :110], exact[:, :110])
    assert all(set(row) <= set(range(2200)) for row in labels)
    assert np.mean([set(a[:110]) == set(b[:110]) for a, b in zip(labels, exact_labels, strict=True)]) == 1.0


def test_search_never_returns_an_id_of_minus_one(monkeypatch):
    snapshot = take_snapshot(torch.from_numpy(RNG.normal(size=(30, 4))), "sqeuclidean", "faiss")

    class Lame:
        choice = Choice("ivf")

        def propose(self, queries, k, least=0):
            return np.full((len(queries), k), -1)

    monkeypatch.setitem(snapshot.__dict__, "_index", Lame())
    queries = torch.from_numpy(RNG.normal(size=(5, 4)))
    ids, similarities = search_in_chunks(snapshot, queries, 3)
    expected = take_snapshot(snapshot.keys, "sqeuclidean", "exact").search(queries, 3)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(similarities, expected[1])


@pytest.mark.parametrize("name", ["prototypical", "matching"])
def test_beyond_the_candidates_answers_and_probabilities_stay(name):
    """More classes than candidates: what was not proposed has its probability all the same."""
    x, y = RNG.normal(size=(900, 12)), np.arange(900) % 450
    queries = x[:50] + RNG.normal(0, 0.1, (50, 12))
    exact, faiss = (FewShotClassifier(name, index=i).fit(x, y) for i in ("exact", "faiss"))
    np.testing.assert_array_equal(faiss.predict(queries), exact.predict(queries))
    np.testing.assert_array_equal(faiss.nearest(queries, 5)[0], exact.nearest(queries, 5)[0])
    np.testing.assert_allclose(faiss.predict_proba(queries), exact.predict_proba(queries))


def test_the_chunk_is_bounded_by_classes_as_well_as_keys():
    model = FewShotClassifier("matching").partial_fit([[0.0, 1.0]], [0], classes=np.arange(3000))
    sizes = []
    model.model_.map_logits(
        RNG.normal(size=(20_000, 2)), lambda logits: sizes.append(logits.numel()) or logits.numpy()[:, 0]
    )
    assert max(sizes) * 8 <= 64 * 2**20


def test_auto_stays_exact_where_a_class_has_several_keys(monkeypatch):
    monkeypatch.setattr("fewshot.search.snapshot.EXACT_LIMIT", 100)
    x, y = RNG.normal(size=(300, 4)), np.arange(300) % 150
    assert not isinstance(FewShotClassifier("matching").fit(x, y).model_.snapshot, FaissSnapshot)
    assert isinstance(FewShotClassifier("prototypical").fit(x, y).model_.snapshot, FaissSnapshot)


@pytest.mark.parametrize("keys", ["full", "float16"])
def test_a_graph_grows_by_what_was_added_instead_of_being_built_again(keys, monkeypatch):
    for name, value in (("SMALL_DELTA", 20), ("LARGE_DELTA", 20), ("EXACT_LIMIT", 500)):
        monkeypatch.setattr(f"fewshot.search.growing.{name}", value)
    x = RNG.normal(size=(1700, 40)).astype(np.float32)
    index = PrototypeIndex("cosine", "hnsw", keys=keys).add(x[:1500], range(1500))
    tuned, old = index.build(), index._state
    index.remove([3, 1499]).add(x[1500:1600], range(1500, 1600)).remove([1510])
    index._merger.join()
    state = index._state
    assert index.build() == tuned
    assert state.base.keeps_dead
    assert len(state.base) + len(state.labels) == 1600
    assert len(index) == 1597
    labels, similarities = index.search(x, 3)
    exact = PrototypeIndex("cosine", "exact", keys=keys).add(x[:1600]).remove([3, 1499, 1510]).search(x, 3)
    assert (labels == exact[0]).mean() > 0.95
    assert not {3, 1499, 1510} & set(labels.ravel().tolist())
    np.testing.assert_allclose(similarities[:, 0], exact[1][:, 0], atol=1e-5)
    assert len(old.base) == 1500  # readers of the old state keep it
    index.compact()
    index.add(-x[:1], [3]).compact()
    assert index.search(-x[:1])[0].tolist() == [[3]]
    assert len(index) == 1598


def test_a_graph_that_has_grown_by_a_quarter_is_built_and_tuned_again():
    x = RNG.normal(size=(1700, 40)).astype(np.float32)
    index = PrototypeIndex(index="hnsw").add(x[:1300])
    assert index.build().n_keys == 1300
    for part in (x[1300:1500], x[1500:]):
        index.add(part).compact()
    assert index.build().n_keys == 1700
    assert (index.search(x)[0][:, 0] == np.arange(1700)).mean() > 0.95


@pytest.mark.parametrize("kind", ["faiss", *(pytest.param(one, marks=pytest.mark.slow) for one in ("ivf", "hnsw"))])
def test_queries_far_from_all_keys_find_the_nearest(kind):
    """At their distance float32 cannot tell keys apart, so FAISS's candidates would be any of them."""
    keys = torch.from_numpy(RNG.normal(size=(3000, 40)))
    queries = torch.from_numpy(RNG.normal(size=(20, 40)) * 1e5)
    found, exact = (take_snapshot(keys, "sqeuclidean", index).search(queries, 5) for index in (kind, "exact"))
    np.testing.assert_array_equal(found[0], exact[0])
    single, far = take_snapshot(keys.float(), "sqeuclidean", kind), queries[0].float().numpy()
    assert single.search_one(far, 5) is None  # which leaves it to search
    assert single.search_one(far / 1e5, 5) is not None
