"""Sets of classes with a promise: against slow oracles, exact where the theory is, measured where it is not."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshot import (
    DiscriminantClassifier,
    FewShotClassifier,
    MatchingClassifier,
    PrototypicalClassifier,
    TransductiveClassifier,
    digits,
)
from fewshot.classifiers.conformal import least_kept, n_needed, predict_sets

DATA = digits()
X, Y = DATA.images.reshape(len(DATA), -1) / 255, DATA.labels
ORDER = np.random.default_rng(0).permutation(len(Y))
#: Ten images of each digit, and others.
SUPPORT = np.concatenate([ORDER[Y[ORDER] == label][:10] for label in range(10)])
ASKED = np.setdiff1d(ORDER, SUPPORT)


def kept(sets, labels):
    return np.mean([label in found for label, found in zip(labels.tolist(), sets, strict=True)])


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("method", ["discriminant", "matching", "k-nearest"])
def test_the_promise_is_kept_from_the_support_alone(method, coverage):
    model = FewShotClassifier(method).fit(X[SUPPORT], Y[SUPPORT])
    half = 1.96 * np.sqrt(coverage * (1 - coverage) * (1 / len(SUPPORT) + 1 / len(ASKED)))
    assert abs(kept(model.predict_set(X[ASKED], coverage), Y[ASKED]) - coverage) <= half


@pytest.mark.parametrize("method", ["discriminant", "matching"])
def test_copies_in_the_support_break_no_promise(method):
    twice = np.concatenate([SUPPORT, SUPPORT])
    sets = FewShotClassifier(method).fit(X[twice], Y[twice]).predict_set(X[ASKED], 0.9)
    assert kept(sets, Y[ASKED]) > 0.85
    with pytest.raises(ValueError, match="every class has one image"):
        FewShotClassifier(method).fit(X[SUPPORT[::10].repeat(5)], Y[SUPPORT[::10].repeat(5)]).predict_set(X[:1])


@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_with_held_out_rows_the_promise_is_exact(coverage):
    """Over draws of held-out rows: the theory gives coverage to coverage + 1 / (n + 1) for values without ties."""
    model, rng, n = PrototypicalClassifier(temperature=None).fit(X[SUPPORT], Y[SUPPORT]), np.random.default_rng(1), 30
    shares = []
    for _ in range(150):
        rows = rng.permutation(ASKED)
        sets = model.predict_set(X[rows[n : n + 60]], coverage, held_out=(X[rows[:n]], Y[rows[:n]]))
        shares.append(kept(sets, Y[rows[n : n + 60]]))
    error = np.std(shares) / len(shares) ** 0.5
    assert coverage - 3 * error <= np.mean(shares) <= coverage + 1 / (n + 1) + 3 * error


def test_by_class_keeps_it_for_the_worst_class():
    model = DiscriminantClassifier().fit(X[SUPPORT], Y[SUPPORT])
    mixed = np.random.default_rng(0).permutation(ASKED)  # neighbours in the file are by one writer
    held, asked = mixed[::2], mixed[1::2]
    worst = []
    for by_class in (False, True):
        sets = model.predict_set(X[asked], 0.9, by_class=by_class, held_out=(X[held], Y[held]))
        found = [kept([sets[i] for i in np.flatnonzero(Y[asked] == label)], Y[asked][Y[asked] == label])
                 for label in range(10)]  # fmt: skip
        worst.append(min(found))
    assert worst[0] < 0.8 < worst[1]
    assert np.isclose(kept(model.predict_set(X[asked], 0.8, by_class=True), Y[asked]), 0.8, atol=0.1)


def test_classes_with_too_few_images_share_the_promise_for_all():
    rows = np.concatenate([SUPPORT[Y[SUPPORT] != 3], SUPPORT[Y[SUPPORT] == 3][:2]])
    model = DiscriminantClassifier().fit(X[rows], Y[rows])
    with pytest.warns(UserWarning, match="needs 9 images of a class.*1 class with fewer share the promise for all: 3"):
        model.predict_set(X[ASKED[:5]], 0.9, by_class=True)
    few = np.concatenate([SUPPORT[Y[SUPPORT] == label][:5] for label in range(10)])
    with pytest.raises(ValueError, match="needs 9 images of a class .* there are 5; ask for at most 0.8"):
        DiscriminantClassifier().fit(X[few], Y[few]).predict_set(X[:1], 0.9, by_class=True)


def test_leaving_out_by_hand_gives_the_same_sets():
    """Oracle: fit again without the first, second and third image of each class."""
    rows = np.concatenate([SUPPORT[Y[SUPPORT] == label][:3] for label in range(5)])
    x, y, rank = X[rows], Y[rows], np.tile(np.arange(3), 5)
    logs = np.empty(len(rows))
    for part in range(3):
        model = MatchingClassifier(temperature=0.5).fit(x[rank != part], y[rank != part])
        logs[rank == part] = model.predict_log_proba(x[rank == part])[np.arange(5), y[rank == part]]
    floor = least_kept(logs, np.full(len(rows), (2 / 3) ** 0.7), 0.8)
    model = MatchingClassifier(temperature=0.5).fit(x, y)
    found = model.predict_set(X[ASKED[:50]], 0.8)
    for log_proba, labels in zip(model.predict_log_proba(X[ASKED[:50]]), found, strict=True):
        order = np.argsort(-log_proba)
        assert labels == [label for label in order.tolist() if log_proba[label] >= floor - 1e-6 * (1 + abs(floor))]


def test_given_support_serves_learners_that_keep_sums_only():
    model = PrototypicalClassifier(temperature=None).fit(X[SUPPORT], Y[SUPPORT])
    with pytest.raises(ValueError, match="PrototypicalLearner keeps no support that could be left out; give held_out"):
        model.predict_set(X[:1])
    support = torch.from_numpy(X[SUPPORT]).double(), torch.from_numpy(Y[SUPPORT])
    assert abs(kept(predict_sets(model, X[ASKED], 0.9, support=support), Y[ASKED]) - 0.9) < 0.07


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.02, 0.98), st.booleans())
def test_the_least_value_is_the_largest_that_keeps_the_promise(seed, n, coverage, tied):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, n).astype(float) if tied else rng.normal(size=n)
    if n < n_needed(coverage):
        with pytest.raises(ValueError, match=f"there are {n}"):
            least_kept(values, np.ones(n), coverage)
        return
    least = least_kept(values, np.ones(n), coverage)
    allowed = (1 - coverage) * (n + 1) + 1e-9
    assert (values < least).sum() + 1 <= allowed  # a query counts as a miss
    assert (values <= least).sum() + 1 > allowed
    assert least_kept(values, np.full(n, 0.5), coverage) >= least


def test_sets_grow_with_the_promise_and_do_not_depend_on_the_batch():
    model = DiscriminantClassifier().fit(X[SUPPORT], Y[SUPPORT])
    small, large = (model.predict_set(X[ASKED], coverage) for coverage in (0.5, 0.95))
    for one, other in zip(small, large, strict=True):
        assert one == other[: len(one)]
    assert [] in small  # unknown
    assert model.predict_set(X[ASKED[:7]], 0.95) == large[:7]
    assert [found[:1] for found in large] == [[label] for label in model.predict(X[ASKED]).tolist()]
    assert model.predict_set(np.empty((0, X.shape[1]))) == []


def test_saturated_probabilities_still_tell_classes_apart():
    model = MatchingClassifier("sqeuclidean", temperature=1e-3).fit(X[SUPPORT], Y[SUPPORT])
    sets = model.predict_set(X[ASKED], 0.95)
    assert (model.predict_proba(X[ASKED]) == 0).mean() > 0.5
    assert max(map(len, sets)) < 10
    assert abs(kept(sets, Y[ASKED]) - 0.95) < 0.05


def test_labels_keep_their_type_and_invalid_rows_get_no_class():
    names = np.array([f"digit {label}" for label in Y])
    model = DiscriminantClassifier(on_error="unknown").fit(X[SUPPORT], names[SUPPORT])
    queries = X[ASKED[:3]].copy()
    queries[1] = np.nan
    found = model.predict_set(queries, 0.99, held_out=(X[ASKED[3:]], names[ASKED[3:]]))
    assert found[1] == []
    assert all(type(label) is str for labels in found for label in labels)


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -1, float("nan"), "0.9", None])
def test_a_coverage_out_of_range_is_refused(coverage):
    with pytest.raises(ValueError, match="coverage is .*; expected a number"):
        DiscriminantClassifier().fit(X[SUPPORT], Y[SUPPORT]).predict_set(X[:1], coverage)


def test_what_cannot_be_promised_is_refused():
    model = DiscriminantClassifier().fit(X[SUPPORT], Y[SUPPORT])
    for rows, coverage, message in (
        (SUPPORT[::10], 0.9, "every class has one image, so none can be left out; add a second"),
        (SUPPORT[[0, 1, 10, 11]], 0.9, "needs 9 images .* there are 4; ask for at most 0.8"),
        (SUPPORT, 0.995, "needs 199 images .* there are 100; ask for at most 0.99"),
    ):
        with pytest.raises(ValueError, match=message):
            DiscriminantClassifier().fit(X[rows], Y[rows]).predict_set(X[:1], coverage)
    weighted = DiscriminantClassifier().fit(X[SUPPORT], Y[SUPPORT], np.arange(100))
    with pytest.raises(ValueError, match="sample weights other than 1 cannot be left out"):
        weighted.predict_set(X[:1])
    with pytest.raises(TypeError, match="of type ndarray and has no labels; give"):
        model.predict_set(X[:1], held_out=X)
    with pytest.raises(TypeError, match="of type tuple and has no labels; give"):
        model.predict_set(X[:1], held_out=(X, None))
    for held_out, message in (
        ((X[:3], Y[:2]), "3 rows and 2 labels"),
        ((X[:0], Y[:0]), "0 rows and 0 labels|empty|expected"),
        ((X[:20], Y[:20] + 5), "labels that are not classes: 10"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict_set(X[:1], held_out=held_out)
    transductive = TransductiveClassifier("soft-k-means").fit(X[SUPPORT], Y[SUPPORT])
    with pytest.raises(TypeError, match="answers all queries together"):
        transductive.predict_set(X[:1], held_out=(X, Y))


def test_classes_with_one_image_are_named():
    rows = np.concatenate([SUPPORT[Y[SUPPORT] != 3], SUPPORT[Y[SUPPORT] == 3][:1]])
    model = DiscriminantClassifier().fit(X[rows], Y[rows])
    with pytest.warns(UserWarning, match="classes with one image cannot be left out, so nothing is promised .*: 3"):
        model.predict_set(X[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict_set(X[:1], held_out=(X[ASKED], Y[ASKED]))
