"""The classifier of any learner: names, trained learners, and learners whose score is their own."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from fewshot import (
    DiscriminantClassifier,
    FewShotClassifier,
    MatchingLearner,
    PrototypicalClassifier,
    PrototypicalLearner,
)
from fewshot.learners.memory import Memory

RNG = np.random.default_rng(0)
X, QUERIES = RNG.normal(size=(12, 4)), RNG.normal(size=(7, 4))
Y = np.array(["ant", "bee", "owl"] * 4)


class OwnScore(PrototypicalLearner):
    """Scores by something that no index knows: a learned weight for each dimension."""

    indexable = False

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 0.5, 0.0]))

    def score(self, memory: Memory, queries):
        difference = (queries.unsqueeze(-2) - memory.keys.unsqueeze(-3)) * self.scale
        return torch.where(torch.isfinite(memory.log_weight), -difference.square().sum(-1), -torch.inf)


def test_without_a_learner_it_is_the_default_one():
    np.testing.assert_allclose(
        FewShotClassifier().fit(X, Y).predict_proba(QUERIES), DiscriminantClassifier().fit(X, Y).predict_proba(QUERIES)
    )


def test_a_learner_with_its_parameters_is_used_as_it_is():
    learner = MatchingLearner(temperature=0.5, learn_temperature=True)
    with torch.no_grad():
        learner.log_temperature.fill_(0.0)
    model = FewShotClassifier(learner).fit(X, Y)
    logits = learner(
        torch.from_numpy(X).double(),
        torch.from_numpy(np.unique(Y, return_inverse=True)[1]),
        torch.from_numpy(QUERIES),
        3,
    )
    np.testing.assert_allclose(model.decision_function(QUERIES), logits.detach().numpy(), rtol=1e-6)


def test_training_a_learner_further_does_not_change_a_fitted_classifier():
    learner = MatchingLearner(learn_temperature=True)
    model = FewShotClassifier(learner).fit(X, Y)
    before = model.predict_proba(QUERIES)
    with torch.no_grad():
        learner.log_temperature.fill_(3.0)
    np.testing.assert_array_equal(model.predict_proba(QUERIES), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_learner_with_a_score_of_its_own_answers_but_has_no_nearest(dtype):
    model = FewShotClassifier(OwnScore()).fit(X.astype(dtype), Y)
    prototypes = np.stack([X[c == Y].mean(0) for c in model.classes_])
    expected = -(((QUERIES[:, None] - prototypes) * [1, 2, 0.5, 0]) ** 2).sum(-1)
    np.testing.assert_allclose(model.decision_function(QUERIES.astype(dtype)), expected, rtol=1e-4)
    assert not hasattr(model, "nearest")
    model.partial_fit(X[:1], ["cat"], classes=["cat", "dog"])
    assert "dog" not in model.predict(QUERIES)


def test_it_clones():
    model = FewShotClassifier(MatchingLearner(temperature=0.3), index="exact")
    assert clone(model).learner.temperature == pytest.approx(0.3)
    assert clone(FewShotClassifier("matching")).learner == "matching"


@pytest.mark.parametrize("learner", [PrototypicalLearner, None, 3])
def test_what_is_no_learner_is_named_at_fit(learner):
    with pytest.raises(TypeError, match=r"learner is .*; expected a registered name or a Learner, such as"):
        FewShotClassifier(learner).fit(X, Y)


def test_an_unknown_name_is_named_at_fit():
    with pytest.raises(ValueError, match="no learner is called 'protypical'; did you mean 'prototypical'"):
        FewShotClassifier("protypical").fit(X, Y)


def test_what_was_learned_does_not_go_on_under_another_metric_or_temperature():
    model = PrototypicalClassifier().fit(X, Y)
    for parameters in ({"metric": "cosine"}, {"temperature": 2.0}):
        changed = clone(model).fit(X, Y).set_params(**parameters)
        with pytest.raises(ValueError, match="cannot continue what .*; call fit to start again"):
            changed.partial_fit(X, Y)
        assert changed.fit(X, Y).partial_fit(X, Y).n_support_.sum() == 24


def test_a_transductive_learner_is_refused():
    class Transductive(PrototypicalLearner):
        transductive = True

    with pytest.raises(TypeError, match="Transductive is transductive; use TransductiveClassifier"):
        FewShotClassifier(Transductive()).fit(X, Y)


def test_large_integers_survive_a_later_call_with_floats():
    model = PrototypicalClassifier().fit(X[:2], [2**53, 2**53 + 1]).partial_fit(X[2:3], [7.0])
    assert model.classes_.tolist() == [7, 2**53, 2**53 + 1]
    assert model.n_support_.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda logits: logits.T,
            r"score\(\) of Wrong returned shape \(2, 3\); expected logits .*, here \(..., 3, 2\)",
        ),
        (lambda logits: logits[:, 0], r"score\(\) of Wrong returned shape \(3,\)"),
        (lambda logits: logits * torch.nan, "gave logits of NaN, which are no answer"),
    ],
)
def test_logits_that_are_no_answer_are_refused_as_evaluate_refuses_them(answer, message):
    class Wrong(PrototypicalLearner):
        indexable = False

        def score(self, memory, queries):
            return answer(super().score(memory, queries))

    model = FewShotClassifier(Wrong()).fit([[0.0], [1.0], [5.0]], ["a", "a", "b"])
    X, y = [[0.0], [1.0], [5.0]], ["a", "a", "b"]
    asked = (model.predict, model.predict_proba, model.decision_function)
    for ask in (*(partial(ask, X) for ask in asked), partial(model.calibrate, X * 4, y * 4)):
        with pytest.raises(ValueError, match=message if ask.func != model.calibrate else "logits"):
            ask()


@pytest.mark.parametrize(("hook", "kind"), [("collect", "Statistics"), ("memorize", "Memory"), ("score", "Tensor")])
def test_a_hook_that_returns_something_else_is_told(hook, kind):
    def wrong(self, *_):
        return np.zeros((2, 2))

    learner = type("Wrong", (PrototypicalLearner,), {hook: wrong, "indexable": False})()
    model, X = FewShotClassifier(learner), [[0.0], [5.0]]
    with pytest.raises(TypeError, match=rf"{hook}\(\) of Wrong returned a ndarray; expected a {kind}"):
        model.fit(X, ["a", "b"]).predict(X)
