"""The learning curve, measured on parts of the support."""

import numpy as np
import pytest
import torch

from fewshot import DiscriminantLearner, PrototypicalLearner
from fewshot.images import curve
from fewshot.images.curve import USUAL_SLOPE, Point, measure_curve, slope_of


def data(counts, seed=0, d=30):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    x = 0.7 * rng.normal(size=(len(counts), d))[labels] + rng.normal(size=(len(labels), d))
    order = rng.permutation(len(labels))
    return torch.from_numpy(x[order]), torch.from_numpy(labels[order])


class Watched(PrototypicalLearner):
    """A learner that keeps what it is asked."""

    def forward(self, support, labels, queries, n_way, *args):
        self.asked = [*getattr(self, "asked", []), (support, labels, queries)]
        return super().forward(support, labels, queries, n_way, *args)


def test_each_point_learns_so_many_of_each_class_and_answers_the_others():
    x, labels = data([1, 9, 10, 40])
    learner = Watched().double().eval()
    points = measure_curve(learner, x, labels, 5)  # class 4 is absent
    assert [p.images for p in points] == [1, 2, 4]
    for point, (support, taught, queries) in zip(points, learner.asked, strict=True):
        assert torch.bincount(taught, minlength=5).tolist() == [min(point.images, n) for n in (1, 9, 10, 40, 0)]
        assert len(queries) == point.of == 60 - len(taught)
        rows = torch.cat([support, queries])
        assert len(rows.unique(dim=0)) == 60


def test_many_rows_cost_little(monkeypatch):
    monkeypatch.setattr(curve, "MOST_ROWS", 50)
    learner = Watched().double().eval()
    points = measure_curve(learner, *data([20] * 30), 30)
    assert [p.images for p in points] == [1]
    assert points[0].of < 75


@pytest.mark.parametrize("learner", [DiscriminantLearner(1.0), DiscriminantLearner(1.0, regularization=2.0)])
def test_accuracy_grows_and_the_slope_with_it(learner):
    points = measure_curve(learner.double().eval(), *data([30] * 12), 12)
    assert points[-1].images == 8
    assert points[0].accuracy < points[-1].accuracy
    assert 0 < slope_of(points) < 1.5
    assert learner.without_choosing().regularization == (learner.regularization or 0.3)


def test_what_cannot_be_measured_is_the_usual():
    assert measure_curve(PrototypicalLearner().double().eval(), *data([1, 1]), 2) == []
    assert slope_of([Point(1, 0.5, 10)]) == USUAL_SLOPE
    steep = [Point(k, 1 - 0.9 * k**-1.2, 10_000) for k in (1, 2, 4, 8)]
    assert slope_of(steep) == pytest.approx(1.2, abs=0.05)
    few = [Point(k, 1 - 0.9 * k**-1.2, 10) for k in (1, 2, 4, 8)]
    assert USUAL_SLOPE < slope_of(few) < 0.8
    assert slope_of([Point(k, 1.0, 10) for k in (1, 2, 4)]) == pytest.approx(USUAL_SLOPE, abs=0.1)
