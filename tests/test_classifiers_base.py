"""Every classifier against bad input and against its properties; names carry the rows of the bad-input matrix."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone

from fewshot import (
    DiscriminantClassifier,
    FewShotClassifier,
    KNearestLearner,
    MatchingClassifier,
    MatchingLearner,
    MultiPrototypicalClassifier,
    PrototypicalClassifier,
    PrototypicalLearner,
    SimpleShotLearner,
    TransductiveClassifier,
)
from fewshot.embedding.checkpoint import build_learner, describe_learner
from fewshot.learners.registry import learner_class, list_learners
from fewshot.search.approximate import Approximate
from fewshot.search.similarity import PreparedKeys
from fewshot.search.single import similarities
from tests.summation import sum_in_other_orders
from tests.together import together

MODELS = [
    PrototypicalClassifier(),
    PrototypicalClassifier("cosine", 0.1, index="faiss"),
    MatchingClassifier(),
    FewShotClassifier("matching", index="faiss"),
]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6))
Y = np.array(["owl", "ant", "bee"] * 4)
QUERIES = RNG.normal(size=(9, 6))


def clone_all():
    return [clone(m) for m in MODELS]


def with_value(x, value, row=3, column=2):
    x = x.copy()
    x[row, column] = value
    return x


@pytest.fixture(params=range(len(MODELS)), ids=[repr(m) for m in MODELS])
def model(request):
    return clone_all()[request.param]


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_rows_1_2_3_what_is_not_finite_is_named_with_its_place(model, value, name):
    with pytest.raises(ValueError, match=f"contains {name} at row 3, column 2"):
        model.fit(with_value(X, value), Y)
    model.fit(X, Y)
    for verb in (model.predict, model.predict_proba, model.decision_function, model.nearest):
        with pytest.raises(ValueError, match=f"contains {name} at row 3, column 2"):
            verb(with_value(QUERIES, value))


def test_row_1_a_wrong_on_error_set_later_lets_nothing_pass(model):
    model.fit(X, Y).set_params(on_error="drop")
    with pytest.raises(ValueError, match="no on_error is called 'drop'"):
        model.predict(with_value(QUERIES, np.nan))


def test_row_3_a_refused_fit_leaves_the_classifier_as_it_was(model):
    before = model.fit(X, Y).decision_function(QUERIES)
    for bad_x, bad_y in ((np.full((3, 4), np.nan), ["a"] * 3), (np.ones((3, 4)), ["a", 1, "b"])):
        with pytest.raises((ValueError, TypeError)):
            model.fit(pd.DataFrame(bad_x, columns=list("abcd")), bad_y)
        assert model.n_features_in_ == 6
        assert not hasattr(model, "feature_names_in_")
        np.testing.assert_array_equal(model.decision_function(QUERIES), before)


@pytest.mark.parametrize("index", ["exact", "faiss"])
@pytest.mark.parametrize("learner", [PrototypicalLearner(), MatchingLearner("sqeuclidean", 1.0)], ids=repr)
def test_row_4_no_score_is_nan_at_the_edge_of_what_is_taken(learner, index):
    corners = (np.sign(RNG.normal(size=(4, 2048))) * 9e17).astype(np.float32)
    model = FewShotClassifier(learner, index=index).fit(corners, list("abcd"))
    for queries in (corners, np.ones((1, 2048), np.float32)):
        assert np.isfinite(model.decision_function(queries)).all()
        assert np.isfinite(model.nearest(queries, 4)[1]).all()
    assert model.predict(corners).tolist() == list("abcd")
    small = FewShotClassifier(learner, index=index).fit(corners / 9e17, list("abcd"))
    np.testing.assert_allclose(small.predict_proba(corners).sum(1), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_1_2_18_such_a_query_can_be_answered_unknown(model, value):
    model.set_params(on_error="unknown").fit(X, Y)
    bad = with_value(QUERIES, value)
    answer, others = model.predict(bad), np.arange(9) != 3
    assert answer[3] == "unknown"
    np.testing.assert_array_equal(answer[others], model.predict(QUERIES)[others])
    np.testing.assert_allclose(model.predict_proba(bad)[3], 1 / 3)
    assert np.all(model.decision_function(bad)[3] == 0)
    labels, similarities = model.nearest(bad, 2)
    assert labels[3].tolist() == ["unknown"] * 2
    assert np.all(similarities[3] == -np.inf)


def test_skip_leaves_bad_support_out_and_answers_bad_queries_unknown():
    bad, model = with_value(X, np.nan), PrototypicalClassifier(on_error="skip")
    with pytest.warns(UserWarning, match=r"holds NaN or infinity \(1 such row\); they were not learned"):
        model.fit(bad, Y)
    good = np.isfinite(bad).all(1)
    expected = PrototypicalClassifier().fit(bad[good], np.asarray(Y)[good])
    np.testing.assert_array_equal(model.predict_proba(QUERIES), expected.predict_proba(QUERIES))
    assert model.n_support_.sum() == len(X) - 1
    assert model.predict(with_value(QUERIES, np.nan))[3] == "unknown"
    with pytest.raises(ValueError, match="every row of X holds NaN or infinity"):
        model.fit(np.full_like(X, np.nan), Y)
    assert model.n_support_.sum() == len(X) - 1


def test_the_unknown_label_fits_the_labels_or_is_asked_for():
    bad = with_value(QUERIES, np.nan)
    numbers = PrototypicalClassifier(on_error="unknown").fit(X, np.arange(12) % 3)
    assert numbers.predict(bad)[3] == -1
    assert numbers.predict(bad).dtype.kind == "i"
    booleans = PrototypicalClassifier(on_error="unknown")
    with pytest.raises(ValueError, match="no default unknown_label for labels of type bool; set one"):
        booleans.fit(X, np.arange(12) % 2 == 0)
    booleans.set_params(unknown_label="?").fit(X, np.arange(12) % 2 == 0)
    assert booleans.predict(QUERIES).dtype == bool
    assert booleans.predict(bad)[3] == "?"
    with pytest.raises(ValueError, match="unknown_label=2 is a class; choose another"):
        numbers.set_params(unknown_label=2).predict(bad)


def test_row_5_no_support_is_refused(model):
    with pytest.raises(ValueError, match="0 sample"):
        model.fit(X[:0], Y[:0])


def test_row_6_no_queries_are_no_answers(model):
    model.fit(X, Y)
    assert model.predict(QUERIES[:0]).shape == (0,)
    assert model.predict(QUERIES[:0]).dtype == model.classes_.dtype
    assert model.predict_proba(QUERIES[:0]).shape == model.decision_function(QUERIES[:0]).shape == (0, 3)
    labels, similarities = model.nearest(QUERIES[:0], 2)
    assert labels.shape == similarities.shape == (0, 2)


def test_row_7_one_class(model):
    model.fit(X, ["only"] * 12)
    assert set(model.predict(QUERIES)) == {"only"}
    np.testing.assert_array_equal(model.predict_proba(QUERIES), np.ones((9, 1)))
    assert np.isfinite(model.decision_function(QUERIES)).all()


def test_row_8_a_registered_class_without_support_is_never_the_answer(model):
    model.partial_fit(X, Y, classes=["ant", "bee", "cat", "owl"])
    assert model.n_support_.tolist() == [4, 4, 0, 4]
    assert "cat" not in model.predict(QUERIES)
    assert np.all(model.predict_proba(QUERIES)[:, 2] == 0)
    assert "cat" not in model.nearest(QUERIES, 3)[0]
    plain = clone(model).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(QUERIES)[:, [0, 1, 3]], plain.predict_proba(QUERIES))


def test_row_9_weights_of_zero(model):
    weight = (Y != "bee").astype(float)
    model.fit(X, Y, sample_weight=weight)
    assert model.classes_.tolist() == ["ant", "bee", "owl"]
    assert model.n_support_.tolist() == [4, 0, 4]
    assert "bee" not in model.predict(QUERIES)
    with pytest.raises(
        ValueError, match="Sample weights must contain at least one non-zero|all sample weights are zero"
    ):
        model.fit(X, Y, sample_weight=np.zeros(12))


def test_row_10_negative_weights_are_refused(model):
    with pytest.raises(ValueError, match="[Nn]egative"):
        model.fit(X, Y, sample_weight=-np.ones(12))


@pytest.mark.parametrize("extreme", [1e300, 1e-310])
def test_row_9_weights_that_sums_would_lose_are_refused(model, extreme):
    with pytest.raises(ValueError, match="sample weight .* at index 2 is outside 1e-100 to 1e100.*rescale"):
        model.fit(X, Y, sample_weight=np.r_[1, 1, extreme, np.ones(9)])


def test_row_11_another_length_is_refused(model):
    with pytest.raises(ValueError, match="X has 5 features, but .* is expecting 6 features"):
        model.fit(X, Y).predict(QUERIES[:, :5])


@pytest.mark.parametrize(
    "model", [MatchingClassifier(), PrototypicalClassifier("cosine"), DiscriminantClassifier()], ids=repr
)
def test_row_12_a_zero_row_is_similar_to_nothing_with_one_warning(model):
    zero = np.vstack([np.zeros(6), X])
    with pytest.warns(UserWarning, match=r"row 0 of X is all zeros \(1 such row\)") as record:
        model.fit(zero, np.r_[["zero"], Y])
    assert len(record) == 1
    with pytest.warns(UserWarning, match="all zeros"):
        assert np.all(model.nearest(np.zeros((1, 6)), 4)[1] == 0)
    with pytest.warns(UserWarning, match="so all classes are equally like it"):
        model.predict(np.zeros((1, 6)))
    assert np.isfinite(model.predict_proba(QUERIES)).all()


def test_row_13_huge_values_are_computed_or_refused_but_never_wrong(model):
    with pytest.raises(ValueError, match="at row 3, column 2; values above 1e.18 overflow"):
        model.fit(with_value(X, 1e19), Y)
    scaled = model.fit((X * 1e10).astype(np.float32), Y).predict((QUERIES * 1e10).astype(np.float32))
    expected = type(model)(**model.get_params()).fit(X, Y).predict(QUERIES)
    np.testing.assert_array_equal(scaled, expected)


def test_row_14_half_precision_is_raised_before_any_square(model):
    half = (X * 100).astype(np.float16)
    answer = model.fit(half, Y).predict((QUERIES * 100).astype(np.float16))
    np.testing.assert_array_equal(answer, model.fit(half.astype(float), Y).predict(QUERIES * 100))
    assert np.isfinite(model.nearest(half)[1]).all()


@pytest.mark.parametrize("offset", [0, 10, 1e3, 1e4])
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_row_15_a_common_offset_costs_no_answer(offset, index):
    support, queries = (x.astype(np.float32) + np.float32(offset) for x in (X, QUERIES))
    exact = -(
        (queries[:, None].astype(float) - np.stack([support[c == Y].astype(float).mean(0) for c in np.unique(Y)])) ** 2
    ).sum(-1)
    model = PrototypicalClassifier(temperature=1.0, index=index).fit(support, Y)
    np.testing.assert_array_equal(model.predict(queries), np.unique(Y)[exact.argmax(1)])
    np.testing.assert_allclose(model.decision_function(queries), exact, rtol=1e-4)
    np.testing.assert_array_equal(model.predict(queries), [model.predict(q[None])[0] for q in queries])


@pytest.mark.parametrize("width", [1, 3, 8, 17, 64])
def test_row_16_among_equals_the_first_class_wins(model, width):
    same = np.tile(RNG.normal(size=width), (12, 1))
    model.fit(same, Y)
    assert set(model.predict(same[:1])) == {"ant"}
    prototypical = PrototypicalClassifier(index=model.index).fit(same, Y)
    assert prototypical.nearest(same[:1], 3)[0].tolist() == [["ant", "bee", "owl"]]


def test_row_17_log_probabilities_do_not_saturate():
    model = PrototypicalClassifier(temperature=1.0).fit([[0.0], [100.0]], ["a", "b"])
    assert model.predict_proba([[0.0]])[0, 1] == 0.0
    np.testing.assert_allclose(model.predict_log_proba([[0.0]])[0], [0.0, -1e4])


def test_row_19_answers_come_in_the_precision_of_the_query(model):
    model.fit(X, Y)
    assert model.decision_function(QUERIES).dtype == np.float64
    assert model.decision_function(QUERIES.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(
        model.decision_function(QUERIES.astype(np.float32)), model.decision_function(QUERIES), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8, bool])
def test_row_20_integers_and_booleans_are_taken_exactly(model, dtype):
    whole = (RNG.integers(0, 2, (12, 6))).astype(dtype)
    whole[:, 0] = 1
    np.testing.assert_allclose(
        model.fit(whole, Y).decision_function(whole),
        model.fit(whole.astype(float), Y).decision_function(whole.astype(float)),
    )


def test_row_20_integers_beyond_53_bits_warn():
    with pytest.warns(UserWarning, match=r"integers above 2\*\*53 lose digits"):
        PrototypicalClassifier().fit(np.array([[2**55], [1]]), ["a", "b"])


@pytest.mark.parametrize("bad", [X + 1j, np.full((12, 6), "x"), np.full((12, 6), {}, dtype=object)])
def test_row_21_what_is_no_number_is_refused(model, bad):
    with pytest.raises((ValueError, TypeError)):
        model.fit(bad, Y)


@pytest.mark.parametrize("order", [np.asfortranarray, lambda a: a[::-1][::-1], lambda a: np.repeat(a, 2, 1)[:, ::2]])
def test_row_22_the_layout_of_an_array_does_not_matter(model, order):
    expected = model.fit(X, Y).decision_function(QUERIES)
    np.testing.assert_allclose(model.fit(order(X), Y).decision_function(order(QUERIES)), expected, rtol=1e-12)


def test_row_23_read_only_and_mapped_arrays_are_taken_and_never_written_to(model, tmp_path):
    mapped = np.memmap(tmp_path / "x", float, "w+", shape=X.shape)
    mapped[:] = X
    locked, queries = X.copy(), QUERIES.copy()
    locked.flags.writeable = queries.flags.writeable = False
    expected = model.fit(X, Y).predict(QUERIES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(model.fit(locked, Y).predict(queries), expected)
        np.testing.assert_array_equal(model.fit(mapped, Y).predict(queries), expected)
    np.testing.assert_array_equal(mapped, X)


def test_the_model_does_not_change_with_the_arrays_it_learned_from(model):
    support = X.copy()
    expected = model.fit(support, Y).decision_function(QUERIES)
    support[:] = 0
    np.testing.assert_array_equal(model.decision_function(QUERIES), expected)
    np.testing.assert_allclose(model.partial_fit(X[:1], Y[:1]).n_support_.sum(), 13)


def test_row_24_sparse_matrices_are_refused_with_the_cure(model):
    with pytest.raises(TypeError, match="toarray"):
        model.fit(sparse.csr_matrix(X), Y)


def test_row_25_the_columns_of_a_frame_are_remembered(model):
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model.fit(frame, pd.Series(Y))
    assert model.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(
        model.predict(pd.DataFrame(QUERIES, columns=list("abcdef"))), model.fit(X, Y).predict(QUERIES)
    )
    with pytest.raises(ValueError, match="feature names should match"):
        model.fit(frame, Y).predict(pd.DataFrame(QUERIES, columns=list("abcdeg")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_26_27_torch_tensors_are_detached_and_taken(model, dtype):
    support = torch.from_numpy(X).to(dtype).requires_grad_()
    queries = torch.from_numpy(QUERIES).to(dtype)
    answer = model.fit(support, Y).predict(queries)
    plain = model.fit(support.detach().double().numpy(), Y).predict(queries.double().numpy())
    np.testing.assert_array_equal(answer, plain)


def test_row_27_a_tensor_on_an_accelerator_is_brought_to_the_cpu(model):
    class OnDevice:
        """Behaves as a tensor elsewhere does: no array of it until it is detached and moved."""

        def __init__(self, array, ready=()):
            self.array, self.ready, self.dtype = array, ready, "torch.float64"

        def detach(self):
            return OnDevice(self.array, (*self.ready, "detach"))

        def cpu(self):
            return OnDevice(self.array, (*self.ready, "cpu"))

        def numpy(self):
            assert set(self.ready) == {"detach", "cpu"}, "can't convert cuda tensor"
            return self.array

    expected = model.fit(X, Y).predict(QUERIES)
    np.testing.assert_array_equal(model.fit(OnDevice(X), Y).predict(OnDevice(QUERIES)), expected)


@pytest.mark.parametrize("bad", [X[0], X[None]])
def test_row_28_other_than_two_dimensions_are_refused(model, bad):
    with pytest.raises(ValueError, match="2D array|dim 3"):
        model.fit(bad, Y[: len(bad)])


def test_row_29_unequal_lengths_are_refused(model):
    with pytest.raises(ValueError, match="X has 12 rows and y 11 labels"):
        model.fit(X, Y[:-1])


def test_rows_39_40_any_text_is_a_label_and_comes_back_as_it_was(model):
    names = ["", "a", "a\0", "a\n", "<script>alert(1)</script>", "../x", "שלום", "🦉", "y" * 300, "NUL\0in", "é", " a"]
    for labels in (names, np.array(names, dtype=object)):
        answer = model.fit(X, labels).predict(X)
        assert answer.tolist() == names
        assert model.partial_fit(X[:1], ["b\0"]).classes_.tolist() == sorted([*names, "b\0"])
    twin = pickle.loads(pickle.dumps(model))
    assert twin.classes_.tolist() == model.classes_.tolist()


def test_row_38_booleans_and_row_41_observed_categories_are_the_classes(model):
    assert model.fit(X, Y == "owl").classes_.dtype == bool
    category = pd.Series(pd.Categorical(Y, categories=["ghost", "owl", "bee", "ant"]))
    assert model.fit(X, category).classes_.tolist() == ["ant", "bee", "owl"]


def test_one_shot_of_many_numbered_classes_is_no_regression_problem(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(RNG.normal(size=(30, 6)), np.arange(30))


def test_row_43_longer_labels_are_not_cut(model):
    model.fit(X, Y).partial_fit(X[:1], ["hippopotamus"])
    assert "hippopotamus" in model.classes_


def test_row_44_new_classes_are_welcome_unless_the_set_is_closed(model):
    model.fit(X, Y).partial_fit(100 + np.zeros((1, 6)), ["cat"])
    assert model.classes_.tolist() == ["ant", "bee", "cat", "owl"]
    assert (
        model.predict([[100.0] * 6]).tolist() == ["cat"] or model.get_params().get("metric", "cosine") != "sqeuclidean"
    )
    before = pickle.dumps(model.decision_function(QUERIES))
    with pytest.raises(ValueError, match=r"new classes \['dog'\], but closed_set=True; pass them"):
        model.set_params(closed_set=True).partial_fit(X[:1], ["dog"])
    assert pickle.dumps(model.decision_function(QUERIES)) == before


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"index": "annoy"}, "no index is called 'annoy'"),
        ({"on_error": "ignore"}, "no on_error is called 'ignore'"),
    ],
)
def test_a_wrong_parameter_is_named_at_fit(model, parameters, match):
    for learn in (model.fit, model.fit(X, Y).partial_fit):
        model.set_params(**parameters)
        with pytest.raises(ValueError, match=match):
            learn(X, Y)


def test_a_wrong_metric_or_temperature_is_named_at_fit():
    with pytest.raises(ValueError, match="no metric is called 'euclid'"):
        PrototypicalClassifier("euclid").fit(X, Y)
    with pytest.raises(ValueError, match="temperature is 0; it divides the similarities"):
        MatchingClassifier(temperature=0).fit(X, Y)


def test_nearest_wants_a_k_that_there_is(model):
    model.fit(X, Y)
    n_keys = 3 if isinstance(model, PrototypicalClassifier) else 12
    for k in (0, n_keys + 1):
        with pytest.raises(ValueError, match=f"k is {k}; expected an integer from 1 to {n_keys}, the number of keys"):
            model.nearest(QUERIES, k)


def test_a_pickle_answers_bit_for_bit_and_another_version_warns(model):
    model.fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.decision_function(QUERIES), model.decision_function(QUERIES))
    state = {**model.__getstate__(), "_fewshot_version": "0.0.1"}
    with pytest.warns(UserWarning, match=r"pickled by fewshot 0\.0\.1 and is read by"):
        type(model)().__setstate__(state)


# ---- properties ------------------------------------------------------------------------------------------------------

SUPPORT = st.integers(0, 2**32 - 1)


def draw(seed, n=14, d=5, n_classes=4):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)]
    return rng, rng.normal(size=(n, d)) * 10 ** rng.uniform(-2, 2), y, rng.normal(size=(6, d))


@settings(max_examples=25, deadline=None)
@given(seed=SUPPORT)
@pytest.mark.parametrize("name", ["prototypical", "matching"])
def test_any_order_and_chunking_equals_one_fit(name, seed):
    rng, x, y, queries = draw(seed)
    whole = FewShotClassifier(name).fit(x, y)
    order, cuts = rng.permutation(14), np.sort(rng.integers(1, 14, 3))
    grown = FewShotClassifier(name)
    for rows in np.split(order, cuts):
        if len(rows):
            grown.partial_fit(x[rows], y[rows])
    np.testing.assert_array_equal(grown.n_support_, whole.n_support_)
    if name == "prototypical":
        bound = 1e-12 * np.stack([np.abs(x[y == c]).sum(0) for c in range(4)])
        difference = grown.model_.statistics.sums["x"] - whole.model_.statistics.sums["x"]
        assert np.all(np.abs(difference.numpy()) <= bound)
    np.testing.assert_allclose(grown.predict_proba(queries), whole.predict_proba(queries), atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SUPPORT)
@pytest.mark.parametrize("name", ["prototypical", "matching"])
def test_the_verbs_never_contradict_each_other(name, seed):
    _, x, y, queries = draw(seed)
    for index in ("exact", "faiss"):
        model = FewShotClassifier(name, index=index).fit(x, y)
        answer, proba = model.predict(queries), model.predict_proba(queries)
        np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
        np.testing.assert_array_equal(answer, model.classes_[model.decision_function(queries).argmax(1)])
        assert np.all(proba[np.arange(6), answer] == proba.max(1))
        np.testing.assert_allclose(np.exp(model.predict_log_proba(queries)), proba, atol=1e-12)
        if name == "prototypical":
            np.testing.assert_array_equal(answer, model.nearest(queries)[0][:, 0])
        singles = np.concatenate([model.decision_function(q[None]) for q in queries])
        np.testing.assert_allclose(singles, model.decision_function(queries), rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SUPPORT)
def test_row_31_duplicating_all_support_leaves_prototypes(seed):
    _, x, y, queries = draw(seed)
    once = PrototypicalClassifier().fit(x, y).decision_function(queries)
    twice = PrototypicalClassifier().fit(np.r_[x, x], np.r_[y, y]).decision_function(queries)
    np.testing.assert_allclose(twice, once, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SUPPORT)
@pytest.mark.parametrize("name", ["prototypical", "matching"])
def test_renaming_the_classes_renames_the_answers(name, seed):
    rng, x, y, queries = draw(seed)
    names = rng.permutation(["d", "zz", "Ä", "b"])
    renamed = FewShotClassifier(name).fit(x, names[y]).predict(queries)
    np.testing.assert_array_equal(renamed, names[FewShotClassifier(name).fit(x, y).predict(queries)])


@settings(max_examples=25, deadline=None)
@given(seed=SUPPORT, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_moving_everything_leaves_distances_and_scaling_leaves_cosines(seed, shift, scale):
    _, x, y, queries = draw(seed)
    moved = PrototypicalClassifier().fit(x + shift, y).decision_function(queries + shift)
    plain = PrototypicalClassifier().fit(x, y).decision_function(queries)
    np.testing.assert_allclose(moved, plain, rtol=1e-8, atol=1e-7)
    scaled = MatchingClassifier().fit(x * scale, y).predict_proba(queries / scale)
    np.testing.assert_allclose(scaled, MatchingClassifier().fit(x, y).predict_proba(queries), rtol=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=SUPPORT)
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_the_fast_path_is_the_formula(index, seed):
    rng, x, y, queries = draw(seed)
    weight = rng.uniform(0.1, 3, len(y))
    prototypes = np.stack([np.average(x[y == c], axis=0, weights=weight[y == c]) for c in range(4)])
    model = PrototypicalClassifier(temperature=1.0, index=index).fit(x, y, weight)
    distances = ((queries[:, None] - prototypes) ** 2).sum(-1)
    np.testing.assert_allclose(model.decision_function(queries), -distances, rtol=1e-7)
    np.testing.assert_array_equal(model.nearest(queries, 4)[0], distances.argsort(1, kind="stable"))

    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, x)]
    attention = weight * np.exp(unit[0] @ unit[1].T / 0.1)
    expected = np.stack([attention[:, y == c].sum(1) for c in range(4)], 1) / attention.sum(1, keepdims=True)
    np.testing.assert_allclose(MatchingClassifier(index=index).fit(x, y, weight).predict_proba(queries), expected)


def test_two_classes_have_a_one_dimensional_decision():
    two = Y != "bee"
    model = PrototypicalClassifier().fit(X, two)
    decision = model.decision_function(QUERIES)
    assert decision.shape == (9,)
    np.testing.assert_array_equal(model.predict(QUERIES), decision > 0)
    three = PrototypicalClassifier().fit(X, two.astype(int)).predict_log_proba(QUERIES)
    np.testing.assert_allclose(decision, three[:, 1] - three[:, 0])


@pytest.mark.parametrize("index", ["exact", "faiss"])
@pytest.mark.parametrize("name", ["prototypical", "matching"])
def test_memory_is_bounded_whatever_the_number_of_queries(name, index, monkeypatch):
    """Nothing larger than a chunk is ever asked for: 1000 classes, 4000 queries, 50 dimensions."""
    for file in ("similarity", "snapshot"):
        monkeypatch.setattr(f"fewshot.search.{file}.CHUNK_BYTES", 2**20)
    sizes, rank = [], PreparedKeys.rank

    def watched(self, prepared):
        result = rank(self, prepared)
        sizes.append(max(result.numel(), self.keys.numel() if self.keys.dim() > 2 else 0) * 8)
        return result

    def candidates(x, rows, metric):
        sizes.append(rows.nbytes)
        return similarities(x, rows, metric)

    monkeypatch.setattr(PreparedKeys, "rank", watched)
    monkeypatch.setattr("fewshot.search.similarity.similarities", candidates)
    model, queries = FewShotClassifier(name, index=index), RNG.normal(size=(4000, 50)).astype(np.float32)
    model.fit(RNG.normal(size=(1000, 50)), np.arange(1000)).predict(queries)
    n_predict = len(sizes)
    model.nearest(queries, 3)
    assert 0 < n_predict < len(sizes)
    assert 0 < max(sizes) <= 2**20


def test_chunks_of_queries_do_not_change_the_answers(model, monkeypatch):
    whole = model.fit(X, Y).decision_function(QUERIES), model.nearest(QUERIES, 2)
    for file in ("similarity", "snapshot"):
        monkeypatch.setattr(f"fewshot.search.{file}.CHUNK_BYTES", 1)
    np.testing.assert_allclose(model.decision_function(QUERIES), whole[0], rtol=1e-12)
    np.testing.assert_array_equal(model.nearest(QUERIES, 2)[0], whole[1][0])


def test_threads_that_learn_at_once_lose_nothing(model):
    model.fit(X, Y)

    def learn(name):
        for i in range(30):
            model.partial_fit(X[i % 12 : i % 12 + 1] + 3.0, [name])

    together(*(lambda name=name: learn(name) for name in ("one", "two", "three")))
    known = dict(zip(model.classes_.tolist(), model.n_support_.tolist(), strict=True))
    assert known == {"ant": 4, "bee": 4, "owl": 4, "one": 30, "three": 30, "two": 30}


def test_parameters_that_are_set_while_it_learns_stay_set(model):
    def learn():
        for _ in range(20):
            model.fit(X, Y)

    def set_and_look():
        for i in range(100):
            model.set_params(reject=float(-i))
            assert model.reject == -i

    together(learn, set_and_look)
    assert model.reject == -99


def test_a_calibration_goes_with_the_model_that_it_was_made_for():
    model, others = PrototypicalClassifier(reject="auto").fit(X, Y), np.array([f"not {label}" for label in Y])

    def learn():
        for _ in range(10):
            model.fit(X, Y).calibrate(RNG.normal(size=(12, 6)), others, n_episodes=2)

    def ask():
        for _ in range(200):
            with suppress(ValueError):  # between fit and calibrate there is no threshold
                model.predict(QUERIES)

    together(learn, ask)
    view = model.view(reject=None)
    model.fit(QUERIES, ["x"] * 9)
    assert view.classes_.tolist() == ["ant", "bee", "owl"]
    assert (view.reject, model.reject, hasattr(view, "calibration_")) == (None, "auto", True)


BATCHES = (1, 2, 3, 5, 12)
VERBS = ("predict", "predict_proba", "predict_log_proba", "decision_function")
LEARNERS = (
    [learner() for learner in map(learner_class, list_learners()) if not learner.transductive and not learner.learned]
    + [PrototypicalLearner(metric, temperature=0.05) for metric in ("cosine", "dot")]
    + [MatchingLearner("sqeuclidean")]
)


def answers(model, queries, size):
    """Return what a classifier says of queries, asked `size` at a time."""
    verbs = [getattr(model, verb) for verb in VERBS]
    if model._learner_type().indexable:
        verbs += [lambda x: model.nearest(x, 2)[0], lambda x: model.nearest(x, 2)[1]]
    parts = [queries[start : start + size] for start in range(0, len(queries), size)]
    return [np.concatenate([verb(part) for part in parts]) for verb in verbs]


def make_steady(learner, steady, d=256):
    rng = np.random.default_rng(0)
    x, queries = (rng.normal(size=(n, d)).astype(np.float32) + np.float32(0.5) for n in (40, 12))
    x[20:22] = x[0]  # equal keys: which of them is first must not depend on the batch either
    model = FewShotClassifier(learner).fit(x, np.arange(40) % 20)
    model.steady = steady
    return model, queries


@pytest.mark.parametrize("learner", LEARNERS, ids=repr)
def test_a_steady_classifier_says_the_same_to_the_last_bit_in_any_batch(learner, monkeypatch):
    sum_in_other_orders(monkeypatch)
    model, queries = make_steady(learner, True)
    whole = answers(model, queries, len(queries))
    assert {found.dtype.str for found in whole} <= {"<f4", "<i8"}
    for size in BATCHES:
        for one, other in zip(answers(model, queries, size), whole, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("learner", LEARNERS, ids=repr)
def test_other_classifiers_say_nearly_the_same_in_any_batch(learner, monkeypatch):
    sum_in_other_orders(monkeypatch)
    (model, queries), (steady, _) = make_steady(learner, False), make_steady(learner, True)
    wanted = answers(steady, queries, len(queries))
    scale = 1e-6 * 256 * float(1 / learner.temperature)
    for size in BATCHES:
        for verb, one, other in zip(
            (*VERBS, "labels", "similarities"), answers(model, queries, size), wanted, strict=False
        ):
            if verb == "predict_proba":
                np.testing.assert_allclose(one, other, atol=scale)
            elif one.dtype.kind == "f":
                np.testing.assert_allclose(one, other, atol=scale, rtol=1e-5)


def test_the_order_of_a_sum_shows_where_nothing_is_done_about_it(monkeypatch):
    sum_in_other_orders(monkeypatch)
    model, queries = make_steady(PrototypicalLearner("cosine"), False)
    whole = model.decision_function(queries)
    assert any((answers(model, queries, size)[3] != whole).any() for size in BATCHES)


SCALED = [
    PrototypicalLearner(),
    PrototypicalLearner("cosine"),
    PrototypicalLearner("dot"),
    *(learner_class(name)() for name in ("simpleshot", "matching", "k-nearest", "lifelong", "ridge", "mahalanobis")),
]


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e-15, "f4"), (1e-22, "f4"), (1e-30, "f4"), (1e-40, "f4"), (1e-100, "f8"), (1e-160, "f8")]
)
@pytest.mark.parametrize("learner", SCALED, ids=repr)
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_row_13_tiny_embeddings_are_answered_as_larger_ones_are(learner, index, scale, dtype):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 6
    x, queries = rng.normal(size=(60, 16)) + y[:, None], rng.normal(size=(100, 16)) + np.arange(100)[:, None] % 6
    tiny, tiny_queries = ((scale * rows).astype(dtype) for rows in (x, queries))
    # To that scale the regularisation of some learners hides their support.
    x, queries = (1e-4 * rows.astype(float) / scale for rows in (tiny, tiny_queries))
    model = FewShotClassifier(learner, index=index if learner.indexable else "auto")
    expected = model.fit(x, y).predict(queries)
    assert (model.fit(tiny, y).predict(tiny_queries) == expected).mean() >= 0.98
    if learner.metric == "cosine":
        assert (model.predict(queries) == expected).mean() >= 0.98
        assert (model.fit(x, y).predict(tiny_queries) == expected).mean() >= 0.98


@pytest.mark.parametrize("value", [1e-170, 5e-324])
def test_row_13_what_vanishes_when_squared_is_refused(model, value):
    x = np.where(np.arange(12)[:, None] == 3, value, X)
    with pytest.raises(ValueError, match="row 3 of X has no value above .*; values below 1e-161 vanish when squared"):
        model.fit(x, Y)
    model.fit(X, Y)
    with pytest.raises(ValueError, match="row 0 of X has no value above"):
        model.predict(np.full((1, 6), value))
    zeros = np.zeros((1, 6))
    zeros[0, 0] = 1.0
    assert len(model.predict(zeros + value)) == 1


@pytest.mark.parametrize("learner", [PrototypicalLearner("cosine"), MatchingLearner()], ids=repr)
def test_an_index_that_is_set_later_acts_at_once(learner):
    rng = np.random.default_rng(0)
    x, queries = rng.normal(size=(600, 8)), rng.normal(size=(5, 8))
    model = FewShotClassifier(learner).fit(x, np.arange(600) % 300)
    exact = model.nearest(queries, 3)
    assert (model.predict_proba(queries) > 0).all()
    for index in ("faiss", "ivf", "hnsw"):
        other = FewShotClassifier(learner, index=index).fit(x, np.arange(600) % 300)
        model.set_params(index=index)
        np.testing.assert_array_equal(model.predict_proba(queries), other.predict_proba(queries))
        np.testing.assert_array_equal(model.nearest(queries, 3)[0], other.nearest(queries, 3)[0])
        assert (model.predict_proba(queries) > 0).all()  # also of classes that FAISS does not propose
        assert model.served(queries).snapshot is model.served(queries).snapshot  # the index is built once
    pickled = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(pickled.predict_proba(queries), model.predict_proba(queries))
    model.set_params(index="auto")
    np.testing.assert_array_equal(model.nearest(queries, 3)[1], exact[1])
    with pytest.raises(ValueError, match="no index is called 'flat'"):
        model.set_params(index="flat").predict(queries)


def test_threads_that_ask_after_an_index_is_set_build_it_once(monkeypatch):
    built, build = [], Approximate.build
    monkeypatch.setattr(Approximate, "build", lambda *a: built.append(a[0]) or build(*a))
    x = np.random.default_rng(0).normal(size=(500, 8))
    model = PrototypicalClassifier().fit(x, np.arange(500))
    model.predict(x[:3])
    model.set_params(index="hnsw")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: model.predict(x[:50]).tolist(), range(16)))
    assert answers == [list(range(50))] * 16
    assert len(built) == 1


def test_parameters_of_the_learner_act_at_the_next_fit_and_are_refused_before():
    model = PrototypicalClassifier(temperature=1.0).fit(X, Y)
    before = model.decision_function(QUERIES)
    model.set_params(temperature=0.5)
    np.testing.assert_array_equal(model.decision_function(QUERIES), before)
    with pytest.raises(ValueError, match="cannot continue what"):
        model.partial_fit(X, Y)
    np.testing.assert_allclose(model.fit(X, Y).decision_function(QUERIES), 2 * before)


RAW = RNG.gamma(1.0, 10.0, (3, 20)).repeat(8, 0) + RNG.gamma(1.0, 9.0, (24, 20))


@pytest.mark.parametrize("kind", [PrototypicalClassifier, MultiPrototypicalClassifier])
def test_probabilities_do_not_depend_on_the_scale_of_the_embeddings(kind):
    y = np.repeat(["a", "b", "c"], 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [kind().fit(s * RAW[::2], y[::2]) for s in (1, 1e3)]
        papers = kind(temperature=1.0).fit(RAW[::2] / 100, y[::2])
    probabilities = found[0].predict_proba(RAW[1::2])
    np.testing.assert_allclose(probabilities, found[1].predict_proba(1e3 * RAW[1::2]), rtol=1e-6)
    assert probabilities.max(1).mean() < 0.999
    assert (probabilities.argmax(1) == papers.predict_proba(RAW[1::2] / 100).argmax(1)).all()


@pytest.mark.parametrize(
    "learner",
    [PrototypicalLearner(), SimpleShotLearner("UN"), MatchingLearner("sqeuclidean"), KNearestLearner(3, "dot")],
    ids=lambda learner: learner.name,
)
def test_a_temperature_far_below_the_scale_is_said_with_the_cure(learner):
    y = np.repeat(["a", "b", "c"], 8)
    with pytest.warns(UserWarning, match=r"is low for these embeddings, which \d.* would suit.*temperature=None"):
        model = FewShotClassifier(learner).fit(RAW, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(RAW[:1], ["a"])
        FewShotClassifier(learner.set_params(temperature=None)).fit(RAW, y)


def test_a_temperature_of_the_support_is_read_from_all_of_it():
    y = np.repeat(["a", "b", "c"], 8)
    whole, grown = PrototypicalClassifier().fit(RAW, y), PrototypicalClassifier().fit(RAW[:9], y[:9])
    grown.partial_fit(RAW[9:], y[9:])
    np.testing.assert_allclose(whole.predict_proba(RAW), grown.predict_proba(RAW), rtol=1e-12)
    learner = PrototypicalLearner(temperature=None)
    assert repr(learner) == "PrototypicalLearner(metric='sqeuclidean', temperature=None)"
    assert learner.description == "prototypical, sqeuclidean, temperature of the support"
    assert build_learner(describe_learner(learner), {}).get_params()["temperature"] is None
    with pytest.raises(ValueError, match="the support determines it; here, give a number"):
        PrototypicalLearner(temperature=None, learn_temperature=True)


def test_a_similarity_that_looks_like_a_rate_is_answered_with_a_warning():
    x = np.random.default_rng(0).normal(size=(6, 4)) + 3
    model = DiscriminantClassifier(reject=0.05).fit(x, ["a", "a", "a", "b", "b", "b"])
    with pytest.warns(UserWarning, match="reject is 0.05, a similarity, which nearly every query exceeds.*reject='5%'"):
        model.predict(x)


def test_a_similarity_that_not_even_learned_items_have_is_answered_with_a_warning():
    y = np.repeat(list("abcd"), 10)
    x = np.random.default_rng(0).normal(size=(40, 30)) + 3 * np.eye(4, 30).repeat(10, 0)
    model = DiscriminantClassifier().fit(x, y)
    own = np.sort(model.nearest(x, k=1)[1].ravel())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(reject=float(own[20])).predict(x)
    model.set_params(reject=float(own[-2]))  # as somebody may write a probability
    with pytest.warns(UserWarning, match="a similarity, not a probability, and 9. % of the learned .* reject='5%'"):
        assert (model.predict(x) == "unknown").mean() > 0.9


@pytest.mark.parametrize("reject", [3.0, 0.1])
def test_a_score_of_the_learners_own_has_no_range_to_warn_of(reject):
    class Scored(PrototypicalLearner):
        def closeness(self, logits, similarity):
            return 3 + super().closeness(logits, similarity)

    model = FewShotClassifier(Scored("sqeuclidean"), reject=reject).fit([[0.0], [1.0]], ["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict([[0.0], [9.0]]).tolist() == ["a", "unknown"]
    with pytest.warns(UserWarning, match="a similarity"):
        model.set_params(learner=PrototypicalLearner("sqeuclidean")).fit([[0.0], [1.0]], ["a", "b"]).predict([[0.0]])


@pytest.mark.parametrize("index", ["auto", "faiss"])
@pytest.mark.parametrize("learner", ["discriminant", "prototypical", "matching", "mahalanobis", "pt-map"])
def test_labels_and_probabilities_in_one_pass_are_those_of_two(learner, index):
    if learner == "pt-map":
        model = TransductiveClassifier(learner).fit(X, Y)
    else:
        model = FewShotClassifier(learner, on_error="unknown", index=index).fit(X, Y)
    others = np.random.default_rng(1).normal(size=(40, 6)) + np.repeat(3 * np.eye(6)[:4], 10, 0)
    model.calibrate(others, [*"abcd"] * 10, n_episodes=20)
    for reject, dtype in product((None, 0.6, "balanced"), (np.float32, np.float64)):
        model.set_params(reject=reject)
        queries = QUERIES.astype(dtype)
        if learner in ("discriminant", "prototypical", "matching"):
            assert model.served(queries).compares_all == (index == "auto")
        if learner != "pt-map":
            queries[3] = np.nan
        labels, proba = model.predict_with_proba(queries)
        assert labels.tolist() == model.predict(queries).tolist()
        np.testing.assert_array_equal(proba, model.predict_proba(queries))
        assert proba.dtype == model.predict_proba(queries).dtype
        assert model.predict_with_proba(queries[:0])[1].shape == (0, 3)


def test_two_passes_of_a_model_of_many_classes_are_joined():
    keys = RNG.normal(size=(3000, 6))
    model = PrototypicalClassifier("cosine", reject=0.9).fit(keys, np.arange(3000))
    assert not model.served(QUERIES).compares_all
    labels, proba = model.predict_with_proba(QUERIES)
    assert labels.tolist() == model.predict(QUERIES).tolist()
    np.testing.assert_array_equal(proba, model.predict_proba(QUERIES))
