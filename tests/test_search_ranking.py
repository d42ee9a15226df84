import numpy as np
import pytest
import torch

from fewshot.search.ranking import argmax, largest, top


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_of_equals_wins(dtype):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (200, 30))).to(dtype)
    x[:20, 3:9] = -torch.inf
    expected = [row.index(max(row)) for row in x.tolist()]
    assert argmax(x).tolist() == expected
    for k in (1, 2, 7, 30):
        ids, values = top(None, x, k)
        order = np.argsort(-x.numpy(), 1, kind="stable")[:, :k]
        assert ids.tolist() == order.tolist()
        assert torch.equal(values, x.gather(1, torch.from_numpy(order)))


def test_candidates_come_in_any_order_and_equals_by_their_ids():
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(np.stack([rng.permutation(50)[:12] for _ in range(100)]))
    scores = torch.from_numpy(rng.integers(0, 3, (100, 12)).astype(float))
    for k in (1, 5):
        found, _ = top(ids, scores, k)
        for row, own, mine in zip(found.tolist(), ids.tolist(), scores.tolist(), strict=True):
            assert row == [i for _, i in sorted(zip((-s for s in mine), own, strict=True))][:k]


@pytest.mark.parametrize("k", [0, 1, 3, 4, 9])
def test_the_largest_come_in_order(k):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 30, 12)))
    assert torch.equal(largest(x.clone(), k), x.topk(k, -1).indices)
