"""What is unknown: the evidence for a threshold, how it follows the classes, and what is saved of it."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier, KNearestLearner, PrototypicalLearner
from fewshot.classifiers.open_set import NONE, Background

RNG = np.random.default_rng(0)


def clusters(n_classes, n, seed=0, d=40, spread=0.5):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_classes, d))
    return centres.repeat(n, 0) + spread * rng.normal(size=(n_classes * n, d)), np.arange(n_classes).repeat(n)


X, Y = clusters(24, 12)
KNOWN, SPARE, NEW = Y < 6, (Y >= 6) & (Y < 12), Y >= 12
FEW = KNOWN & (np.arange(len(Y)) % 12 < 4)


def few_of(low, high):
    return FEW & (low <= Y) & (high > Y)


def fitted(rows=FEW, **params):
    return FewShotClassifier("discriminant", **params).fit(X[rows], Y[rows])


def scores(model, x):
    return model.view(reject="auto").reject_rule().open_set().scores(x, np.zeros(len(x)))


def evidence(model):
    return model.view(reject="auto").reject_rule().scored()


def test_each_class_plays_an_unknown_one_as_if_it_had_never_been_learned():
    model = fitted().calibrate(X[SPARE], Y[SPARE], n_episodes=2)
    found = evidence(model)
    for i in range(6):
        rest = fitted(FEW & (i != Y)).calibrate(X[SPARE], Y[SPARE], n_episodes=2)
        expected = scores(rest, X[FEW & (i == Y)])
        np.testing.assert_allclose(found.unknown[found.classes == i], expected, rtol=0, atol=1e-6)
    for i in range(6):
        others = SPARE & (6 + i != Y)
        rest = fitted().calibrate(X[others], Y[others], n_episodes=2)
        expected = scores(rest, X[SPARE & (6 + i == Y)])
        np.testing.assert_allclose(found.unknown[found.classes == 6 + i], expected, rtol=0, atol=1e-6)
    rows = np.flatnonzero(FEW)
    expected = [scores(fitted(np.setdiff1d(rows, row)), X[row][None])[0] for row in rows]
    np.testing.assert_allclose(evidence(fitted()).known, expected, rtol=0, atol=1e-6)


def test_by_default_rejection_tells_what_the_own_rule_costs():
    model = fitted()
    costs = {rule: str(model.rejection(rule)) for rule in ("auto", "balanced", "40%")}
    assert costs["auto"] != costs["40%"]
    for own, meant in ((None, "auto"), ("auto", "auto"), ("balanced", "balanced"), ("40%", "40%"), (0.5, "auto")):
        assert str(model.set_params(reject=own).rejection()) == costs[meant]


def test_with_one_image_a_class_held_out_classes_tell_how_familiar_known_ones_are():
    one = KNOWN & (np.arange(len(Y)) % 12 < 1)
    assert not len(evidence(fitted(one)).known)
    with pytest.raises(ValueError, match="'balanced' needs queries of known classes"):
        fitted(one).rejection("balanced")
    assert "cannot be told" in str(fitted(one).rejection())
    model = fitted(one).calibrate(X[SPARE], Y[SPARE], n_episodes=2)
    learned = fitted(one | (np.flatnonzero(SPARE)[0] == np.arange(len(Y))))
    others = SPARE & (Y > 6)
    expected = scores(learned.calibrate(X[others], Y[others], n_episodes=2), X[SPARE & (Y == 6)][1:])
    np.testing.assert_allclose(evidence(model).known[:11], expected, rtol=0, atol=1e-6)


def test_the_threshold_is_the_same_however_the_support_came_and_follows_its_classes():
    whole, parts = fitted(reject="10%"), FewShotClassifier("discriminant", reject="10%")
    for rows in np.array_split(np.random.default_rng(1).permutation(np.flatnonzero(FEW)), 5):
        parts.partial_fit(X[rows], Y[rows])
    assert parts.reject_rule().threshold() == pytest.approx(whole.reject_rule().threshold(), abs=1e-9)
    queries = X[~FEW]
    np.testing.assert_array_equal(parts.predict(queries), whole.predict(queries))
    more = np.flatnonzero(SPARE)[:24]
    grown = parts.partial_fit(X[more], Y[more])
    again = FewShotClassifier("discriminant", reject="10%").fit(
        np.concatenate([X[FEW], X[more]]), np.concatenate([Y[FEW], Y[more]])
    )
    assert grown.reject_rule().threshold() == pytest.approx(again.reject_rule().threshold(), abs=1e-9)
    assert grown.reject_rule().threshold() != pytest.approx(whole.reject_rule().threshold(), abs=1e-3)


@pytest.mark.parametrize("spare", [False, True])
def test_the_rate_lies_in_the_promised_interval(spare):
    kept, lost, held = [], [], []
    for seed in range(20):
        x, y = clusters(40, 15, seed=seed, d=20)
        known = (y < 20) & (np.arange(len(y)) % 15 < 3)
        model = FewShotClassifier("discriminant", reject="auto").fit(x[known], y[known])
        if spare:
            held_out = (y >= 20) & (y < 28)
            model.calibrate(x[held_out], y[held_out], n_episodes=5)
        promised = model.rejection()
        low, high = promised.false_accept_interval
        kept.append(low <= (model.predict(x[y >= 28]) != -1).mean() <= high)
        asked = (y < 20) & ~known
        refused = (model.predict(x[asked]) == -1).mean()
        lost.append(refused - promised.false_reject_rate)
        low, high = promised.false_reject_interval
        held.append(low <= refused <= high)
        assert str(promised).endswith(f"would be answered unknown ({100 * low:.0f} to {100 * high:.0f})")
    assert np.mean(kept) >= 0.85
    assert np.mean(held) >= 0.85
    assert abs(np.mean(lost)) < 0.1


def test_examples_of_none_of_these_are_told_better_and_cost_the_classes_little():
    like = (Y >= 12) & (np.arange(len(Y)) % 12 < 3)
    asked = (Y >= 12) & ~like
    plain = fitted(reject="20%")
    model = FewShotClassifier("discriminant", reject="20%").fit(X[FEW], Y[FEW], reject_examples=X[like])
    assert (model.predict(X[asked]) != -1).mean() < (plain.predict(X[asked]) != -1).mean()
    assert (model.predict(X[KNOWN & ~FEW]) == -1).mean() <= (plain.predict(X[KNOWN & ~FEW]) == -1).mean() + 0.1
    assert (model.background_.codes == NONE).all()
    later = fitted(reject="20%").calibrate(reject_examples=X[like])
    np.testing.assert_array_equal(later.predict(X), model.predict(X))
    assert not hasattr(later, "calibration_")
    later.calibrate(X[SPARE], Y[SPARE], n_episodes=2)
    assert (later.background_.codes == NONE).sum() == like.sum()  # held-out classes do not replace them
    cleared = later.clear_calibration()
    np.testing.assert_array_equal(cleared.predict(X), plain.predict(X))
    with pytest.raises(ValueError, match="nothing to calibrate with"):
        fitted().calibrate()


@pytest.mark.parametrize("learner", ["prototypical", "matching", "ridge"])
def test_other_learners_compare_held_out_classes_with_their_own_by_closeness(learner):
    model = FewShotClassifier(learner, reject="10%").fit(X[FEW], Y[FEW])
    with pytest.raises(ValueError, match="needs a threshold; call calibrate"):
        model.predict(X[:1])
    model.calibrate(X[SPARE], Y[SPARE], n_episodes=5)
    accepted = np.mean([(model.predict(X[c == Y]) != -1).mean() for c in range(6, 12)])
    assert 0 < accepted <= 0.1
    assert model.calibration_.score == "closeness"


@pytest.mark.parametrize("weight", [1e-9, 1e3, 1e9, 1e15])
def test_huge_and_tiny_weights_refuse_no_more_than_the_same_rows_often(weight):
    model = FewShotClassifier("discriminant", reject="10%").fit(X[FEW], Y[FEW], np.full(FEW.sum(), weight))
    promised = model.rejection()
    lost = (model.predict(X[KNOWN & ~FEW]) == -1).mean()
    assert abs(lost - promised.false_reject_rate) < 0.1
    assert lost < 0.2
    assert (model.predict(X[NEW]) != -1).mean() <= promised.false_accept_interval[1]


@pytest.mark.parametrize(
    ("learner", "reject", "warned"),
    [
        ("discriminant", 5, True), ("discriminant", 0.5, False),
        (PrototypicalLearner("cosine"), 1.0, False), (PrototypicalLearner("cosine"), 1.1, True),
        (PrototypicalLearner(), -5, False), (PrototypicalLearner(), 5, True), (PrototypicalLearner("dot"), 5, False),
    ],
)  # fmt: skip
def test_a_similarity_that_no_query_can_have_is_told_from_a_rate(learner, reject, warned):
    model = FewShotClassifier(learner, reject=reject).fit(X[FEW], Y[FEW])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.predict(X[FEW])
    assert [str(one.message) for one in caught if "such as reject='" in str(one.message)] == [
        str(one.message) for one in caught
    ]
    assert len(caught) == warned
    if warned:
        assert (found == -1).all()
        assert f"such as reject='{reject:g}%'" in str(caught[0].message)


def test_a_rule_survives_pickling_and_one_class_is_too_few():
    model = fitted(reject="balanced").calibrate(X[SPARE], Y[SPARE], n_episodes=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    alone = FewShotClassifier("discriminant", reject="5%").fit(X[:3], Y[:3])
    with pytest.raises(ValueError, match="or add a second class"):
        alone.predict(X[:1])


def test_many_rows_are_kept_evenly_and_come_back_from_a_file_unless_they_are_damaged():
    x, y = RNG.normal(size=(3000, 2)), np.repeat(np.arange(10), 300)
    found = Background.empty(2).having_none_of_these(x[:5]).having_classes(x, y, np.ones(3))
    assert np.bincount(found.codes[5:]).tolist() == [100] * 10
    assert len(found.having_none_of_these(x[:5]).x) == len(found.x)  # each once
    many = Background.empty(2).having_none_of_these(x).having_classes(x, np.repeat(np.arange(1500), 2), np.ones(3))
    assert (many.codes == NONE).sum() <= 1000
    assert (many.codes != NONE).sum() <= 1000
    tensors = found.to_tensors()
    again = Background.from_tensors(tensors, found.names, 2)
    for name in ("x", "codes", "known"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    for change, message in (
        ({"x": tensors["x"][:, :1]}, "rows of 2 numbers"),
        ({"x": torch.full_like(tensors["x"], torch.nan)}, "finite rows"),
        ({"codes": tensors["codes"] - 9}, "a class each"),
        ({"codes": tensors["codes"][:3]}, "a class each"),
        ({"other": tensors["x"]}, "expected x, codes and known"),
    ):
        with pytest.raises(ValueError, match=message):
            Background.from_tensors({**tensors, **change}, found.names, 2)


def test_what_is_learned_is_no_longer_unknown():
    """A held-out class that becomes a class, and an example of none of these that is learned, count no more."""
    same, none = (np.flatnonzero(label == Y)[:4] for label in (6, 12))
    others = SPARE & (Y != 6)
    model = fitted(reject="10%").calibrate(X[SPARE], Y[SPARE], n_episodes=2, reject_examples=X[none])
    never = fitted(reject="10%").calibrate(X[others], Y[others], n_episodes=2)
    for one in (model, never):
        one.partial_fit(X[same], Y[same]).partial_fit(X[none], Y[none])
    np.testing.assert_array_equal(model.predict(X), never.predict(X))
    assert (model.predict(X[Y == 6]) == 6).mean() > 0.5
    other_name = fitted(reject="10%").calibrate(X[SPARE], Y[SPARE], n_episodes=2).partial_fit(X[same], Y[same] + 90)
    assert (other_name.predict(X[Y == 6]) == 96).mean() > 0.5  # the same images under another name
    own = fitted(reject="10%")
    with pytest.warns(UserWarning, match="0, 1, .* are classes of the classifier too"):
        own.calibrate(X[KNOWN], Y[KNOWN], n_episodes=2)
    np.testing.assert_array_equal(own.predict(X), fitted(reject="10%").predict(X))


def test_merging_joins_what_both_know_of_the_unknown():
    one = fitted(few_of(0, 3), reject="10%")
    two = FewShotClassifier("discriminant").fit(X[few_of(3, 6)], Y[few_of(3, 6)], reject_examples=X[Y == 12])
    merged = one.merge(two.calibrate(X[SPARE], Y[SPARE], n_episodes=2))
    whole = fitted(reject="10%").calibrate(X[SPARE], Y[SPARE], n_episodes=2, reject_examples=X[Y == 12])
    np.testing.assert_array_equal(merged.predict(X), whole.predict(X))


def test_a_copy_does_not_answer_for_the_row_that_is_left_out():
    twice = FewShotClassifier("discriminant").fit(np.repeat(X[FEW], 2, 0), np.repeat(Y[FEW], 2))
    np.testing.assert_allclose(np.sort(evidence(twice).known), np.sort(evidence(fitted()).known), rtol=0, atol=1e-9)


def test_answers_that_are_impossible_warn_of_nothing():
    with np.errstate(all="raise"):
        model = FewShotClassifier(KNearestLearner(1)).fit(X[FEW], Y[FEW])
        model.calibrate(X[NEW] + 3 * RNG.normal(size=X[NEW].shape), Y[NEW], n_episodes=9)
    assert model.calibration_.temperature == 1
    assert model.calibration_.nll_before == np.inf
