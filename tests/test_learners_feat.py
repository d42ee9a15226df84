"""FEAT with its attention written out, one prototype at a time."""

import numpy as np
import pytest
import torch

from fewshot import FEATLearner, FewShotClassifier, create_backbone, evaluate
from fewshot.embedding.checkpoint import load_learner, save_weights
from fewshot.utils.isolation import seeded
from tests.test_contract import episode
from tests.training_data import improves_and_answers_as_saved


def make(d=8, **parameters):
    return FEATLearner(**parameters).sized(d).double().eval()


def oracle(learner, support, labels, weight, queries, n_way, metric, temperature):
    names = ("query", "key", "value", "out", "norm")
    wq, wk, wv, wo, gain = (getattr(learner, name).weight.detach().numpy() for name in names)
    bias, shift = learner.out.bias.detach().numpy(), learner.norm.bias.detach().numpy()
    there = [c for c in range(n_way) if weight[labels == c].sum() > 0]
    means = {c: (weight[labels == c, None] * support[labels == c]).sum(0) / weight[labels == c].sum() for c in there}
    logits = np.full((len(queries), n_way), -np.inf)
    for c in there:
        scores = np.array([(wq @ means[c]) @ (wk @ means[o]) / np.sqrt(support.shape[1]) for o in there])
        attention = np.exp(scores) / np.exp(scores).sum()
        z = means[c] + wo @ sum(a * (wv @ means[o]) for a, o in zip(attention, there, strict=True)) + bias
        z = gain * (z - z.mean()) / np.sqrt(z.var() + 1e-5) + shift
        for q, x in enumerate(queries):
            similarity = {
                "sqeuclidean": -((x - z) ** 2).sum(),
                "dot": x @ z,
                "cosine": x @ z / np.sqrt((x @ x) * (z @ z)),
            }[metric]
            logits[q, c] = similarity / temperature
    return logits


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
@pytest.mark.parametrize("d", [2, 8, 60])
@pytest.mark.parametrize("shots", [(1, 3, 0, 5), (30, 2, 11, 7)])
def test_it_is_its_formula(metric, d, shots):
    support, labels, queries = episode(shots=shots, d=d)
    weight = np.random.default_rng(3).uniform(0.2, 3, len(labels))
    learner = make(d, metric=metric, temperature=2.0)
    with torch.no_grad():  # a normalisation as training leaves it
        learner.norm.weight.copy_(torch.linspace(0.5, 2, d))
        learner.norm.bias.copy_(torch.linspace(-1, 1, d))
    got = learner(support, labels, queries, 4, torch.from_numpy(weight)).detach().numpy()
    expected = oracle(learner, support.numpy(), labels.numpy(), weight, queries.numpy(), 4, metric, 2.0)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_a_class_that_is_absent_gets_no_attention():
    support, labels, queries = episode(shots=(2, 0, 3, 1))
    learner, given = make(), []
    learner.out.register_forward_hook(lambda layer, inputs, result: given.append(inputs[0]))
    learner(support, labels, queries, 4)
    learner(support, torch.tensor([0, 9, 1, 2])[labels], queries, 3)
    torch.testing.assert_close(given[0][[0, 2, 3]], given[1])


def test_the_others_change_a_prototype():
    support, labels, _ = episode()
    learner = make()
    keys = learner.memorize(learner.learn(support, labels, 4)).keys
    support[labels == 3] += 1.0
    moved = learner.memorize(learner.learn(support, labels, 4)).keys
    assert not torch.allclose(keys[0], moved[0])


def test_dropout_is_for_training_alone():
    support, labels, queries = episode()
    learner = make(dropout=0.9)
    whole = learner(support, labels, queries, 4)
    learner.train()
    with seeded(0):
        one, other = (learner(support, labels, queries, 4) for _ in range(2))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(make(dropout=0.0).train()(support, labels, queries, 4), whole)


def test_the_same_seed_gives_the_same_weights_and_another_others():
    one, same, other = (torch.cat([p.flatten() for p in FEATLearner().sized(8, s).parameters()]) for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_without_weights_it_refuses_to_answer_by_name():
    support, labels, _ = (t.numpy() for t in episode(shots=(20,) * 4))
    message = "'feat' has weights that are not trained yet; train it with MetaTrainer, or pass load_learner"
    with pytest.raises(ValueError, match=message):
        FewShotClassifier("feat").fit(support, labels)
    with pytest.raises(ValueError, match=message):
        evaluate("feat", support, labels, n_way=2, n_query=3, n_episodes=2)
    with pytest.raises(ValueError, match="FEATLearner has weights for embeddings of 4 dimensions, and these have 8"):
        FewShotClassifier(make(4)).fit(support, labels)


def test_weights_survive_a_checkpoint_as_does_dropout(tmp_path):
    support, labels, queries = episode()
    learner = make(metric="cosine", temperature=0.4, learn_temperature=True, dropout=0.2)
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors").double()
    assert (loaded.d, loaded.dropout, loaded.drop.p, loaded.metric) == (8, 0.2, 0.2, "cosine")
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))


def test_training_improves_it_and_what_is_saved_answers_alike(tmp_path):
    improves_and_answers_as_saved("feat", episode, tmp_path)


def test_bad_parameters_are_named():
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"dropout is {bad}; expected at least 0, below 1"):
            FEATLearner(dropout=bad)
    with pytest.raises(ValueError, match="no metric is called 'cosin'; did you mean 'cosine'"):
        FEATLearner("cosin")
