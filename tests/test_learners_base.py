"""What every learner inherits: its checks of what it is given."""

import pytest
import torch

from fewshot import Learner, MatchingLearner, PrototypicalLearner


@pytest.mark.parametrize("weight", [[1.0, -1.0], [1.0, torch.nan]])
def test_weights_that_are_no_weights_are_refused(weight):
    with pytest.raises(ValueError, match="a weight is negative or NaN"):
        PrototypicalLearner()(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(1, 3), 2, torch.tensor(weight))


def test_queries_of_another_length_are_refused():
    with pytest.raises(ValueError, match="queries have 4 dimensions and keys 3"):
        MatchingLearner()(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(1, 4), 2)


def test_a_score_that_an_index_would_pass_over_is_refused_at_once():
    with pytest.raises(TypeError, match="has a score of its own, .* set indexable = False"):
        type("Own", (Learner,), {"score": lambda self, memory, queries: queries})


def test_a_temperature_that_is_none_is_refused():
    for temperature in ("1", 0, 1e-60, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="temperature is .*; it divides the similarities"):
            MatchingLearner(temperature=temperature)


def test_hooks_that_are_not_filled_in_say_so():
    class Empty(Learner):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not say what it keeps; define collect"):
        Empty()(torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 2), 1)


def test_a_learned_temperature_is_a_positive_parameter():
    learner = PrototypicalLearner(temperature=0.25, learn_temperature=True)
    assert learner.temperature.item() == pytest.approx(0.25)
    assert [name for name, _ in learner.named_parameters()] == ["log_temperature"]
    assert not list(PrototypicalLearner(temperature=0.25).parameters())
    assert "metric='sqeuclidean', temperature=0.25" in repr(learner)
