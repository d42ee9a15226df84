"""Matching Networks against loops written from the paper."""

import numpy as np
import pytest
import torch

from fewshot import MatchingClassifier, MatchingLearner
from fewshot.errors import UnknownNameError
from fewshot.learners.matching import rows_to_keep
from tests.test_learners_prototypical import LABELS, QUERIES, SUPPORT, similarity


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean", "dot"])
def test_a_class_gathers_the_attention_to_its_support(metric):
    probabilities = MatchingLearner(metric, temperature=0.5)(SUPPORT, LABELS, QUERIES, 3).softmax(-1)
    for q, query in enumerate(QUERIES):
        attention = torch.stack([similarity(query, x, metric) / 0.5 for x in SUPPORT]).softmax(0)
        for c in range(3):
            torch.testing.assert_close(probabilities[q, c], attention[c == LABELS].sum())


def test_the_papers_temperature_can_be_had_and_the_default_is_sharper():
    assert MatchingLearner().temperature.item() == pytest.approx(0.1)
    flat, sharp = (MatchingLearner(temperature=t)(SUPPORT, LABELS, QUERIES, 3).softmax(-1) for t in (1.0, 0.1))
    assert sharp.max(-1).values.mean() > flat.max(-1).values.mean() + 0.3


def test_the_support_itself_is_the_memory():
    learner = MatchingLearner()
    memory = learner.memorize(learner.learn(SUPPORT, LABELS, 3))
    assert torch.equal(memory.keys, SUPPORT)
    assert torch.equal(memory.labels, LABELS)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.repeat(["a", "b", "c"], [40, 15, 5])


def kept(model):
    support = model.model_.statistics.support
    return {tuple(row) for row in support["x"].numpy().tolist()}


def test_the_oldest_go_first():
    model = MatchingClassifier(max_support=4, replacement="oldest").fit(X, Y)
    assert kept(model) == {tuple(row) for part in (X[36:40], X[51:55], X[56:60]) for row in part.tolist()}
    assert model.n_support_.tolist() == [4, 4, 4]
    model.partial_fit(X[:1], ["c"])
    assert tuple(X[56]) not in kept(model)
    assert tuple(X[0]) in kept(model)


@pytest.mark.parametrize("replacement", ["reservoir", "oldest"])
def test_portions_do_not_matter(replacement):
    whole = MatchingClassifier(max_support=6, replacement=replacement).fit(X, Y)
    bits = MatchingClassifier(max_support=6, replacement=replacement)
    for rows in np.array_split(np.arange(60), 11):
        bits.partial_fit(X[rows], Y[rows])
    assert kept(bits) == kept(whole)
    assert bits.n_support_.tolist() == [6, 6, 5]


def test_a_reservoir_does_not_depend_on_the_order_and_merges():
    whole = MatchingClassifier(max_support=6).fit(X, Y)
    order = RNG.permutation(60)
    assert kept(MatchingClassifier(max_support=6).fit(X[order], Y[order])) == kept(whole)
    one, other = (MatchingClassifier(max_support=6).fit(X[rows], Y[rows]) for rows in (order[:25], order[25:]))
    assert kept(one.merge(other)) == kept(whole)
    assert one.n_support_.tolist() == [6, 6, 5]


def test_a_reservoir_is_a_fair_sample():
    """Each of 20 rows is among the 5 kept in a quarter of 2000 drawings: a chi-square test of their counts."""
    counts = np.zeros(20)
    for _ in range(2000):
        x = torch.from_numpy(RNG.normal(size=(20, 2)))
        support = {"x": x, "labels": torch.zeros(20, dtype=torch.long), "weight": torch.ones(20)}
        counts[rows_to_keep(support, 5, "reservoir")] += 1
    assert counts.sum() == 2000 * 5
    chi_square = ((counts - 500) ** 2 / (500 * 0.75)).sum()
    assert chi_square < 43.8  # its 0.999 quantile at 19 degrees of freedom


def test_what_is_not_full_is_left_alone():
    support = {"x": torch.zeros(3, 2), "labels": torch.tensor([0, 0, 1]), "weight": torch.ones(3)}
    assert rows_to_keep(support, 2, "oldest") is None


def test_rows_without_weight_go_first():
    support = {
        "x": torch.arange(4.0)[:, None],
        "labels": torch.zeros(4, dtype=torch.long),
        "weight": torch.tensor([1.0, 1.0, 0.0, 0.0]),
    }
    assert rows_to_keep(support, 2, "oldest").tolist() == [0, 1]


def test_bad_bounds_are_named():
    with pytest.raises(ValueError, match="max_support is 0; expected at least 1, or None"):
        MatchingClassifier(max_support=0).fit(X, Y)
    with pytest.raises(UnknownNameError, match="did you mean 'oldest'"):
        MatchingLearner(max_support=1, replacement="oldst")


def test_episodes_are_not_bounded():
    support, labels = torch.from_numpy(X), torch.from_numpy(np.unique(Y, return_inverse=True)[1])
    queries = torch.from_numpy(X[:3])
    one, other = (MatchingLearner(max_support=n)(support, labels, queries, 3) for n in (1, None))
    assert torch.equal(one, other)
