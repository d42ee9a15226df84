"""Relation Networks, one pair of a query and a class at a time."""

import numpy as np
import pytest
import torch

import fewshot.learners.relation as module
from fewshot import FewShotClassifier, RelationLearner, create_backbone, evaluate
from fewshot.embedding.checkpoint import load_learner, save_weights
from tests.test_contract import episode
from tests.training_data import improves_and_answers_as_saved


def make(d=8, **parameters):
    return RelationLearner(**parameters).sized(d).double()


def oracle(learner, support, labels, weight, queries, n_way):
    """Relations, in 0..1; NaN for an absent class."""
    a, b, w = (layer.weight.detach().numpy() for layer in (learner.of_class, learner.of_query, learner.out))
    bias, last = learner.of_class.bias.detach().numpy(), learner.out.bias.item()
    relation = np.full((len(queries), n_way), np.nan)
    for c in range(n_way):
        if (total := weight[labels == c].sum()) == 0:
            continue
        mean = sum(w_i * x for x, w_i in zip(support[labels == c], weight[labels == c], strict=True)) / total
        for q, query in enumerate(queries):
            hidden = np.maximum(a @ mean + b @ query + bias, 0)
            relation[q, c] = 1 / (1 + np.exp(-(w[0] @ hidden + last)))
    return relation


@pytest.mark.parametrize(("hidden", "d"), [(1, 8), (64, 8), (5, 1), (16, 100)])
@pytest.mark.parametrize("shots", [(1, 3, 0, 5), (30, 2, 11, 7)])
def test_it_is_its_formula_and_its_loss_the_squared_error(hidden, d, shots):
    support, labels, queries = episode(shots=shots, d=d)
    weight = np.random.default_rng(3).uniform(0.2, 3, len(labels))
    learner = make(d, hidden=hidden, temperature=0.3)
    logits = learner(support, labels, queries, 4, torch.from_numpy(weight))
    expected = oracle(learner, support.numpy(), labels.numpy(), weight, queries.numpy(), 4)
    got = logits.detach().numpy()
    np.testing.assert_allclose(got, np.where(np.isnan(expected), -np.inf, expected / 0.3), rtol=1e-10)
    target, errors = [0, 3, 2 if shots[2] else 0, 1, -100, 0], []
    for q, label in enumerate(target):
        for c in range(4):
            if label >= 0 and not np.isnan(expected[q, c]):
                errors.append((expected[q, c] - (label == c)) ** 2)
    assert learner.loss(logits, torch.tensor(target)).item() == pytest.approx(np.mean(errors))


def test_the_loss_does_not_depend_on_the_temperature():
    support, labels, queries = episode()
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    losses = [m.loss(m(support, labels, queries, 4), target).item() for m in (make(temperature=t) for t in (0.1, 3.0))]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize("chunk", [1, 700, 1500])
def test_chunks_of_queries_change_nothing(monkeypatch, chunk):
    support, labels, queries = episode(batch=(2,), n_query=17)
    learner, parts = make(), []
    whole = learner(support, labels, queries, 4)
    monkeypatch.setattr(module, "CHUNK", chunk)
    learner.out.register_forward_hook(lambda layer, given, result: parts.append(result.numel()))
    torch.testing.assert_close(learner(support, labels, queries, 4), whole)
    assert len(parts) == {1: 17, 700: 17, 1500: 9}[chunk]


def test_the_same_seed_gives_the_same_weights_and_another_others():
    one, same, other = (torch.cat([p.flatten() for p in RelationLearner().sized(8, s).parameters()]) for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_without_weights_it_refuses_to_answer_by_name():
    support, labels, _ = (t.numpy() for t in episode(shots=(20,) * 4))
    message = "'relation' has weights that are not trained yet; train it with MetaTrainer, or pass load"
    with pytest.raises(ValueError, match=message):
        FewShotClassifier("relation").fit(support, labels)
    with pytest.raises(ValueError, match=message):
        evaluate("relation", support, labels, n_way=2, n_query=3, n_episodes=2)


def test_embeddings_of_another_length_are_refused():
    support, labels, queries = episode()
    learner = make(4)
    with pytest.raises(
        ValueError, match="RelationLearner has weights for embeddings of 4 dimensions, and these have 8"
    ):
        learner(support, labels, queries, 4)
    memory = learner.memorize(learner.learn(support[:, :4], labels, 4))
    with pytest.raises(ValueError, match="queries have 8 dimensions and keys 4"):
        learner.answer(memory, queries)


def test_weights_survive_a_checkpoint(tmp_path):
    support, labels, queries = episode()
    learner = make(hidden=5, temperature=0.4)
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors").double()
    assert (loaded.d, loaded.hidden, loaded.temperature.item()) == (8, 5, 0.4)
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))


def test_training_improves_it_and_what_is_saved_answers_alike(tmp_path):
    improves_and_answers_as_saved("relation", episode, tmp_path)


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="hidden is 0; expected a whole number of at least 1"):
        RelationLearner(hidden=0)
    with pytest.raises(ValueError, match="temperature is 0; it divides"):
        RelationLearner(temperature=0)
