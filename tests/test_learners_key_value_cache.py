"""The key-value cache against loops written from Tip-Adapter."""

import numpy as np
import pytest
import torch

from fewshot import KeyValueCacheClassifier, KeyValueCacheLearner
from tests.test_contract import episode


def oracle(support, labels, weight, queries, n_way, sharpness, temperature, prior):
    logits = np.zeros((len(queries), n_way))
    sums = [sum(w for label, w in zip(labels, weight, strict=True) if label == c) for c in range(n_way)]
    for c, of_class in enumerate(sums):
        if of_class == 0:
            logits[:, c] = -np.inf
            continue
        for q, query in enumerate(queries):
            total = 0.0
            for x, label, w in zip(support, labels, weight, strict=True):
                if label == c:
                    cosine = (query * x).sum() / np.sqrt((query**2).sum() * (x**2).sum())
                    total += w * np.exp(-sharpness * (1 - cosine))
            logits[q, c] = total / (max(sums) * temperature) + (
                np.log(of_class / sum(weight)) if prior == "support" else 0
            )
    return logits


@pytest.mark.parametrize("prior", ["uniform", "support"])
@pytest.mark.parametrize("sharpness", [0.0, 1.3, 5.5, 40.0])
@pytest.mark.parametrize("shots", [(1, 3, 0, 5), (30, 2, 11, 7)])
def test_it_is_its_formula(prior, sharpness, shots):
    support, labels, queries = episode(shots=shots)
    weight = np.random.default_rng(3).uniform(0.2, 3, len(labels))
    weight[0] = 0
    learner = KeyValueCacheLearner(sharpness, 0.3, prior)
    got = learner(support, labels, queries, 4, torch.from_numpy(weight))
    expected = oracle(support.numpy(), labels.numpy(), weight, queries.numpy(), 4, sharpness, 0.3, prior)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10)


def test_without_sharpness_shots_are_counted():
    support, labels, queries = episode()
    logits = KeyValueCacheLearner(0.0, 1.0)(support, labels, queries, 4)
    torch.testing.assert_close(logits, labels.bincount().double().expand(6, 4) / 5)


def test_more_shots_alike_in_every_class_change_nothing():
    support, labels, queries = episode()
    learner = KeyValueCacheLearner()
    repeated = learner(support.repeat(7, 1), labels.repeat(7), queries, 4)
    torch.testing.assert_close(repeated, learner(support, labels, queries, 4))


def test_the_prior_prefers_what_the_support_has_more_of():
    x, y = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]]), np.array(["often"] * 3 + ["once"])
    far = np.array([[-1.0, -1.0]])  # nothing is activated
    models = (KeyValueCacheClassifier(50.0, prior=prior).fit(x, y) for prior in ("uniform", "support"))
    uniform, support = (model.predict_proba(far)[0] for model in models)
    np.testing.assert_allclose(uniform, [0.5, 0.5])
    np.testing.assert_allclose(support, [0.75, 0.25])


def test_a_class_that_the_index_has_not_retrieved_has_its_prior_left():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(400, 4)) * 0.1 + 1, [[-1.0, -1, -1, -1]]])
    y = np.array([0, 1] * 200 + [2])
    query = np.ones((1, 4))
    model = KeyValueCacheClassifier(prior="support", index="faiss").fit(x, y)
    assert model.decision_function(query)[0, 2] == pytest.approx(np.log(1 / 401))
    assert np.isfinite(model.decision_function(query)).all()


def test_padding_alone_is_no_answer():
    support, labels, queries = episode()
    logits = KeyValueCacheLearner()(support, labels, queries, 4, torch.zeros(len(labels)).double())
    assert torch.all(logits == -torch.inf)


def test_gradients_reach_a_learned_temperature():
    support, labels, queries = episode()
    learner = KeyValueCacheLearner(learn_temperature=True)
    learner.loss(learner(support, labels, queries, 4), torch.tensor([0, 1, 2, 3, 0, 1])).backward()
    assert learner.log_temperature.grad.abs() > 0


def test_bad_parameters_are_named():
    for bad in (-0.1, float("inf"), float("nan"), "5"):
        with pytest.raises(ValueError, match=f"sharpness is {bad!r}; expected a number of at least 0"):
            KeyValueCacheLearner(bad)
    with pytest.raises(ValueError, match="no prior is called 'supports'; did you mean 'support'"):
        KeyValueCacheLearner(prior="supports")
    with pytest.raises(ValueError, match="temperature is 0; it divides"):
        KeyValueCacheLearner(temperature=0)
