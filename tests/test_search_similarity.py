"""Similarities against float64 loops, and the properties that make them similarities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot import pairwise_similarity
from fewshot.search.similarity import (
    METRICS,
    argmax,
    inner_products,
    largest,
    normalize,
    prepare_keys,
    to_grid,
    top,
)

ROWS = arrays(np.float64, (3, 4), elements=st.floats(-100, 100).map(lambda v: round(v, 3)))


def oracle(queries, keys, metric):
    result = np.empty((len(queries), len(keys)))
    for i, q in enumerate(np.asarray(queries, np.float64)):
        for j, k in enumerate(np.asarray(keys, np.float64)):
            if metric == "sqeuclidean":
                result[i, j] = -np.sum((q - k) ** 2)
            elif metric == "dot":
                result[i, j] = np.sum(q * k)
            else:
                norms = np.linalg.norm(q) * np.linalg.norm(k)
                result[i, j] = np.sum(q * k) / norms if norms else 0.0
    return result


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=50, deadline=None)
@given(queries=ROWS, keys=ROWS)
def test_it_is_the_formula(metric, queries, keys):
    got = pairwise_similarity(torch.from_numpy(queries), torch.from_numpy(keys), metric).numpy()
    np.testing.assert_allclose(got, oracle(queries, keys, metric), rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("offset", [0, 10, 1e3, 1e4])
def test_a_common_offset_costs_no_digits(offset):
    rng = np.random.default_rng(0)
    queries, keys = (
        (rng.normal(size=(50, 32)) + offset).astype(np.float32),
        (rng.normal(size=(20, 32)) + offset).astype(np.float32),
    )
    got = pairwise_similarity(torch.from_numpy(queries), torch.from_numpy(keys)).numpy()
    expected = oracle(queries, keys, "sqeuclidean")
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(queries=ROWS, keys=ROWS, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_translation_leaves_distances_and_scale_leaves_cosines(queries, keys, shift, scale):
    q, k = torch.from_numpy(queries), torch.from_numpy(keys)
    torch.testing.assert_close(
        pairwise_similarity(q + shift, k + shift), pairwise_similarity(q, k), atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(
        pairwise_similarity(q * scale, k, "cosine"), pairwise_similarity(q, k, "cosine"), atol=1e-9, rtol=1e-9
    )


def test_rotation_leaves_distances():
    rng = np.random.default_rng(1)
    q, k = (torch.from_numpy(rng.normal(size=(5, 8))) for _ in range(2))
    turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(8, 8))))[0]
    torch.testing.assert_close(pairwise_similarity(q @ turn, k @ turn), pairwise_similarity(q, k))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
def test_equal_rows_are_closest_and_never_positive(scale):
    x = torch.randn(6, 5, generator=torch.Generator()) * scale
    assert torch.all(pairwise_similarity(x, x) <= 0)
    cosine = pairwise_similarity(x, x, "cosine")
    torch.testing.assert_close(cosine.diagonal(), torch.ones(6))


def test_a_zero_row_has_cosine_0_and_gradient_0():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    y = normalize(x)
    torch.testing.assert_close(y.detach(), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    y.sum().backward()
    assert torch.equal(x.grad[0], torch.zeros(2))
    torch.testing.assert_close(x.grad[1], torch.tensor([0.8 * 0.2 / 5, -0.6 * 0.2 / 5]))


@pytest.mark.parametrize("metric", METRICS)
def test_leading_dimensions_broadcast(metric):
    q, k = torch.randn(2, 3, 4, 5, generator=torch.Generator()), torch.randn(3, 6, 5, generator=torch.Generator())
    got = pairwise_similarity(q, k, metric)
    assert got.shape == (2, 3, 4, 6)
    torch.testing.assert_close(got[1, 2], pairwise_similarity(q[1, 2], k[2], metric))


def test_no_keys_and_no_queries_are_no_similarities():
    empty, full = torch.empty(0, 3), torch.ones(2, 3)
    assert pairwise_similarity(full, empty).shape == (2, 0)
    assert pairwise_similarity(empty, full).shape == (0, 2)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="queries have 3 dimensions and keys 4; embed both with the same backbone"):
        pairwise_similarity(torch.ones(1, 3), torch.ones(1, 4))
    with pytest.raises(ValueError, match="no metric is called 'euclidean'; did you mean 'sqeuclidean'"):
        pairwise_similarity(torch.ones(1, 3), torch.ones(1, 3), "euclidean")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_is_raised_before_any_square(dtype, metric):
    q, k = (torch.full((2, 64), value, dtype=dtype) for value in (300.0, -300.0))
    got = pairwise_similarity(q, k, metric)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, pairwise_similarity(q.float(), k.float(), metric))


def test_mixed_precision_does_not_round_the_product():
    q, k = (torch.randn(5, 32, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        got = pairwise_similarity(q, k)
    torch.testing.assert_close(got, pairwise_similarity(q, k))


@pytest.mark.parametrize(
    ("rows", "others"),
    [((1, 7), (5, 7)), ((4, 7), (5, 7)), ((3, 4, 7), (3, 5, 7)), ((2, 3, 1, 7), (3, 5, 7)), ((2, 600, 7), (2, 90, 7))],
)
@pytest.mark.parametrize("learned", [False, True])
def test_inner_products_are_those_of_matrices_whoever_makes_them(rows, others, learned):
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=shape)) for shape in (rows, others))
    y.requires_grad_(learned)
    with torch.set_grad_enabled(learned):
        found = inner_products(x, y)
    assert found.requires_grad == learned
    torch.testing.assert_close(found, torch.einsum("...qd,...md->...qm", x, y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("far", [0.0, 1.0, 1e4])
def test_queries_are_moved_only_where_that_saves_digits(far):
    keys = torch.from_numpy(np.random.default_rng(0).normal(far, size=(20, 8)).astype(np.float32))
    assert prepare_keys(keys, "sqeuclidean").offset is not None  # where gradients may be wanted
    with torch.inference_mode():
        prepared = prepare_keys(keys, "sqeuclidean")
    assert (prepared.offset is None) == (far < 100)
    torch.testing.assert_close(prepared.similarity(keys).diagonal(), torch.zeros(20), atol=1e-4, rtol=0)


def test_cosines_of_rows_that_squares_would_blur_keep_their_digits():
    x = torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0, 0], [3, 4]])
    for rows in (x, x[:1], x[3:], x[2:3]):
        found = prepare_keys(torch.eye(2), "cosine").similarity(rows)
        expected = torch.where((rows != 0).any(-1, keepdim=True), torch.tensor([[0.6, 0.8]]), 0)
        torch.testing.assert_close(found, expected)


def outlier_episode(m, d=64):
    """Keys close together, one far away, such that the mean key is near the many; and queries beside the many."""
    rng = np.random.default_rng(0)
    keys = 1000 + 0.1 * rng.normal(size=(m, d))
    keys[-1] = -600 * m**0.5
    places = rng.integers(0, m - 1, 300)
    return places, (keys[places] + 0.02 * rng.normal(size=(300, d))).astype(np.float32), keys.astype(np.float32)


@pytest.mark.parametrize("m", [10, 100, 1000])
@torch.inference_mode()
def test_one_key_far_away_blurs_the_others_no_more_than_centring_lets_it(m):
    places, queries, keys = (torch.from_numpy(part) for part in outlier_episode(m))
    found, centred = pairwise_similarity(queries, keys), prepare_keys(keys, "sqeuclidean", keys.mean(0, keepdim=True))
    right = (found.argmax(-1) == places).float().mean()
    assert right >= (centred.similarity(queries).argmax(-1) == places).float().mean() - 0.01


@torch.inference_mode()
def test_an_episode_is_answered_as_it_is_alone():
    places, queries, keys = (torch.from_numpy(part) for part in outlier_episode(100))
    others = torch.from_numpy(np.random.default_rng(1).normal(size=(400, 64)).astype(np.float32))
    both = pairwise_similarity(torch.stack([queries, others[:300]]), torch.stack([keys, others[300:]]))
    assert (both[0].argmax(-1) == places).all()
    torch.testing.assert_close(both[1], pairwise_similarity(others[:300], others[300:]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_whole_numbers_are_compared_as_what_they_are(metric):
    queries, keys = torch.tensor([[0.5, 0.9]]), torch.tensor([[1, 0], [3, 4]])
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            found = pairwise_similarity(queries, keys, metric).numpy()
        np.testing.assert_allclose(found, oracle(queries.numpy(), keys.numpy(), metric), rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("q", [1, 3])
def test_tangents_go_through(metric, q):
    rng = np.random.default_rng(0)
    x, step, keys = (torch.from_numpy(rng.normal(size=shape)) for shape in ((q, 4), (q, 4), (5, 4)))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, step)
        tangent = torch.autograd.forward_ad.unpack_dual(pairwise_similarity(dual, keys, metric)).tangent
    ahead, behind = (pairwise_similarity(x + s * step, keys, metric) for s in (1e-6, -1e-6))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1e-30, 1e-3, 1.0, 1.4, 1.42, 3e5])
def test_products_of_rows_on_a_grid_are_exact_in_any_order(length):
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(length * rows / np.linalg.norm(rows)) for rows in rng.normal(size=(2, 1, 1280)))
    a, b = to_grid(x), to_grid(y)
    assert float((a - x).abs().max()) <= length * 2.0**-26
    exact = math.fsum((a * b).flatten().tolist())  # one rounding at the most
    for _ in range(20):
        order = rng.permutation(1280)
        assert float((a[:, order] * b[:, order]).cumsum(-1)[0, -1]) == exact
    assert exact == pytest.approx(float((x * y).sum()), abs=1e-8 * length**2)
    assert torch.equal(to_grid(torch.zeros(1, 3).double()), torch.zeros(1, 3).double())


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
