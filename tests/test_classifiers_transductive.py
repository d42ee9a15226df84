"""The classifier of transductive learners: the queries of one call are answered together."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score

import fewshot.classifiers.fitted
from fewshot import (
    BDCSPNLearner,
    FewShotClassifier,
    PrototypicalClassifier,
    PrototypicalLearner,
    PTMAPLearner,
    SoftKMeansLearner,
    TransductiveClassifier,
)

RNG = np.random.default_rng(0)
X, QUERIES = RNG.normal(size=(11, 4)), RNG.normal(size=(7, 4))
Y = np.array(["owl", "ant", "bee", "bee"] * 2 + ["ant", "owl", "ant"])
NAMES = ["soft-k-means", "bd-cspn", "laplacian-shot", "oslo", "pt-map", "paddle", "alpha-tim", "bpa"]
each_learner = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("learner", [PTMAPLearner("support"), SoftKMeansLearner("cosine", 0.2), BDCSPNLearner(3.0)])
def test_its_logits_are_those_of_the_learner_on_the_whole_call(learner):
    model = TransductiveClassifier(learner).fit(X, Y)
    codes = torch.from_numpy(np.unique(Y, return_inverse=True)[1])
    logits = learner(torch.from_numpy(X), codes, torch.from_numpy(QUERIES), 3)
    np.testing.assert_allclose(model.decision_function(QUERIES), logits.numpy(), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(QUERIES), logits.softmax(-1).numpy(), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(QUERIES), model.classes_[logits.argmax(-1)])


@each_learner
def test_a_call_is_not_cut_into_parts(name, monkeypatch):
    model = TransductiveClassifier(name).fit(X, Y)
    whole = model.decision_function(QUERIES)
    parts = np.concatenate([model.decision_function(QUERIES[:3]), model.decision_function(QUERIES[3:])])
    assert not np.allclose(parts, whole)
    monkeypatch.setattr(fewshot.classifiers.fitted, "CHUNK_BYTES", 8)
    np.testing.assert_array_equal(model.decision_function(QUERIES), whole)


@pytest.mark.parametrize("name", ["bd-cspn", "laplacian-shot", "pt-map"])
@pytest.mark.parametrize("n_shot", [1, 5])
def test_one_query_queries_of_one_class_and_uneven_ones_are_answered_as_well_as_each_by_itself(name, n_shot):
    """On handwritten digits, against the nearest prototype of the same embeddings."""
    x, y = load_digits(return_X_y=True)
    rng, gains = np.random.default_rng(0), {"one": [], "class": [], "ten": [], "uneven": []}
    for _ in range(60):
        rows = [rng.permutation(np.flatnonzero(y == c)) for c in rng.permutation(10)[:5]]
        support, classes = np.concatenate([some[:n_shot] for some in rows]), np.repeat(np.arange(5), n_shot)
        rest, first = [some[n_shot:] for some in rows], int(rng.integers(5))
        together = TransductiveClassifier(name).fit(x[support], classes)
        alone = PrototypicalClassifier("cosine").fit(x[support], classes)
        for what, counts in {
            "one": np.eye(5, dtype=int)[first],
            "class": 15 * np.eye(5, dtype=int)[first],
            "ten": np.bincount(rng.integers(0, 5, 10), minlength=5),
            "uneven": rng.multinomial(75, rng.dirichlet(np.full(5, 2.0))),
        }.items():
            asked = np.concatenate([some[:n] for some, n in zip(rest, counts, strict=True)])
            true = np.repeat(np.arange(5), counts)
            gains[what].append(together.score(x[asked], true) - alone.score(x[asked], true))
    for what, some in gains.items():
        assert np.mean(some) > -1.96 * np.std(some) / len(some) ** 0.5 - 0.01, (what, np.mean(some))


@each_learner
def test_answers_do_not_depend_on_what_was_asked_before(name):
    model = TransductiveClassifier(name).fit(X, Y)
    first = model.predict_proba(QUERIES)
    model.predict(QUERIES[:3] * 5 - 2)
    np.testing.assert_array_equal(model.predict_proba(QUERIES), first)


@each_learner
def test_no_query_has_no_answer(name):
    model = TransductiveClassifier(name).fit(X, Y)
    for rejecting in (model, clone(model).set_params(reject=0.5).fit(X, Y)):
        assert rejecting.predict(np.empty((0, 4))).shape == (0,)
        assert rejecting.predict(np.empty((0, 4))).dtype.kind == "U"
    assert model.predict_proba(np.empty((0, 4))).shape == (0, 3)


@pytest.mark.parametrize("learner", [PrototypicalLearner(), "prototypical"])
def test_an_inductive_learner_is_refused(learner):
    for method in ("fit", "partial_fit"):
        model = TransductiveClassifier(learner)
        with pytest.raises(TypeError, match="PrototypicalLearner is not transductive; use FewShotClassifier"):
            getattr(model, method)(X, Y)
        assert not hasattr(model, "model_")


@each_learner
def test_the_inductive_classifier_refuses_it(name):
    with pytest.raises(TypeError, match=r"Learner is transductive; use TransductiveClassifier"):
        FewShotClassifier(name).fit(X, Y)


@each_learner
def test_it_grows_forgets_and_is_pickled(name):
    whole, grown = TransductiveClassifier(name).fit(X, Y), TransductiveClassifier(name)
    for rows in ([9, 0], [1, 2, 3, 4, 5], [6, 7, 8, 10]):
        grown.partial_fit(X[rows], Y[rows])
    expected = whole.decision_function(QUERIES)
    np.testing.assert_allclose(grown.decision_function(QUERIES), expected, rtol=1e-9)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(whole)).decision_function(QUERIES), expected)
    less = TransductiveClassifier(name).fit(X[3:], Y[3:])
    np.testing.assert_allclose(
        whole.remove(X[:3], Y[:3]).decision_function(QUERIES), less.decision_function(QUERIES), rtol=1e-9
    )


def test_a_class_that_was_only_announced_is_never_the_answer_and_a_closed_set_stays_closed():
    model = TransductiveClassifier("pt-map", closed_set=True).partial_fit(X, Y, classes=["ant", "bee", "cat", "owl"])
    assert "cat" not in model.predict(QUERIES)
    np.testing.assert_array_equal(model.predict_proba(QUERIES)[:, 2], 0)
    with pytest.raises(ValueError, match=r"new classes \['dog'\], but closed_set=True"):
        model.partial_fit(X[:1], ["dog"])


def test_what_is_not_close_is_unknown():
    model = TransductiveClassifier(SoftKMeansLearner(temperature=2.0, n_iterations=0), reject=-1.5).fit([[0.0]], ["a"])
    assert model.predict([[1.0], [2.0]]).tolist() == ["a", "unknown"]


@each_learner
def test_it_works_in_cross_validation(name):
    rng = np.random.default_rng(1)
    y = np.arange(60) % 3
    centres = 4 * np.eye(5)[:3] + 1
    scores = cross_val_score(TransductiveClassifier(name), centres[y] + rng.normal(size=(60, 5)), y, cv=4)
    assert scores.shape == (4,)
    assert scores.mean() > 0.9


def open_world(seed):
    """Support, held-out rows and their classes, and queries of the known and of other classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(20).repeat(20)
    x = 1.5 * rng.normal(size=(20, 30))[y] + rng.normal(size=(400, 30))
    first = np.arange(400) % 20 < 2
    known, spare, new = y < 5, (y >= 5) & (y < 11), y >= 11
    return (x[known & first], y[known & first]), (x[spare], y[spare]), x[known & ~first], x[new]


