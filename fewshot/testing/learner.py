"""The contract of a learner, as checks that need no test framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.learners.base import Learner
from fewshot.learners.registry import as_learner
from fewshot.utils.isolation import seeded

#: Called with a function that makes a learner for embeddings of 8 numbers; raises AssertionError.
Check = Callable[[Callable[[], Learner]], None]
#: Classes of the episodes, support of each, queries, and numbers of an embedding.
N_WAY, SHOTS, N_QUERY, D = 4, (1, 3, 2, 5), 6, 8


class Task(NamedTuple):
    """Uneven support in mixed order, and queries, in float64."""

    support: Tensor
    labels: Tensor
    queries: Tensor


def check_learner(make: Callable[[], Learner]) -> None:
    """Check that a learner fulfils the contract, see CONTRIBUTING.md.

    Parameters
    ----------
    make : callable
        Returns the learner, such as its class. One with weights takes embeddings of 8 numbers.

    Raises
    ------
    AssertionError
        If it does not; the message names the check, and says what differs.
    TypeError
        If `make` is a learner rather than what makes one, or makes something else.

    Examples
    --------
    >>> from fewshot import PrototypicalLearner
    >>> check_learner(PrototypicalLearner)
    """
    if isinstance(make, Learner):
        raise TypeError(f"make is a learner; pass what makes one: {type(make).__name__}, or lambda: learner")
    for check in learner_checks():
        try:
            check(make)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error


def learner_checks() -> list[Check]:
    """Return the checks one by one, to run each as a test of its own.

    Examples
    --------
    >>> [check.__name__ for check in learner_checks()][:2]
    ['batched_equals_single', 'padded_equals_unpadded']
    """
    return list(_CHECKS)


def task(n_way: int = N_WAY, shots: Sequence[int] = SHOTS, n_query: int = N_QUERY, batch: tuple[int, ...] = ()) -> Task:
    """Return the support and queries of an episode, always the same.

    Parameters
    ----------
    n_way, n_query : int
        Classes, and queries in all.
    shots : sequence of n_way int
        Support of each class.
    batch : tuple of int
        Leading dimensions.
    """
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(n_way), shots))
    support = torch.from_numpy(rng.normal(size=(*batch, len(labels), D)))
    queries = torch.from_numpy(rng.normal(size=(*batch, n_query, D)))
    return Task(support, torch.from_numpy(labels).expand(support.shape[:-1]), queries)


def batched_equals_single(make: Callable[[], Learner]) -> None:
    """Check that leading dimensions are episodes that know nothing of each other."""
    (support, labels, queries), learner = task(batch=(2, 3)), _made(make)
    batched = learner(support, labels, queries, N_WAY)
    _close(batched.shape, (2, 3, N_QUERY, N_WAY), "the shape of the logits")
    for i in np.ndindex(2, 3):
        _close(batched[i], learner(support[i], labels[i], queries[i], N_WAY), f"episode {i} of a batch")


def padded_equals_unpadded(make: Callable[[], Learner]) -> None:
    """Check that rows of weight 0 do not count, whatever they hold."""
    (support, labels, queries), learner = task(), _made(make)
    for junk in (0.0, 1e6, torch.nan):
        padded = torch.cat([support, support.new_full((3, D), junk)])
        weight = torch.cat([support.new_ones(len(labels)), support.new_zeros(3)]).double()
        found = learner(padded, torch.cat([labels, labels.new_tensor([-1, 0, 99])]), queries, N_WAY, weight)
        _close(found, learner(support, labels, queries, N_WAY), f"logits with three rows of {junk} and weight 0")


def order_is_irrelevant_unless_declared(make: Callable[[], Learner]) -> None:
    """Check that the order of the support changes nothing, but for a learner that is ``ordered``."""
    (support, labels, queries), learner = task(), _made(make)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(labels)))
    found, expected = learner(support[order], labels[order], queries, N_WAY), learner(support, labels, queries, N_WAY)
    if not learner.ordered:
        _close(found, expected, "logits of the support in another order")
    elif torch.allclose(found, expected):
        raise AssertionError("the learner is declared ordered = True, and the order of the support changes nothing")


def transforming_before_changes_nothing(make: Callable[[], Learner]) -> None:
    """Check that images may be transformed before: `evaluate` transforms each once, not in every episode."""
    (support, labels, queries), learner = task(), _made(make)
    expected = learner(support, labels, queries, N_WAY)
    found = learner(learner.transform(support), labels, learner.transform(queries), N_WAY, transformed=True)
    _close(found, expected, "logits of what was transformed before")


def answers_are_repeatable(make: Callable[[], Learner]) -> None:
    """Check that what it has learned and answered before does not matter."""
    (support, labels, queries), learner = task(), _made(make)
    first = learner(support, labels, queries, N_WAY)
    learner(support * 2, labels, queries[:2] - 1, N_WAY)
    _close(learner(support, labels, queries, N_WAY), first, "logits after another episode", exact=True)


def queries_may_be_few(make: Callable[[], Learner]) -> None:
    """Check that there may be no queries, or fewer than classes."""
    for n_query in (0, 1, 2):
        support, labels, queries = task(n_query=n_query)
        logits = _made(make)(support, labels, queries, N_WAY)
        _close(logits.shape, (n_query, N_WAY), f"the shape of the logits of {n_query} queries")
        _true(not logits.isnan().any(), f"logits of {n_query} queries are not a number")


def integer_weights_are_copies(make: Callable[[], Learner]) -> None:
    """Check that a row of weight 2 is as two equal rows, unless the learner is ``ordered``."""
    (support, labels, queries), learner = task(), _made(make)
    if learner.ordered:
        return
    weight = torch.arange(len(labels), device=labels.device) % 3 + 1
    copied = learner(support.repeat_interleave(weight, 0), labels.repeat_interleave(weight), queries, N_WAY)
    _close(learner(support, labels, queries, N_WAY, weight.double()), copied, "logits of weighted rows and of copies")


def statistics_add(make: Callable[[], Learner]) -> None:
    """Check that learning in two parts is learning at once."""
    (support, labels, queries), learner = task(), _made(make)
    first, second = (learner.learn(support[part], labels[part], N_WAY) for part in (slice(4), slice(4, None)))
    found = learner.answer(learner.memorize(first + second), queries)
    _close(found, learner(support, labels, queries, N_WAY), "logits of support that was learned in two parts")


def relabelling_permutes(make: Callable[[], Learner]) -> None:
    """Check that numbers of classes mean nothing."""
    (support, labels, queries), learner = task(), _made(make)
    places = labels.new_tensor([5, 0, 3, 2])
    moved = learner.answer(learner.memorize(learner.learn(support, labels, N_WAY).relabel(places, 6)), queries)
    _close(moved[:, places], learner(support, labels, queries, N_WAY), "logits of renumbered classes")
    _true(bool(torch.all(moved[:, [1, 4]] == -torch.inf)), "a class without support has a finite logit")


def one_image_of_one_class(make: Callable[[], Learner]) -> None:
    """Check that one image of one class is enough."""
    support, labels, queries = task(1, (1,))
    logits = _made(make)(support, labels, queries, 1)
    _close(logits.shape, (N_QUERY, 1), "the shape of the logits")
    _true(bool(torch.isfinite(logits).all()), "logits of one class are not finite")


def absent_classes_are_never_answered(make: Callable[[], Learner]) -> None:
    """Check that a class without support has minus infinity, and changes nothing for others."""
    (support, labels, queries), learner = task(shots=(2, 0, 3, 1)), _made(make)
    logits = learner(support, labels, queries, N_WAY)
    _true(bool(torch.all(logits[:, 1] == -torch.inf)), "a class without support has a finite logit")
    others = learner(support, labels.new_tensor([0, -1, 1, 2])[labels], queries, 3)
    _close(logits[:, [0, 2, 3]], others, "logits beside a class without support")


def queries_are_independent_unless_declared(make: Callable[[], Learner]) -> None:
    """Check that an answer does not depend on the other queries, but for a learner that is ``transductive``."""
    (support, labels, queries), learner = task(), _made(make)
    if not learner.transductive:
        alone = learner(support, labels, queries[2:3], N_WAY)
        _close(alone, learner(support, labels, queries, N_WAY)[2:3], "logits of a query alone and among others")


def gradients_are_finite(make: Callable[[], Learner]) -> None:
    """Check that gradients are finite, also of equal, zero, tiny and large rows, and with a class without support."""
    for scale in (1e-6, 1.0, 1e3):
        for case in ("plain", "equal rows", "zero rows", "absent class"):
            support, labels, queries = task(shots=(1, 0, 2, 2) if case == "absent class" else SHOTS)
            support, queries = support * scale, queries * scale
            if case == "equal rows":
                support, queries = support[:1].expand_as(support).clone(), support[:1].expand_as(queries).clone()
            if case == "zero rows":
                support, queries = torch.zeros_like(support), torch.zeros_like(queries)
            learner, leaves = _made(make).train(), (support.requires_grad_(), queries.requires_grad_())
            with seeded(0):
                loss = learner.loss(learner(support, labels, queries, N_WAY), labels.new_tensor([0, 2, 3, 3, -100, 0]))
            loss.backward()
            _true(bool(torch.isfinite(loss)), f"the loss is not finite: {case}, scale {scale:g}")
            grads = [leaf.grad for leaf in (*leaves, *learner.parameters()) if leaf.grad is not None]
            finite = all(bool(torch.isfinite(grad).all()) for grad in grads)
            _true(finite, f"a gradient is not finite: {case}, scale {scale:g}")


def gradients_reach_support_and_queries(make: Callable[[], Learner]) -> None:
    """Check that a gradient reaches both, so that their embedding can be trained."""
    (support, labels, queries), learner = task(), _made(make).train()
    support.requires_grad_(), queries.requires_grad_()
    with seeded(0):
        learner.loss(learner(support, labels, queries, N_WAY), labels.new_tensor([0, 1, 2, 3, 0, 1])).backward()
    for name, leaf in (("support", support), ("queries", queries)):
        _true(leaf.grad is not None and bool(leaf.grad.abs().sum() > 0), f"no gradient reaches the {name}")


def padding_queries_do_not_count(make: Callable[[], Learner]) -> None:
    """Check that queries with the target -100 are no part of the loss."""
    (support, labels, queries), learner = task(), _made(make)
    logits, target = learner(support, labels, queries, N_WAY), labels.new_tensor([0, 1, 2, 3, -100, -100])
    _close(learner.loss(logits, target), learner.loss(logits[:4], target[:4]), "the loss with padding queries")


def arguments_can_be_saved(make: Callable[[], Learner]) -> None:
    """Check that each constructor argument is an attribute of the same name, which JSON can hold."""
    try:
        _made(make).arguments()
    except TypeError as error:
        raise AssertionError(str(error)) from error


_CHECKS: tuple[Check, ...] = (
    batched_equals_single,
    padded_equals_unpadded,
    order_is_irrelevant_unless_declared,
    transforming_before_changes_nothing,
    answers_are_repeatable,
    queries_may_be_few,
    integer_weights_are_copies,
    statistics_add,
    relabelling_permutes,
    one_image_of_one_class,
    absent_classes_are_never_answered,
    queries_are_independent_unless_declared,
    gradients_are_finite,
    gradients_reach_support_and_queries,
    padding_queries_do_not_count,
    arguments_can_be_saved,
)


def _made(make: Callable[[], Learner]) -> Learner:
    return as_learner(make()).sized(D).double().eval()


def _close(found: Any, expected: Any, what: str, exact: bool = False) -> None:
    tolerance: dict[str, Any] = {"rtol": 0, "atol": 0} if exact else {}
    if not isinstance(found, Tensor):
        _true(tuple(found) == tuple(expected), f"{what}: found {tuple(found)}, expected {tuple(expected)}")
        return
    torch.testing.assert_close(found, expected, msg=lambda reason: f"{what}: {reason}", **tolerance)


def _true(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise AssertionError(otherwise)
