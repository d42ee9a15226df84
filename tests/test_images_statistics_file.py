import numpy as np
import pytest
import torch

from fewshot.images.statistics_file import read_statistics, statistics_to_tensors
from fewshot.learners.registry import ready_learner


def learned(name):
    learner = ready_learner(name).double()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4)))
    return learner, learner.learn(x, torch.tensor([0, 1, 0, 1, 2, 2], device="cpu"), 3)


@pytest.mark.parametrize("name", ["prototypical", "matching", "discriminant", "ridge", "lifelong"])
def test_statistics_are_read_as_they_were(name):
    learner, statistics = learned(name)
    tensors = statistics_to_tensors(statistics)
    again = statistics_to_tensors(read_statistics(tensors, learner, np.array([2, 2, 2])))
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], value) for key, value in tensors.items())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t | {"count": t["count"] * np.nan}, "is not finite"),
        (lambda t: t | {"count": t["count"] + 1}, "those of n_support"),
        (lambda t: t | {"support.labels": t["support.labels"] + 9}, "of the 3 classes"),
        (lambda t: t | {"more": t["count"]}, "not that of its learner: more"),
        (lambda t: t | {"support.x": t["support.x"] * 1e200}, "overflows when squared"),
    ],
)
def test_what_no_learner_makes_is_refused(change, why):
    learner, statistics = learned("discriminant")
    with pytest.raises(ValueError, match=why):
        read_statistics(change(statistics_to_tensors(statistics)), learner, np.array([2, 2, 2]))
