"""Rows of the support, answered as if it had never held them."""

import numpy as np
import pytest
import torch

from fewshot import DiscriminantLearner, MatchingLearner, PrototypicalLearner
from fewshot.learners.left_out import MOST_PARTS
from fewshot.utils import discriminant


def support_of(counts, d=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(labels), d)) + 2 * rng.normal(size=(len(counts), d))[labels]
    return torch.from_numpy(x), torch.from_numpy(labels)


@pytest.mark.parametrize("learner", [PrototypicalLearner(), MatchingLearner("cosine", 0.1)])
def test_in_parts_each_row_is_answered_by_others_of_all_classes(learner):
    x, labels = support_of([1, 2, 5, 25])
    found = learner.leave_out(x, labels, 4)
    assert found.rows.sort().values.tolist() == list(range(1, 33))  # all but the only row of class 0
    assert found.n_taught.min() == 1
    assert (found.n_taught < torch.bincount(labels)[labels[found.rows]]).all()
    for row, logits in zip(found.rows.tolist(), found.logits, strict=True):
        if labels[row] == 2:  # every row of it is in a part with others of class 3, but none of its own
            rest = (torch.arange(33) - (33 - 25)) % MOST_PARTS != row - 3
            rest = torch.where(labels == 3, rest, torch.arange(33) != row)
            rest &= (labels != 1) | (torch.arange(33) - 1 != row - 3)
            torch.testing.assert_close(logits, learner(x[rest], labels[rest], x[[row]], 4)[0])


def test_in_closed_form_each_row_is_answered_as_if_it_had_never_been_there():
    x, labels = support_of([1, 2, 4, 7], seed=1)
    x = x.abs()
    learner = DiscriminantLearner(regularization=0.3).double()
    found = learner.leave_out(x, labels, 5)  # class 4 is absent
    assert found.rows.tolist() == list(range(1, 14))
    assert found.n_taught.tolist() == [1] * 2 + [3] * 4 + [6] * 7
    assert torch.isneginf(found.logits[:, 4]).all()
    # strength and scale stay those that all of the support chooses
    whole = learner.learn(x, labels, 5)
    rows = discriminant.LabelledRows(whole.support["x"], labels, whole.support["weight"], whole.means, whole.count)
    chosen = discriminant.choose(rows, 0.3, torch)
    for row, logits in zip(found.rows.tolist(), found.logits, strict=True):
        weight = (torch.arange(14) != row).double()
        sums = torch.zeros(5, 6).double().index_add(0, labels, rows.x * weight[:, None])
        count = torch.bincount(labels, weight, 5)
        without = discriminant.LabelledRows(rows.x, labels, weight, sums / count.clamp(min=1)[:, None], count)
        keys = discriminant.class_keys(without, chosen, torch)
        torch.testing.assert_close(logits[:4], (keys @ rows.x[row])[:4] / 0.05)


def test_of_many_rows_those_that_make_up_the_metric_are_left_out(monkeypatch):
    monkeypatch.setattr(discriminant, "MOST_ROWS", 40)
    monkeypatch.setattr(discriminant, "PART", 100)  # and in parts
    x, labels = support_of([30, 30, 30])
    found = DiscriminantLearner(1.0).double().leave_out(x, labels, 3)
    assert len(found.rows) == 40
    assert (found.logits.argmax(-1) == labels[found.rows]).double().mean() > 0.6
    every = DiscriminantLearner(1.0, regularization=0.3).double().leave_out(x, labels, 3, every=True)
    assert every.rows.sort().values.tolist() == list(range(90))
    torch.testing.assert_close(every.rows[:40], found.rows)
    assert (every.n_taught == 29).all()
    whole = DiscriminantLearner(1.0, regularization=0.3).double().learn(x, labels, 3)
    unit, weight = whole.support["x"], whole.support["weight"]
    kept = discriminant.LabelledRows(unit, labels, weight, whole.means, whole.count).limited(torch)
    chosen = discriminant.choose(kept, 0.3, torch)
    for place in (50, 89):  # a row that has not taught the metric is in the mean of its class alone
        row = every.rows[place]
        weight = (torch.arange(90) != row).double()
        sums = torch.zeros(3, 6).double().index_add(0, labels, unit * weight[:, None])
        count = torch.bincount(labels, weight, 3)
        without = discriminant.LabelledRows(kept.x, kept.labels, kept.weight, sums / count[:, None], count)
        keys = discriminant.class_keys(without, chosen, torch)
        torch.testing.assert_close(every.logits[place], keys @ unit[row] / 0.05)


def test_without_a_class_of_two_nothing_can_be_left_out():
    x, labels = support_of([1, 1, 1])
    for learner in (DiscriminantLearner(), PrototypicalLearner()):
        assert len(learner.double().leave_out(x, labels, 3).rows) == 0


def test_of_many_rows_about_a_thousand_are_left_out_in_parts():
    x, labels = support_of([2000, 3000, 1, 2])
    found = PrototypicalLearner().double().leave_out(x, labels, 4)
    assert 900 < len(found.rows) < 1100
    assert len(found.rows.unique()) == len(found.rows)
    every = PrototypicalLearner().double().leave_out(x, labels, 4, every=True)
    assert sorted(every.rows.tolist()) == [*range(5000), 5001, 5002]
