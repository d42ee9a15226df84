"""Matching Networks with full-context embeddings, both LSTMs written out gate by gate."""

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier, FullContextLearner, create_backbone, evaluate
from fewshot.embedding.checkpoint import load_learner, save_weights
from tests.test_contract import episode
from tests.training_data import improves_and_answers_as_saved


def make(d=8, **parameters):
    return FullContextLearner(**parameters).sized(d).double().eval()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(layer, suffix, x, h, c):
    named = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    gates = named["weight_ih" + suffix] @ x + named["bias_ih" + suffix]
    gates = gates + named["weight_hh" + suffix] @ h + named["bias_hh" + suffix]
    enter, forget, new, leave = np.split(gates, 4)
    c = sigmoid(forget) * c + sigmoid(enter) * np.tanh(new)
    return sigmoid(leave) * np.tanh(c), c


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def oracle(learner, support, labels, weight, queries, n_way, n_steps, metric, temperature):
    support, labels, weight = (a[weight > 0] for a in (support, labels, weight))
    n, d = support.shape
    g = support.copy()
    for suffix, order in (("_l0", range(n)), ("_l0_reverse", reversed(range(n)))):
        h, c = np.zeros(d), np.zeros(d)
        for i in order:
            h, c = lstm_step(learner.read_support, suffix, support[i], h, c)
            g[i] += h
    proba = np.zeros((len(queries), n_way))
    for q, query in enumerate(queries):
        h, c, r = np.zeros(d), np.zeros(d), np.zeros(d)
        for _ in range(n_steps):
            h, c = lstm_step(learner.read_query, "", np.concatenate([query, r]), h, c)
            h = query + h
            r = sum(a * key for a, key in zip(softmax(g @ h), g, strict=True))
        similarity = {
            "cosine": g @ h / np.sqrt((g**2).sum(1) * (h @ h)),
            "sqeuclidean": -((g - h) ** 2).sum(1),
            "dot": g @ h,
        }[metric]
        attention = softmax(similarity / temperature + np.log(weight))
        for i in range(n):
            proba[q, labels[i]] += attention[i]
    return proba


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean", "dot"])
@pytest.mark.parametrize(("n_steps", "d"), [(1, 8), (2, 8), (5, 8), (3, 1), (3, 30)])
@pytest.mark.parametrize("shots", [(1, 3, 0, 5), (30, 2, 11, 7)])
def test_it_is_its_formula(metric, n_steps, d, shots):
    support, labels, queries = episode(shots=shots, d=d)
    weight = np.random.default_rng(3).uniform(0.2, 3, len(labels))
    weight[2] = 0
    learner = make(d, metric=metric, n_steps=n_steps, temperature=0.4)
    got = learner(support, labels, queries, 4, torch.from_numpy(weight)).softmax(-1).detach().numpy()
    arrays = (support.numpy(), labels.numpy(), weight, queries.numpy())
    np.testing.assert_allclose(got, oracle(learner, *arrays, 4, n_steps, metric, 0.4), rtol=1e-8, atol=1e-300)


def test_padding_anywhere_changes_nothing():
    rng = np.random.default_rng(0)
    learner, batch, expected = make(), [], []
    for b in range(5):  # episodes of 3 to 11 rows of support, spread over 13 places
        real = np.sort(rng.permutation(13)[: 3 + 2 * b])
        support, labels, weight = rng.normal(size=(13, 8)) * 9, rng.integers(-5, 99, 13), np.zeros(13)
        labels[real], weight[real] = rng.integers(0, 3, len(real)), 1
        batch.append([torch.from_numpy(a) for a in (support, labels, weight)])
        queries = torch.from_numpy(np.random.default_rng(9).normal(size=(4, 8)))
        expected.append(learner(batch[-1][0][real], batch[-1][1][real], queries, 3))
    support, labels, weight = (torch.stack(part) for part in zip(*batch, strict=True))
    got = learner(support, labels, queries.expand(5, 4, 8), 3, weight)
    torch.testing.assert_close(got, torch.stack(expected))


def test_the_same_seed_gives_the_same_weights_and_another_others():
    learners = (FullContextLearner().sized(8, seed) for seed in (3, 3, 4))
    one, same, other = (torch.cat([p.flatten() for p in learner.parameters()]) for learner in learners)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_without_weights_it_refuses_to_answer_by_name():
    support, labels, _ = (t.numpy() for t in episode(shots=(20,) * 4))
    message = "'matching-fce' has weights that are not trained yet; train it with MetaTrainer, or pass load"
    with pytest.raises(ValueError, match=message):
        FewShotClassifier("matching-fce").fit(support, labels)
    with pytest.raises(ValueError, match=message):
        evaluate("matching-fce", support, labels, n_way=2, n_query=3, n_episodes=2)
    with pytest.raises(ValueError, match="has weights for embeddings of 4 dimensions, and these have 8"):
        FewShotClassifier(make(4)).fit(support, labels)


def test_weights_survive_a_checkpoint(tmp_path):
    support, labels, queries = episode()
    learner = make(metric="dot", temperature=0.4, n_steps=2)
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors").double()
    assert (loaded.d, loaded.n_steps, loaded.metric) == (8, 2, "dot")
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))


def test_training_improves_it_and_what_is_saved_answers_alike(tmp_path):
    improves_and_answers_as_saved("matching-fce", episode, tmp_path)


@pytest.mark.parametrize("bad", [0, 1.5, "5"])
def test_a_bad_number_of_steps_is_named(bad):
    with pytest.raises(ValueError, match=f"n_steps is {bad!r}; expected a whole number of at least 1"):
        FullContextLearner(n_steps=bad)
