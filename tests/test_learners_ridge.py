"""Ridge regression with the normal equations written out."""

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier, MetaTrainer, RidgeLearner, TrainConfig, create_backbone
from fewshot.embedding.checkpoint import load_learner, save_weights
from tests.test_contract import episode
from tests.training_data import SIZES, TRAIN, VAL


def onehot(labels, n_way):
    y = np.zeros((len(labels), n_way))
    for i, label in enumerate(labels):
        y[i, label] = 1
    return y


def oracle(support, labels, weight, queries, n_way, regularization, temperature):
    d, y = support.shape[1], onehot(labels, n_way)
    left, right = regularization * np.eye(d), np.zeros((d, n_way))
    for x, target, w in zip(support, y, weight, strict=True):
        left, right = left + w * np.outer(x, x), right + w * np.outer(x, target)
    logits = queries @ (np.linalg.inv(left) @ right) / temperature
    logits[:, [c for c in range(n_way) if weight[labels == c].sum() == 0]] = -np.inf
    return logits


@pytest.mark.parametrize("d", [1, 5, 10, 11, 12, 50])
@pytest.mark.parametrize("shots", [(1, 3, 2, 5), (4, 0, 6, 1)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("regularization", [1.0, 0.03, 40.0])
def test_it_is_its_formula_with_less_and_with_more_support_than_dimensions(d, shots, weighted, regularization):
    support, labels, queries = episode(shots=shots, d=d)
    weight = np.random.default_rng(1).uniform(0.1, 3, len(labels)) if weighted else np.ones(len(labels))
    weight[0] = 0
    got = RidgeLearner(regularization, 0.3)(support, labels, queries, 4, torch.from_numpy(weight))
    expected = oracle(support.numpy(), labels.numpy(), weight, queries.numpy(), 4, regularization, 0.3)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("d", [5, 50])
def test_any_other_solution_has_a_larger_objective(d):
    support, labels, _ = (t.numpy() for t in episode(d=d))
    rng = np.random.default_rng(1)
    weight, y = rng.uniform(0.1, 3, len(labels)), onehot(labels, 4)

    def objective(w):
        return (
            sum(v * ((x @ w - t) ** 2).sum() for x, t, v in zip(support, y, weight, strict=True)) + 0.5 * (w**2).sum()
        )

    learner = RidgeLearner(0.5)
    best = learner.memorize(learner.learn(*map(torch.from_numpy, (support, labels)), 4, torch.from_numpy(weight)))
    w = best.keys.numpy().T
    for size in (1e-3, 1e-1, 1.0):
        step = rng.normal(size=w.shape) * size
        assert objective(w) < min(objective(w + step), objective(w - step))


def test_much_regularization_is_class_sums():
    support, labels, queries = episode()
    sums = torch.stack([support[labels == c].sum(0) for c in range(4)])
    logits = RidgeLearner(1e8, 1e-8)(support, labels, queries, 4)
    torch.testing.assert_close(logits, queries @ sums.T, rtol=1e-5, atol=1e-5)


def test_learned_numbers_receive_gradients_and_are_saved(tmp_path):
    support, labels, queries = episode()
    learner = RidgeLearner(0.4, 0.2, learn_temperature=True, learn_regularization=True)
    learner.loss(learner(support, labels, queries, 4), torch.tensor([0, 1, 2, 3, 0, 1])).backward()
    assert {name for name, p in learner.named_parameters() if p.grad.abs() > 0} == {
        "log_temperature",
        "log_regularization",
    }
    with torch.no_grad():
        learner.log_regularization.add_(0.5)
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors")
    assert loaded.learn_regularization
    assert loaded.regularization.item() == pytest.approx(0.4 * np.exp(0.5))
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))


def test_a_classifier_with_a_learned_regularization_grows():
    support, labels, queries = (t.numpy() for t in episode())
    model = FewShotClassifier(RidgeLearner(0.3, learn_regularization=True)).fit(support[:5], labels[:5])
    model.partial_fit(support[5:], labels[5:])
    whole = FewShotClassifier(RidgeLearner(0.3)).fit(support, labels)
    np.testing.assert_allclose(model.decision_function(queries), whole.decision_function(queries), rtol=1e-5)


def test_training_learns_the_regularization_and_it_is_answered_with(tmp_path):
    learner = RidgeLearner(learn_temperature=True, learn_regularization=True)
    trainer = MetaTrainer("conv4", learner, TrainConfig(n_episodes=12, lr=1e-2, validate_every=6, **SIZES))
    losses = trainer.fit(TRAIN, VAL, out=tmp_path, progress=False).to_frame()["loss"]
    assert losses[-4:].mean() < losses[:4].mean()
    loaded, (support, labels, queries) = load_learner(tmp_path / "best.safetensors"), episode()
    assert loaded.regularization.item() != pytest.approx(1.0, abs=1e-4)
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))
    trainer.fit(TRAIN, VAL, out=tmp_path, progress=False, resume=True)


def test_bad_parameters_are_named():
    for bad in (0, 1e-10, float("inf"), float("nan"), "1"):
        with pytest.raises(ValueError, match=f"regularization is {bad!r}; expected a number of at least 1e-09"):
            RidgeLearner(bad)
    with pytest.raises(ValueError, match="temperature is 0; it divides"):
        RidgeLearner(temperature=0)
