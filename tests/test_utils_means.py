"""The centre and the temperature of class means, by their definitions, in numpy and torch."""

import numpy as np
import pytest
import torch

from fewshot.utils.means import FRACTIONS, middle, suitable_temperature

MEANS = np.random.default_rng(0).normal(size=(6, 5)) + 3
COUNT = np.array([1.0, 4.0, 0.0, 2.0, 1.0, 0.0])
MEANS[COUNT == 0] = 0
PRESENT = MEANS[COUNT > 0]


def test_the_middle_is_the_mean_of_the_present_means():
    np.testing.assert_allclose(middle(MEANS, COUNT, np), PRESENT.mean(0))
    assert not middle(MEANS[:1], COUNT[:1], np).any()


@pytest.mark.parametrize("metric", FRACTIONS)
def test_the_temperature_is_a_fraction_of_the_spread(metric):
    rows = PRESENT / np.linalg.norm(PRESENT, axis=1, keepdims=True) if metric == "cosine" else PRESENT
    squares = ((rows[:, None] - rows) ** 2).sum(-1)
    expected = FRACTIONS[metric] * squares[np.triu_indices(len(rows), 1)].mean() / 2
    assert suitable_temperature(MEANS, COUNT, metric, np) == pytest.approx(expected)
    batch = torch.from_numpy(np.stack([MEANS, 2 * MEANS]))
    found = suitable_temperature(batch, torch.from_numpy(COUNT).expand(2, 6), metric, torch)
    factor = 1 if metric == "cosine" else 4
    torch.testing.assert_close(found, torch.tensor([expected, factor * expected]).double())


@pytest.mark.parametrize("metric", FRACTIONS)
@pytest.mark.parametrize("means", [np.zeros((3, 2)), np.ones((3, 2)) / 3, np.ones((1, 2))])
def test_without_spread_it_is_1(metric, means):
    assert suitable_temperature(means, np.ones(len(means)), metric, np) == 1
