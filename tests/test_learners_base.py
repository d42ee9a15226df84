"""What every learner inherits: its checks of what it is given."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from fewshot import FewShotClassifier, Learner, MatchingLearner, PrototypicalLearner, RelationLearner, list_learners
from fewshot.learners.base import LATER, SumLearner, SupportLearner
from fewshot.learners.registry import as_learner, learner_class


@pytest.mark.parametrize("weight", [[1.0, -1.0], [1.0, torch.nan]])
def test_weights_that_are_no_weights_are_refused(weight):
    with pytest.raises(ValueError, match="a weight is negative or NaN"):
        PrototypicalLearner()(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(1, 3), 2, torch.tensor(weight))


def test_queries_of_another_length_are_refused():
    with pytest.raises(ValueError, match="queries have 4 dimensions and keys 3"):
        MatchingLearner()(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(1, 4), 2)


def test_a_score_that_an_index_would_pass_over_is_refused_at_once():
    with pytest.raises(TypeError, match="Own overrides score, .* set indexable = False"):
        type("Own", (Learner,), {"score": lambda self, memory, queries: queries})


def test_a_temperature_that_is_none_is_refused():
    for temperature in ("1", 0, 1e-60, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="temperature is .*; it divides the similarities"):
            MatchingLearner(temperature=temperature)


def test_hooks_that_are_not_filled_in_say_so():
    class Empty(Learner):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no collect\(\); define it"):
        Empty()(torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 2), 1)


@pytest.mark.parametrize(
    ("name", "hook", "message"),
    [
        (
            "score",
            lambda self, memory, queries: torch.zeros(len(queries), 7),
            r"score\(\) of Own returned shape \(1, 7\)",
        ),
        (
            "score",
            lambda self, memory, queries: torch.zeros(3),
            r"expected logits \(..., q, n_way\), here \(..., 1, 2\)",
        ),
        ("transform", lambda self, x: x.mean(-2, keepdim=True), r"transform\(\) of Own .* \(1, 3\) for \(2, 3\)"),
        ("memorize", lambda self, statistics: statistics.means, "memory is a Tensor; .* Memory.of_prototypes"),
    ],
)
def test_what_a_hook_returns_is_checked(name, hook, message):
    own = type("Own", (SumLearner,), {"indexable": False, name: hook})
    with pytest.raises((TypeError, ValueError), match=message):
        own()(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(1, 3), 2)


def test_a_constructor_that_leaves_out_that_of_the_base_class_is_named():
    own = type("Own", (SumLearner,), {"__init__": lambda self: None})
    with pytest.raises(TypeError, match=r"__init__ of Own does not begin with super\(\).__init__"):
        as_learner(own())


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match=r"labels are of type torch.float32; expected integers in 0..1"):
        PrototypicalLearner()(torch.ones(2, 3), torch.tensor([0.0, 1.0]), torch.ones(1, 3), 2)


def test_queries_on_another_device_are_refused():
    learner = PrototypicalLearner()
    memory = learner.memorize(learner.learn(torch.ones(2, 3), torch.tensor([0, 1]), 2))
    with pytest.raises(ValueError, match="queries are on meta and keys on cpu; move one of the two"):
        learner.answer(memory, torch.ones(1, 3, device="meta"))


def test_arrays_of_numpy_are_refused_by_name():
    support, labels = torch.ones(2, 3), torch.tensor([0, 1])
    for name in ("support", "labels", "queries"):
        given = {"support": support, "labels": labels, "queries": support}
        given[name] = given[name].numpy()
        with pytest.raises(TypeError, match=rf"{name} is a ndarray; expected a tensor, .* torch.as_tensor\({name}\)"):
            PrototypicalLearner()(**given, n_way=2)


def test_a_single_query_needs_its_dimension():
    with pytest.raises(ValueError, match=r"queries have shape \(3,\); expected .* queries\[None\] for one"):
        PrototypicalLearner()(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(3), 2)


def test_a_learned_temperature_is_a_positive_parameter():
    learner = PrototypicalLearner(temperature=0.25, learn_temperature=True)
    assert learner.temperature.item() == pytest.approx(0.25)
    assert [name for name, _ in learner.named_parameters()] == ["log_temperature"]
    assert not list(PrototypicalLearner(temperature=0.25).parameters())
    assert "metric='sqeuclidean', temperature=0.25" in repr(learner)


BUILT_IN = [name for name in list_learners() if learner_class(name).__module__.startswith("fewshot.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_its_arguments_are_those_that_scikit_learn_sees_and_sets(name):
    learner = learner_class(name)()
    arguments = learner.get_params()
    saved = {argument: value for argument, value in arguments.items() if argument not in LATER or value}
    assert learner.arguments() == saved  # without what earlier versions do not know
    changed = {"temperature": 0.5} if "temperature" in arguments else {"n_iterations": 3}
    assert learner.set_params(**changed) is learner
    assert learner.get_params() == {**arguments, **changed}
    for wrong in ({"shots": 2}, dict.fromkeys(changed, -1)):
        with pytest.raises(ValueError, match=f"has no parameter 'shots'|{next(iter(changed))} is -1"):
            learner.set_params(**wrong)
        assert learner.get_params() == {**arguments, **changed}


def test_a_copy_keeps_trained_weights_which_other_arguments_would_not_fit():
    learner = RelationLearner().sized(4, seed=3)
    weights = clone(FewShotClassifier(learner)).learner.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in learner.state_dict().items())
    with pytest.raises(ValueError, match="the weights of this RelationLearner were trained with its parameters"):
        learner.set_params(temperature=2.0)


def test_a_grid_search_reaches_the_arguments_of_a_learner():
    X, y = np.tile(np.eye(2), (4, 1)), [0, 1] * 4
    classifier, learner = FewShotClassifier(PrototypicalLearner("cosine")), PrototypicalLearner("cosine")
    found = GridSearchCV(classifier, {"learner__temperature": [0.1, 1.0]}, cv=2, scoring="neg_log_loss").fit(X, y)
    assert found.best_params_ == {"learner__temperature": 0.1}
    assert found.best_estimator_.model_.learner.temperature.item() == pytest.approx(0.1)
    assert classifier.learner.is_like(learner)  # the one that was given is left as it was
    fitted = classifier.fit(X, y).set_params(learner__metric="dot")
    with pytest.raises(ValueError, match="cannot continue what"):
        fitted.partial_fit(X, y)


X, LABELS = torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 1])


def test_a_sum_learner_keeps_sums_and_answers_from_means():
    learner = SumLearner()
    statistics = learner.learn(X, LABELS, 3)
    assert statistics.sums["x"].tolist() == [[4.0], [8.0], [0.0]]
    assert not statistics.support
    memory = learner.memorize(statistics)
    assert memory.one_key_per_class
    assert memory.keys[:2].tolist() == [[2.0], [8.0]]
    assert memory.log_weight.tolist() == [0.0, 0.0, float("-inf")]


def test_a_support_learner_keeps_the_support_and_answers_from_it():
    learner = SupportLearner()
    statistics = learner.learn(X, LABELS, 3, torch.tensor([1.0, 0.0, 1.0]))
    assert not statistics.sums
    memory = learner.memorize(statistics)
    assert memory.labels.tolist() == LABELS.tolist()
    assert memory.keys[[0, 2]].tolist() == [[1.0], [8.0]]
    assert memory.log_weight.tolist() == [0.0, float("-inf"), 0.0]
