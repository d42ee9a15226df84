import numpy as np
import pytest

from fewshot import PADDLELearner, SoftKMeansLearner
from tests.test_learners_alpha_tim import answer, episode


def oracle(support, labels, weight, queries, n_way, temperature, penalty, n_iterations):
    """Logits by loops over queries and classes, in the steps of the paper: assignments, shares, prototypes."""
    unit = [[x / np.sqrt(sum(x * x)) for x in rows] for rows in (support, queries)]
    present = [c for c in range(n_way) if c in labels]
    rows = {c: [(w, x) for w, x, y in zip(weight, unit[0], labels, strict=True) if y == c] for c in present}
    count = {c: sum(w for w, _ in rows[c]) for c in present}
    total = {c: sum(w * x for w, x in rows[c]) for c in present}
    prototype, v = {c: total[c] / count[c] for c in present}, dict.fromkeys(present, 0.0)

    def logits():
        return [{c: -sum((q - prototype[c]) ** 2) / temperature + penalty * v[c] for c in present} for q in unit[1]]

    for _ in range(n_iterations):
        z = []
        for row in logits():
            top = max(row.values())
            sum_ = sum(np.exp(s - top) for s in row.values())
            z.append({c: np.exp(s - top) / sum_ for c, s in row.items()})
        for c in present:
            v[c] = np.log(sum(own[c] for own in z) / len(z) + 1e-6)
            moved = sum(own[c] * q for own, q in zip(z, unit[1], strict=True))
            prototype[c] = (total[c] + moved) / (count[c] + sum(own[c] for own in z))
    found = np.full((len(queries), n_way), -np.inf)
    for i, row in enumerate(logits()):
        for c, s in row.items():
            found[i, c] = s
    return found


@pytest.mark.parametrize("n_query", [1, 2, 9])
@pytest.mark.parametrize("parameters", [(0.02, 1.0, 5), (0.5, 1.0, 12), (0.3, 0.0, 3), (0.2, 2.5, 1), (0.1, 1.0, 0)])
def test_it_is_its_formula(parameters, n_query):
    for seed in range(3):
        data = episode(seed, n_query)
        found = answer(PADDLELearner(*parameters), *data)
        # Up to a constant for each query, which the answer does not depend on.
        np.testing.assert_allclose(found, oracle(*data, 4, *parameters), rtol=1e-8, atol=1e-8)


def test_without_a_penalty_it_is_soft_k_means():
    support, labels, weight, queries = episode(0, 8)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (support, queries)]
    expected = answer(SoftKMeansLearner(temperature=0.2, n_iterations=4), unit[0], labels, weight, unit[1])
    found = answer(PADDLELearner(0.2, 0.0, 4), support, labels, weight, queries)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_order_of_queries_does_not_matter_and_a_single_one_is_answered_as_by_the_nearest_mean():
    support, labels, _, queries = episode(3, 9, shots=(2, 2, 2, 2))
    weight, order = np.ones(len(labels)), np.random.default_rng(0).permutation(9)
    whole = answer(PADDLELearner(), support, labels, weight, queries)
    np.testing.assert_allclose(answer(PADDLELearner(), support, labels, weight, queries[order]), whole[order])
    for query in queries:
        found, alone = (answer(PADDLELearner(n_iterations=n), support, labels, weight, query[None]) for n in (20, 0))
        assert found.argmax() == alone.argmax()


def test_the_penalty_prefers_few_classes():
    """Thirty queries of one class and three between two classes: the more, the more of them go to the large class."""
    rng = np.random.default_rng(0)
    support, queries = np.eye(3), np.concatenate([np.eye(3)[[0] * 30], [[1.0, 1.04, 0.0]] * 3])
    queries = queries + rng.normal(0, 0.01, queries.shape)
    data = support, np.arange(3), np.ones(3), queries
    assert answer(PADDLELearner(0.2, 0.0), *data, 3)[30:].argmax(1).tolist() == [1] * 3
    assert answer(PADDLELearner(0.2, 1.0), *data, 3)[30:].argmax(1).tolist() == [0] * 3


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"penalty": -1.0}, "penalty is -1.0; expected a number of at least 0"),
        ({"n_iterations": 2.0}, "n_iterations is 2.0; expected a whole number of at least 0"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_bad_numbers_are_named(parameters, said):
    with pytest.raises(ValueError, match=said):
        PADDLELearner(**parameters)
