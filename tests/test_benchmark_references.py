"""References of a benchmark answer as scikit-learn does."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from fewshot.benchmark.grid_file import Backbone, LearnerSpec
from fewshot.benchmark.methods import describe_method, make_learner
from fewshot.benchmark.references import LinearProbe, ScikitLearn, iterates
from fewshot.errors import UnknownNameError


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 9, 4)), np.array([0, 2, 2, 0, 0, 3, 3, 2, 0]), rng.normal(size=(2, 5, 4))


def answers(learner, x, y, q):
    return learner(torch.from_numpy(x), torch.from_numpy(np.stack([y, y])), torch.from_numpy(q), 4)


@pytest.mark.parametrize(
    ("learner", "model", "unit"),
    [
        (LinearProbe(C=2.0), LogisticRegression(C=2.0, max_iter=1000), True),
        (ScikitLearn("LogisticRegression", C=100, unit=True), LogisticRegression(C=100), True),
        (ScikitLearn(), LogisticRegression(), False),
    ],
)
def test_logistic_regression_equals_scikit_learn(drawn, learner, model, unit):
    x, y, q = drawn
    logits = answers(learner, x, y, q)
    scale = normalize if unit else np.asarray
    for i in range(2):
        expected = model.fit(scale(x[i]), y).predict_log_proba(scale(q[i]))
        np.testing.assert_allclose(logits[i][:, [0, 2, 3]], expected, rtol=1e-6)
    assert torch.isinf(logits[..., 1]).all()


@pytest.mark.parametrize("model", [KNeighborsClassifier(1), NearestCentroid()])
def test_neighbours_and_centroids_equal_scikit_learn(drawn, model):
    x, y, q = drawn
    params = {"n_neighbors": 1} if isinstance(model, KNeighborsClassifier) else {}
    learner = ScikitLearn(type(model).__name__, **params)
    predicted = answers(learner, x, y, q).argmax(-1)
    for i in range(2):
        np.testing.assert_array_equal(predicted[i], model.fit(x[i], y).predict(q[i]))
    one_shot = learner(torch.eye(3), torch.arange(3), torch.eye(3), 3)
    assert one_shot.argmax(-1).tolist() == [0, 1, 2]


def test_padding_weights_and_a_single_class(drawn):
    x, y, q = (torch.from_numpy(part) for part in drawn)
    weight = torch.ones(9, dtype=torch.float64)
    weight[0] = 0
    for learner in (ScikitLearn(), ScikitLearn("KNeighborsClassifier", n_neighbors=1)):
        without = learner(x[0, 1:], y[1:], q[0], 4)
        torch.testing.assert_close(learner(x[0], y, q[0], 4, weight), without)
        assert learner(x[0, :1], y[:1], q[0], 2).argmax(-1).tolist() == [0] * 5
    doubled = ScikitLearn()(x[0], y, q[0], 4, weight + 1)
    assert not torch.allclose(doubled, ScikitLearn()(x[0], y, q[0], 4))


def test_a_row_of_a_grid_names_any_classifier():
    row = LearnerSpec("scikit-learn", params={"classifier": "NearestCentroid", "unit": True})
    assert describe_method(row, Backbone("pixels")) == {"name": "scikit-learn", "params": dict(row.params)}
    assert [iterates(one) for one in (row, LearnerSpec("scikit-learn"), LearnerSpec("linear-probe"))] == [
        False,
        True,
        True,
    ]
    assert make_learner(LearnerSpec("scikit-learn", params={"classifier": "ExtraTreeClassifier"}), Backbone("pixels"),
                        None).make().random_state == 0  # fmt: skip


def test_wrong_classifiers_and_arguments_are_named():
    with pytest.raises(UnknownNameError, match=r"LogisticRegresion.*LogisticRegression"):
        ScikitLearn("LogisticRegresion")
    with pytest.raises(ValueError, match=r"'mine'.*strength"):
        make_learner(LearnerSpec("scikit-learn", "mine", {"strength": 2}), Backbone("pixels"), None)
