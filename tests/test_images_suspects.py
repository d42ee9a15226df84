"""Which labels are implausible, and how many right ones look so."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import CosinePrototypicalLearner, DiscriminantLearner
from fewshot.images.support import Support
from fewshot.images.suspects import IMPLAUSIBLE, find_suspects, judge


def made(n, n_way, wrong, seed, apart=1.0):
    """Logits that say exactly how likely each class is, labels drawn from them, and which of those were replaced."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_way)) + apart * 3 * np.eye(n_way)[rng.integers(0, n_way, n)]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(n_way, p=share) for share in shares])
    bad = rng.random(n) < wrong
    return logits, np.where(bad, (labels + rng.integers(1, n_way, n)) % n_way, labels), bad, shares


def test_the_suspicion_is_how_much_likelier_the_others_are_and_the_rate_that_of_right_labels():
    logits, labels, _, shares = made(4000, 6, 0, 0)
    found = judge(logits, labels)
    own = shares[np.arange(4000), labels]
    np.testing.assert_allclose(found.suspicion, np.log((1 - own) / (5 * own)), rtol=0.1, atol=0.2)  # up to the scale
    assert found.rate == pytest.approx(found.implausible.mean(), abs=0.02)
    for level in (0.5, 1.5, 3):
        some = found.suspicion > level
        assert found.false_alarm[some].max() == pytest.approx(some.mean(), abs=0.02)
    assert (found.taken_for != labels).all()
    others = np.where(np.eye(6)[labels] == 1, -np.inf, shares)
    assert (found.taken_for == others.argmax(1)).all()


@pytest.mark.parametrize("sharper", [1, 0.4, 3])
def test_wrong_labels_are_found_whatever_the_temperature(sharper):
    logits, labels, bad, _ = made(2000, 10, 0.05, 1, apart=2.5)
    found = judge(sharper * logits, labels).implausible
    assert found[bad].mean() > 0.9
    assert bad[found].mean() > 0.5
    clean, labels, _, _ = made(2000, 10, 0, 2, apart=2.5)
    assert judge(sharper * clean, labels).implausible.mean() < 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 99), st.floats(-5, 5))
def test_neither_order_nor_an_absent_class_matters(n, n_way, seed, offset):
    rng = np.random.default_rng(seed)
    logits, labels = 5 * rng.normal(size=(n, n_way)), rng.integers(0, n_way, n)
    found, order = judge(logits, labels), rng.permutation(n)
    assert np.isfinite(found.suspicion).all()
    assert ((found.false_alarm >= 0) & (found.false_alarm <= 1)).all()
    other = judge(np.column_stack([logits + offset, np.full(n, -np.inf)])[order], labels[order])
    np.testing.assert_allclose(other.suspicion, found.suspicion[order], atol=1e-6)
    assert (other.implausible == (other.suspicion > IMPLAUSIBLE)).all()


def test_no_row_is_no_suspect():
    assert len(judge(np.empty((0, 3)), np.empty(0, int)).implausible) == 0


@pytest.mark.parametrize("learner", [DiscriminantLearner(1.0), CosinePrototypicalLearner()])
def test_each_suspect_stands_beside_the_nearest_item_of_the_class_it_is_taken_for(learner):
    rng = np.random.default_rng(0)
    truth = np.arange(4).repeat(12)
    x = (2 * rng.normal(size=(4, 24))[truth] + rng.normal(size=(48, 24))).astype(np.float32)
    labels = truth.copy()
    labels[[5, 30]] = 3, 0
    support = Support(tuple(f"{i}.png" for i in range(48)), np.array(list("abcd"))[labels], x, (b"",) * 48)
    left_out = learner.double().eval().leave_out(torch.from_numpy(x).double(), torch.from_numpy(labels), 4)
    classes = np.array(list("abcd"))
    frame = find_suspects(learner, support, classes, left_out.rows.numpy(), left_out.logits.detach().numpy())
    assert frame["implausible"][[5, 30]].all()
    assert frame["implausible"].sum() <= 4
    assert (frame["taken_for"][5], frame["taken_for"][30]) == ("a", "c")
    unit = learner.transform(torch.from_numpy(x).double()).detach().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for row, label in ((5, 0), (30, 2)):
        near = np.where(labels == label, unit @ unit[row], -1)
        assert frame["neighbour_row"][row] == near.argmax()
        assert frame["neighbour"][row] == f"{near.argmax()}.png"
        assert frame["neighbour_similarity"][row] == pytest.approx(near.max())
    assert frame["neighbour"][0] == ""
    assert 0 <= frame.attrs["false_alarms"] < 0.1
