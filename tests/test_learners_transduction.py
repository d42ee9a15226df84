"""What transductive learners share: transport against plain rounds of Sinkhorn, and rectified prototypes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshot.learners.memory import Memory
from fewshot.learners.transduction import Compared, Span, compare_means, estimated_shares, rectify
from fewshot.learners.transduction import transport as transport_by_class


def log_sum_exp(x, axis):
    top = x.max(axis, keepdims=True)
    return top + np.log(np.exp(x - top).sum(axis, keepdims=True))


def sinkhorn(scores, share, rounds=10_000):
    """Log-probabilities by plain rounds of Sinkhorn, with logarithms: columns, then rows."""
    log_plan, wanted = scores - log_sum_exp(scores, 1), np.log(len(scores) * share)
    for _ in range(rounds):
        log_plan = log_plan + wanted - log_sum_exp(log_plan, 0)
        log_plan = log_plan - log_sum_exp(log_plan, 1)
    return log_plan


def problem(seed, n_query, n_way, scale=1.0):
    rng = np.random.default_rng(seed)
    scores, share = rng.normal(0, scale, (n_query, n_way)), rng.dirichlet(np.full(n_way, 2.0))
    return torch.from_numpy(scores), torch.from_numpy(share)


def transport(scores, share, start=None):
    """Log-probabilities, a row a query."""
    return transport_by_class(scores.mT, share, start)[0].mT


problems = st.builds(
    problem, st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 8), st.sampled_from([0.0, 0.1, 1.0, 5.0, 10.0])
)


@pytest.mark.parametrize(("n_query", "n_way", "scale"), [(1, 4, 5), (3, 5, 1), (6, 6, 2), (20, 4, 4), (75, 5, 5)])
def test_transport_is_the_limit_of_sinkhorns_rounds(n_query, n_way, scale):
    scores, share = problem(0, n_query, n_way, scale)
    expected = sinkhorn(scores.numpy(), share.numpy())
    np.testing.assert_allclose(transport(scores, share).numpy(), expected, atol=1e-7, rtol=0)


@given(problems)
def test_rows_sum_to_one_and_columns_to_their_share_of_the_queries(data):
    scores, share = data
    plan = transport(scores, share).exp()
    np.testing.assert_allclose(plan.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(plan.sum(0), len(scores) * share, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("n_query", "n_way", "scale"), [(1, 4, 300), (1, 4, 4000), (3, 5, 40), (3, 5, 100), (20, 4, 40), (75, 5, 40)]
)
def test_columns_fit_also_where_scores_are_far_apart(n_query, n_way, scale):
    for seed in range(5):
        scores, share = problem(seed, n_query, n_way, scale)
        plan = transport(scores, share).exp()
        np.testing.assert_allclose(plan.sum(0), n_query * share, atol=1e-6, rtol=0)


@pytest.mark.parametrize("far", [1e20, -1.7e308])
def test_factors_beside_which_the_scores_vanish_are_no_solution(far):
    scores, share = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double(), torch.full((4,), 0.25)
    found = transport(scores, share, torch.full((4,), far, dtype=torch.float64))
    np.testing.assert_allclose(found, transport(scores, share), atol=1e-6)


@given(problems, st.integers(0, 10**6))
def test_what_all_classes_of_a_query_share_and_the_order_of_the_queries_do_not_matter(data, seed):
    scores, share = data
    rng = np.random.default_rng(seed)
    order, shift = torch.from_numpy(rng.permutation(len(scores))), torch.from_numpy(rng.normal(0, 50, (len(scores), 1)))
    plan = transport(scores, share).exp()
    torch.testing.assert_close(transport(scores + shift, share).exp(), plan, atol=1e-8, rtol=0)
    torch.testing.assert_close(transport(scores[order], share).exp(), plan[order], atol=1e-8, rtol=0)


@given(problems, st.integers(0, 8))
def test_a_class_that_is_not_there_gets_nothing_and_changes_nothing(data, place):
    scores, share = data
    place = min(place, len(share))
    wider, nothing = (torch.cat([x[..., :place], x.new_zeros((*x.shape[:-1], 1)), x[..., place:]], -1) for x in data)
    log_plan = transport(wider, nothing)
    assert torch.all(log_plan[:, place] == -torch.inf)
    kept = [c for c in range(len(nothing)) if c != place]
    torch.testing.assert_close(log_plan[:, kept].exp(), transport(scores, share).exp(), atol=1e-8, rtol=0)


def test_an_episode_is_answered_as_if_it_were_alone():
    """An easy one is not carried on until a hard one of its batch has ended."""
    scores, share = zip(*(problem(seed, 12, 4, scale) for seed, scale in enumerate((0.1, 1.0, 5.0, 12.0))), strict=True)
    together = transport(torch.stack(scores), torch.stack(share))
    for i in range(4):
        torch.testing.assert_close(together[i], transport(scores[i], share[i]), atol=1e-13, rtol=1e-13)


@given(problems, st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 30.0]))
def test_where_it_starts_does_not_matter_but_near_the_end_it_ends_sooner(data, seed, far):
    scores, share = data
    log_plan, factors = transport_by_class(scores.mT, share)
    start = factors + torch.from_numpy(np.random.default_rng(seed).normal(0, far, len(share)))
    torch.testing.assert_close(transport(scores, share, start).exp(), log_plan.mT.exp(), atol=1e-7, rtol=0)
    torch.testing.assert_close(transport_by_class(scores.mT, share, factors)[1], factors, atol=0, rtol=0)


def test_shares_and_scores_may_be_in_single_precision():
    scores, _ = problem(0, 20, 3)
    for share in (torch.full((3,), 1 / 3), torch.tensor([0.1, 0.2, 0.7])):
        expected = 20 * share.double() / share.double().sum()
        np.testing.assert_allclose(transport(scores, share).exp().sum(0), expected, atol=1e-8, rtol=0)
        single = transport(scores.float(), share)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, transport(scores, share).float(), rtol=1e-5, atol=1e-5)


def memory(seed=0, n_way=4):
    rng = np.random.default_rng(seed)
    keys, labels = torch.from_numpy(rng.normal(size=(6, 3))), torch.tensor([0, 2, 2, 3, 0, 3])
    return Memory.of_keys(keys, labels, torch.from_numpy(rng.uniform(0.5, 2, 6)), n_way)


def shares(scores, rounds=10):
    """Logarithms of shares by loops over queries and classes; scores are a row a query."""
    share = np.ones(scores.shape[1])
    for _ in range(rounds):
        count = np.ones(len(share))
        for row in scores:
            likely = share * np.exp(row - row.max())
            count += likely / likely.sum()
        share = count / (len(scores) + len(share))
    return np.log(share)


@given(problems, st.integers(0, 10**6))
def test_shares_are_estimated_by_expectation_maximisation(data, seed):
    scores, _ = data
    found = estimated_shares(scores.mT)[:, 0]
    np.testing.assert_allclose(found, shares(scores.numpy()), rtol=1e-9)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(scores.shape[1]))
    torch.testing.assert_close(estimated_shares(scores[:, order].mT)[:, 0], found[order])


@given(problems)
def test_estimated_shares_change_no_answer_to_a_single_query(data):
    scores = data[0][:1]
    assert (scores + estimated_shares(scores.mT).mT).argmax(1) == scores.argmax(1)


def test_estimated_shares_find_what_is_asked_for():
    scores = torch.full((4, 60), 0.0).double()
    scores[0, :45] = scores[1, 45:57] = scores[2, 57:] = 4.0
    scores[1, 40:45] += 4.1  # five queries are a little nearer to a class that fewer are of
    found = estimated_shares(scores).exp()[:, 0]
    assert (scores + found.log()[:, None])[:, 40:45].argmax(0).tolist() == [0] * 5
    np.testing.assert_allclose(found, np.array([46, 13, 4, 1]) / 64, atol=0.03)


def rectified(known, queries, sharpness, is_shifted=True, prior="none"):
    """Prototypes (0 where there is none) and queries, by loops."""
    keys, labels, weight, queries = (x.numpy() for x in (known.keys, known.labels, known.log_weight.exp(), queries))

    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    present = sorted(set(labels[weight > 0].tolist()))
    means = {c: np.average(keys[labels == c], axis=0, weights=weight[labels == c]) for c in present}
    shift = np.average(keys, axis=0, weights=weight) - queries.mean(0) if len(queries) and is_shifted else 0
    shifted = queries + shift
    scores = np.array([[60 * cosine(x, means[c]) for c in present] for x in shifted]).reshape(-1, len(present))
    if prior == "estimated":
        scores = scores + shares(scores)
    taken = np.array(present)[scores.argmax(1)]
    prototypes = np.zeros((known.n_way, keys.shape[1]))
    for c in present:
        rows = np.concatenate([keys[labels == c], shifted[taken == c]])
        exponents = sharpness * np.array([cosine(x, means[c]) for x in rows])
        times = np.concatenate([weight[labels == c], np.ones(sum(taken == c))])
        prototypes[c] = np.average(rows, axis=0, weights=times * np.exp(exponents - exponents.max()))
    return prototypes, queries if is_shifted == "prototypes" else shifted


def check(found, prototypes, queries):
    np.testing.assert_allclose(found.products, prototypes @ queries.T, atol=1e-9)
    np.testing.assert_allclose(found.prototypes, (prototypes**2).sum(1), atol=1e-9)
    np.testing.assert_allclose(found.queries, (queries**2).sum(1), atol=1e-9)


@pytest.mark.parametrize("n_query", [0, 1, 5])
@pytest.mark.parametrize("sharpness", [0.0, 10.0, 100.0])
@pytest.mark.parametrize(
    ("shifted", "prior"), [(False, "none"), (True, "none"), ("prototypes", "none"), (False, "estimated")]
)
@pytest.mark.parametrize("n_products", [0, 1000])
def test_prototypes_and_queries_are_moved_as_the_formula_says(n_products, shifted, prior, sharpness, n_query):
    known, queries = memory(), torch.from_numpy(np.random.default_rng(1).normal(7, 1, (n_query, 3)))
    span = Span.of(known.keys, queries, n_products)
    assert (span.gram is None) == (n_products == 0)
    found = rectify(span, known, sharpness, shifted, prior)
    check(found, *rectified(known, queries, sharpness, shifted, prior))
    assert found.absent.flatten().tolist() == [False, True, False, False]


@pytest.mark.parametrize("n_products", [0, 1000])
def test_without_rectification_prototypes_are_the_means_and_queries_stay(n_products):
    known, queries = memory(), torch.from_numpy(np.random.default_rng(2).normal(size=(4, 3)))
    prototypes, _ = rectified(known, queries[:0], 0.0)
    check(compare_means(Span.of(known.keys, queries, n_products), known), prototypes, queries.numpy())


@pytest.mark.parametrize(("sharpness", "dtype"), [(1e5, torch.float64), (1000.0, torch.float32)])
def test_the_sharpest_prototype_is_the_row_that_is_most_like_the_mean(sharpness, dtype):
    keys = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=dtype)
    known = Memory.of_keys(keys, torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=dtype), 1)
    found = rectify(Span(keys, keys[2:]), known, sharpness, True)  # moved onto the mean, which is most like itself
    mean = keys.mean(0)
    torch.testing.assert_close(found.products, (mean @ mean).reshape(1, 1))
    found = rectify(Span(keys, keys[:0]), known, sharpness, True)
    torch.testing.assert_close(found.prototypes, keys[2:].square().sum(-1))


def test_similarities_of_rows_without_length_are_0():
    nothing = Compared(*(torch.zeros(shape) for shape in ((2, 3), (2,), (3,))), torch.zeros(2, 1, dtype=torch.bool))
    assert torch.all(nothing.cosine == 0)
    assert torch.all(nothing.sqeuclidean == 0)