@pytest.mark.parametrize("name", ["oslo", "soft-k-means"])
def test_the_rate_of_false_accepts_holds_whatever_share_of_the_queries_is_unknown(name):
    rates, lost = [], []
    for seed in range(8):
        support, spare, known, new = open_world(seed)
        model = TransductiveClassifier(name, reject="10%").fit(*support).calibrate(*spare, n_episodes=2)
        for n_known, n_new in ((90, 180), (90, 9), (9, 180), (0, 180), (90, 0), (1, 1)):
            refused = model.predict(np.concatenate([known[:n_known], new[:n_new]])) == -1
            rates.append((~refused[n_known:]).mean() if n_new else np.nan)
            lost.append(refused[:n_known].mean() if n_known else np.nan)
        low, high = model.rejection().false_accept_interval
        assert low <= 0.1 <= high
    assert np.nanmean(np.reshape(rates, (8, 6))[:, :4], 0) == pytest.approx([0.1] * 4, abs=0.12)
    assert np.nanmean(lost) < 0.6


def test_what_a_rule_means_to_queries_that_come_together():
    support, spare, known, new = open_world(0)
    model = TransductiveClassifier("oslo", reject="balanced").fit(*support)
    with pytest.raises(ValueError, match="needs a threshold; call calibrate"):
        model.predict(known)
    queries = np.concatenate([known, new])
    refused = model.calibrate(*spare, n_episodes=2).predict(queries) == -1
    assert refused[: len(known)].mean() < 0.4 < refused[len(known) :].mean()
    costs = model.rejection("20%")
    assert costs.false_accept_rate <= 0.2 + 1e-9
    assert 0 <= costs.false_reject_rate <= 1
    # a number is compared with the scores of the call alone
    by_score = model.set_params(reject=0.0).predict(queries) == -1
    np.testing.assert_array_equal(by_score, model.model_.classify(queries)[1] < 0)


@pytest.mark.parametrize("call", ["predict", "predict_proba", "predict_log_proba", "decision_function", "predict_top"])
def test_a_call_with_too_few_queries_warns_once(call):
    rng = np.random.default_rng(0)
    model = TransductiveClassifier("bd-cspn").fit(rng.normal(size=(6, 8)), list("aabbcc"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        how = {"k": 2} if call == "predict_top" else {}
        getattr(model, call)(rng.normal(size=(9, 8)), **how)
        getattr(model, call)(np.empty((0, 8)), **how)
        assert not caught
        getattr(model, call)(rng.normal(size=(1, 8)), **how)
        getattr(model, call)(rng.normal(size=(8, 8)), **how)
    assert [str(one.message).split(";")[0] for one in caught] == [
        "too few queries to help each other, 1 for 3 classes",
        "too few queries to help each other, 8 for 3 classes",
    ]
    assert "ask 9 or more in one call, or use an inductive learner, such as 'discriminant'" in str(caught[0].message)
    assert caught[0].filename == __file__
