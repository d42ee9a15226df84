"""Support and classes removed, renamed, merged: as if it had always been so."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import (
    FewShotClassifier,
    MatchingClassifier,
    PrototypicalClassifier,
    PrototypicalLearner,
    RidgeFewShotClassifier,
    SimpleShotClassifier,
)

X = np.random.default_rng(0).normal(size=(24, 5)) * 100 + 1000
Y = np.array(list("abcd") * 6)
QUERIES = X + np.random.default_rng(1).normal(size=X.shape)
BOTH = pytest.mark.parametrize("kind", [PrototypicalClassifier, MatchingClassifier])


def assert_alike(one, other):
    assert one.classes_.tolist() == other.classes_.tolist()
    assert one.n_support_.tolist() == other.n_support_.tolist()
    np.testing.assert_allclose(one.decision_function(QUERIES), other.decision_function(QUERIES), rtol=1e-9)


@given(st.sets(st.integers(0, 23), max_size=19), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_what_was_removed_was_never_there_within_the_stated_bound(gone, random):
    gone = random.sample(sorted(gone), len(gone))
    left = [i for i in range(24) if i not in gone]
    edited = PrototypicalClassifier().fit(X, Y)
    if gone:
        edited.remove(X[gone], Y[gone])
    never = PrototypicalClassifier().fit(X[left], Y[left])
    assert edited.classes_.tolist() == never.classes_.tolist()
    assert edited.n_support_.tolist() == never.n_support_.tolist()
    sums, expected = (model.model_.statistics.sums["x"].numpy() for model in (edited, never))
    assert (np.abs(sums - expected) <= 1e-12 * np.abs(X).sum(0)).all()


@BOTH
def test_weights_are_removed_as_they_were_learned(kind):
    weight = np.linspace(0.5, 3, 24)
    edited = kind().fit(X, Y, sample_weight=weight).remove(X[:9], Y[:9], sample_weight=weight[:9])
    assert_alike(edited, kind().fit(X[9:], Y[9:], sample_weight=weight[9:]))


@BOTH
def test_row_45_a_class_without_support_left_is_gone_or_never_the_answer(kind):
    rows = Y == "b"
    gone = kind().fit(X, Y).remove(X[rows], Y[rows])
    assert_alike(gone, kind().fit(X[~rows], Y[~rows]))
    empty = kind().fit(X, Y).remove(X[rows], Y[rows], drop_empty=False)
    assert empty.classes_.tolist() == ["a", "b", "c", "d"]
    assert empty.n_support_.tolist() == [6, 0, 6, 6]
    assert (empty.predict_proba(QUERIES)[:, 1] == 0).all()
    again = empty.partial_fit(X[rows], Y[rows])
    assert_alike(again, kind().fit(X, Y))


def test_a_class_that_was_announced_stays_when_another_goes():
    model = PrototypicalClassifier().partial_fit(X[:8], Y[:8], classes=["a", "b", "c", "d", "later"])
    model.remove(X[[0, 4]], ["a", "a"])
    assert model.classes_.tolist() == ["b", "c", "d", "later"]


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:1], ["q"]), "there is no class 'q'; the classes are 'a', 'b', 'c', 'd'"),
        ((X, ["a"] * 24), "cannot remove 24 support rows of 'a', which has 6; give rows that were learned"),
        ((X, Y), "nothing would remain"),
        ((X[:2], ["a"]), "X has 2 rows and y 1 label"),
        ((X[:1, :3], ["a"]), "X has 3 features, but .* is expecting 5"),
        ((X[:1] * np.nan, ["a"]), "NaN at row 0, column 0"),
    ],
)
def test_what_cannot_be_removed_is_told_and_nothing_changes(kind, arguments, message):
    model = kind().fit(X, Y)
    before = dict(model.__dict__)
    with pytest.raises(ValueError, match=message):
        model.remove(*arguments)
    assert model.__dict__ == before


def test_kept_support_that_was_never_learned_is_told():
    model = MatchingClassifier().fit(X, Y)
    with pytest.raises(ValueError, match="row 1 is not in the memory; give support that was learned, with its weight"):
        model.remove(X[[0, 1]], ["a", "a"])
    with pytest.raises(ValueError, match="row 0 is not in the memory"):
        model.remove(X[:1], ["a"], sample_weight=[2.0])
    with pytest.raises(ValueError, match="cannot remove more weight of 'a' than was learned"):
        PrototypicalClassifier().fit(X, Y).remove(X[:1], ["a"], sample_weight=[7.0])


# ---- renaming ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("new", ["", "aa", "zebra with a long name", "ü", "<script>"])
def test_a_renamed_class_is_as_if_it_had_been_learned_so(kind, new):
    edited = kind().fit(X, Y).rename_class("b", new)
    assert_alike(edited, kind().fit(X, np.where(Y == "b", new, Y.astype("<U30"))))
    assert new in edited.predict(X).tolist()
    assert edited.rename_class(new, new).classes_.tolist() == edited.classes_.tolist()


def test_numbers_are_renamed_to_numbers():
    model = PrototypicalClassifier().fit([[0.0], [1.0]], [1, 2**60]).rename_class(1, 2**60 + 1)
    assert model.classes_.tolist() == [2**60, 2**60 + 1]
    assert model.predict([[0.0]]).tolist() == [2**60 + 1]
    with pytest.raises(TypeError, match="labels mix the types"):
        model.rename_class(2**60, "x")


def test_the_only_class_can_be_renamed():
    assert PrototypicalClassifier().fit([[0.0]], ["a"]).rename_class("a", "b").predict([[3.0]]).tolist() == ["b"]


def test_a_name_in_use_or_unknown_is_refused():
    model = PrototypicalClassifier().fit(X, Y)
    before = dict(model.__dict__)
    with pytest.raises(ValueError, match="'c' is a class already"):
        model.rename_class("b", "c")
    with pytest.raises(ValueError, match="there is no class 'q'"):
        model.rename_class("q", "r")
    assert model.__dict__ == before


# ---- merging -------------------------------------------------------------------------------------------------------


@BOTH
@given(st.integers(1, 23))
@settings(max_examples=15, deadline=None)
def test_merging_is_learning_what_both_have_learned(kind, cut):
    one, other = kind().fit(X[:cut], Y[:cut]), kind().fit(X[cut:], Y[cut:])
    before = other.decision_function(QUERIES)
    assert_alike(one.merge(other), kind().fit(X, Y))
    np.testing.assert_array_equal(other.decision_function(QUERIES), before)


def test_a_classifier_merged_with_itself_counts_twice():
    model = PrototypicalClassifier().fit(X, Y)
    twice = copy.copy(model).merge(model)
    assert twice.n_support_.tolist() == [12] * 4
    np.testing.assert_allclose(twice.decision_function(QUERIES), model.decision_function(QUERIES), rtol=1e-12)


def test_what_does_not_fit_together_is_not_merged():
    model = PrototypicalClassifier(closed_set=True).fit(X, Y)
    before = dict(model.__dict__)
    for other, error, message in (
        (PrototypicalClassifier("cosine").fit(X, Y), ValueError, "cannot merge .*; both must be the same"),
        (PrototypicalClassifier(temperature=2.0).fit(X, Y), ValueError, "cannot merge"),
        (MatchingClassifier("sqeuclidean", 1.0).fit(X, Y), ValueError, "cannot merge"),
        (PrototypicalClassifier().fit(X[:, :3], Y), ValueError, "has 3 features, this one 5; embed both"),
        (PrototypicalClassifier().fit(X, np.arange(24)), TypeError, "labels mix the types"),
        (
            PrototypicalClassifier().fit(X[:1], ["new"]),
            ValueError,
            r"has the new classes \['new'\], but closed_set=True",
        ),
    ):
        with pytest.raises(error, match=message):
            model.merge(other)
    assert model.__dict__ == before
    assert_alike(
        FewShotClassifier(PrototypicalLearner(temperature=None)).fit(X, Y).merge(PrototypicalClassifier().fit(X, Y)),
        model.merge(model),
    )


REJECTING = {"reject": {"reject": -1e9}, "invalid": {"on_error": "unknown"}}
TAKEN = {"text": (["a", "b"], "unknown"), "integers": ([3, 4], -1)}


@pytest.mark.parametrize("params", REJECTING.values(), ids=REJECTING)
@pytest.mark.parametrize(("y", "taken"), TAKEN.values(), ids=TAKEN)
def test_no_change_makes_an_answer_mean_a_class_and_the_unknown_alike(params, y, taken):
    x = np.eye(2)
    model = PrototypicalClassifier(**params).fit(x, y)
    before, other = model.model_, PrototypicalClassifier().fit(x, [y[0], taken])
    for change in (
        lambda: model.rename_class(y[0], taken),
        lambda: model.merge(other),
        lambda: model.partial_fit(x[:1], [taken]),
        lambda: PrototypicalClassifier(**params).fit(x, [y[0], taken]),
        lambda: other.set_params(reject="auto").calibrate(x.repeat(4, 0), [0] * 4 + [1] * 4),
    ):
        with pytest.raises(ValueError, match=f"unknown_label={taken!r} is a class; choose another"):
            change()
    assert model.model_ is before
    model.set_params(unknown_label="?").rename_class(y[0], taken)
    assert model.predict(x).tolist() == [taken, y[1]]


@pytest.mark.parametrize(("y", "taken"), [*TAKEN.values(), ([True], False), ([2.0], 3.0)])
def test_a_classifier_that_is_ambiguous_answers_and_can_be_mended(y, taken):
    """As set_params makes one, or a folder from an earlier version."""
    x = np.eye(3)[: len(y) + 1]
    model = PrototypicalClassifier().fit(x, [*y, taken]).set_params(on_error="unknown")
    with pytest.warns(UserWarning, match="unknown queries are answered with None"):
        assert model.predict([*x, [np.nan] * 3]).tolist() == [*y, taken, None]
    model.partial_fit(x[:1], y[:1])  # is not to blame
    model.set_params(unknown_label="?")
    assert model.predict([*x, [np.nan] * 3]).tolist() == [*y, taken, "?"]


@pytest.mark.parametrize(
    "make", [PrototypicalClassifier, SimpleShotClassifier, MatchingClassifier, RidgeFewShotClassifier]
)
@pytest.mark.parametrize("drop_empty", [True, False])
def test_a_class_goes_only_with_the_rows_that_it_learned(make, drop_empty):
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.array(["a", "b", "b", "c", "c", "c"])
    model = make().fit(x, y)
    before = model.model_
    for rows, labels in (([5], ["a"]), ([1, 3], ["b", "b"]), ([2, 2], ["b", "b"])):
        with pytest.raises(ValueError, match="give (the rows|support) that (were|was) learned"):
            model.remove(x[rows], labels, drop_empty=drop_empty)
    assert model.model_ is before
    assert model.remove(x[[0, 1]], ["a", "b"], drop_empty=drop_empty).n_support_.sum() == 4
    with pytest.raises(ValueError, match="give (the rows|support) that (were|was) learned"):
        model.remove(x[[1]], ["b"])
    assert model.remove(x[[2]], ["b"]).n_support_[-1] == 3


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_no_sign_of_other_rows(scale, dtype):
    """Also where rows cancel, so that their sum is nothing but rounding."""
    x = scale * np.array([[0.1, 1.0], [0.2, 1.0], [-0.3, -2.0], [3.0, 3.0]])
    model = PrototypicalClassifier().fit(x[[2, 0, 1, 3]].astype(dtype), ["a", "a", "a", "b"])
    assert model.remove(x[:3].astype(np.float32), ["a"] * 3).classes_.tolist() == ["b"]


def test_weights_that_were_not_learned_empty_no_class():
    model = PrototypicalClassifier().fit(np.eye(3), ["a", "a", "b"], sample_weight=[1, 2, 1])
    with pytest.raises(ValueError, match="not the same; give the rows that were learned, with their weights"):
        model.remove(np.eye(3)[:2], ["a", "a"])
    assert model.remove(np.eye(3)[:2], ["a", "a"], sample_weight=[1, 2]).classes_.tolist() == ["b"]
