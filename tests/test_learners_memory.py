import numpy as np
import pytest
import torch

from fewshot.learners.memory import Memory, read


def test_absent_keys_lie_at_the_mean_of_the_present_and_count_nothing():
    keys = torch.tensor([[1.0], [torch.nan], [3.0]])
    memory = Memory.of_keys(keys, torch.arange(3), torch.tensor([1.0, 0.0, 2.0]), 3)
    assert memory.keys.tolist() == [[1.0], [2.0], [3.0]]
    assert memory.log_weight.tolist() == [0.0, -torch.inf, pytest.approx(np.log(2))]
    assert memory.present().labels.tolist() == [0, 2]


def slow_read(scores, labels, weight, n_way):
    logits = np.full((len(scores), n_way), -np.inf)
    for i, row in enumerate(scores):
        for c in range(n_way):
            terms = [w * np.exp(s) for s, y, w in zip(row, labels, weight, strict=True) if y == c and w > 0]
            if terms:
                logits[i, c] = np.log(sum(terms))
    return logits


@pytest.mark.parametrize("weight", [[1, 1, 1, 1, 1], [1, 0.5, 0, 2, 0]])
def test_read_is_a_log_sum_exp_over_the_keys_of_each_class(weight):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(6, 5)) * 3, np.array([0, 2, 2, 0, 3])
    memory = Memory.of_keys(torch.zeros(5, 2).double(), torch.from_numpy(labels), torch.tensor(weight).double(), 4)
    got = read(torch.from_numpy(scores), memory)
    np.testing.assert_allclose(got.numpy(), slow_read(scores, labels, weight, 4))


def test_read_of_candidates_is_read_of_those_keys_alone():
    rng = np.random.default_rng(0)
    scores, labels = torch.from_numpy(rng.normal(size=(2, 5))), torch.tensor([0, 1, 1, 2, 0])
    memory = Memory.of_keys(torch.zeros(5, 2).double(), labels, torch.ones(5).double(), 3)
    candidates = torch.tensor([[4, 1, -1], [2, 1, 3]])
    got = read(scores.gather(1, candidates.clamp(min=0)), memory, candidates)
    for i, ids in enumerate(([4, 1], [2, 1, 3])):
        weight = np.isin(np.arange(5), ids).astype(float)
        np.testing.assert_allclose(got[i : i + 1], slow_read(scores[i : i + 1].numpy(), labels, weight, 3))


def test_one_key_a_class_reads_as_the_general_way():
    scores = torch.randn(4, 3, generator=torch.Generator())
    parts = torch.zeros(3, 2), torch.arange(3), torch.tensor([1.0, 0.0, 1.0]), 3
    torch.testing.assert_close(read(scores, Memory.of_keys(*parts, True)), read(scores, Memory.of_keys(*parts)))


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_scores_neither_overflow_nor_vanish(shift):
    memory = Memory.of_keys(torch.zeros(2, 1), torch.tensor([0, 0]), torch.ones(2), 1)
    got = read(torch.full((1, 2), shift), memory)
    assert got.item() == pytest.approx(shift + np.log(2))


def test_a_memory_of_prototypes_has_one_key_a_class_and_none_for_an_absent_one():
    memory = Memory.of_prototypes(torch.tensor([[1.0], [0.0], [3.0]]), torch.tensor([2.0, 0.0, 0.5]))
    assert memory.one_key_per_class
    assert memory.labels.tolist() == [0, 1, 2]
    assert memory.log_weight.tolist() == [0.0, -torch.inf, 0.0]
