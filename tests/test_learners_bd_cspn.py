import numpy as np
import pytest
import torch

from fewshot import BDCSPNLearner


def cosine(a, b):
    return sum(a * b) / np.sqrt(sum(a * a) * sum(b * b))


def oracle(support, labels, weight, queries, n_way, sharpness, temperature, shift):
    """Logits by loops, with the steps of the paper: the shift, pseudo-labels, weighted prototypes, the cosine."""
    present = [c for c in range(n_way) if c in labels]
    middle = sum(w * x for w, x in zip(weight, support, strict=True)) / sum(weight)
    given = queries
    queries = [q - sum(queries) / len(queries) + middle for q in queries] if shift else queries
    first = {c: np.average(support[labels == c], axis=0, weights=weight[labels == c]) for c in present}
    members = {c: [(w, x) for w, x, own in zip(weight, support, labels, strict=True) if own == c] for c in present}
    for q in queries:
        nearest = max(present, key=lambda c: cosine(q, first[c]))
        members[nearest].append((1.0, q))
    rectified = {}
    for c in present:
        counts = [w * np.exp(sharpness * cosine(x, first[c])) for w, x in members[c]]
        rectified[c] = sum(k * x for k, (_, x) in zip(counts, members[c], strict=True)) / sum(counts)
    logits = np.full((len(queries), n_way), -np.inf)
    for i, q in enumerate(given if shift == "prototypes" else queries):
        for c in present:
            logits[i, c] = cosine(q, rectified[c]) / temperature
    return logits


def episode(seed, n_query, shots=(1, 4, 0, 2), d=4):
    """Uneven support in mixed order with sample weights; one class is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    support, queries = rng.normal(size=(len(labels), d)), rng.normal(size=(n_query, d)) + 1
    return support, labels, rng.uniform(0.2, 3, len(labels)), queries


def answer(learner, support, labels, weight, queries, n_way):
    support, labels, weight, queries = map(torch.from_numpy, (support, labels, weight, queries))
    return learner(support, labels, queries, n_way, weight).numpy()


@pytest.mark.parametrize("n_query", [1, 2, 9])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 10.0, 200.0])
@pytest.mark.parametrize("shift", [False, True, "prototypes"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_formula(seed, shift, sharpness, n_query):
    data = episode(seed, n_query)
    got = answer(BDCSPNLearner(sharpness, "UN", 0.3, shift=shift), *data, 4)
    np.testing.assert_allclose(got, oracle(*data, 4, sharpness, 0.3, shift), rtol=1e-9)
    support, labels, weight, queries = data
    unit = [x / np.sqrt((x * x).sum(1, keepdims=True)) for x in (support, queries)]
    got = answer(BDCSPNLearner(sharpness, temperature=0.3, shift=shift), *data, 4)
    np.testing.assert_allclose(got, oracle(unit[0], labels, weight, unit[1], 4, sharpness, 0.3, shift), rtol=1e-9)


def test_moving_all_queries_alike_changes_nothing():
    """What the shift is for: queries of another camera."""
    support, labels, weight, queries = episode(0, 8)
    learner = BDCSPNLearner(normalization="UN", shift=True)
    found = answer(learner, support, labels, weight, queries + np.array([5.0, -3.0, 0.0, 9.0]), 4)
    np.testing.assert_allclose(found, answer(learner, support, labels, weight, queries, 4), rtol=1e-9)


def test_one_query_stands_on_the_middle_of_the_support_if_it_is_shifted():
    support, labels, weight, queries = episode(0, 2)
    one, other = (answer(BDCSPNLearner(shift=True), support, labels, weight, queries[i : i + 1], 4) for i in range(2))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    one, other = (answer(BDCSPNLearner(), support, labels, weight, queries[i : i + 1], 4) for i in range(2))
    assert not np.allclose(one, other)


def test_any_sharpness_is_as_good_as_its_limit_where_exponents_would_overflow():
    """Only the surest row of a class counts in the end, and in one-shot classes that is the support."""
    support, labels, weight, queries = episode(3, 6, shots=(1, 1, 1))
    plain = np.array([support[labels == c][0] for c in range(3)])
    queries = queries - queries.mean(0)
    expected = [[cosine(q + np.average(support, axis=0, weights=weight), p) for p in plain] for q in queries]
    found = answer(BDCSPNLearner(1e6, "UN", 1.0, shift=True), support, labels, weight, queries, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("sharpness", [-1, -1e-9, float("nan"), float("inf"), "10"])
def test_bad_sharpness_is_named(sharpness):
    with pytest.raises(ValueError, match=rf"sharpness is {sharpness!r}; expected a number of at least 0"):
        BDCSPNLearner(sharpness)
