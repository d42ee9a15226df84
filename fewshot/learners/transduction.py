"""Shared parts of transductive learners: rectified prototypes and optimal transport."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.learners.memory import Memory
from fewshot.search.similarity import inner_products, sum_of_squares
from fewshot.utils.values import check_name

#: Most rounds of optimal transport, and the largest error of the class shares at convergence.
MAX_ROUNDS, TOLERANCE = 500, 1e-10
#: Rounds that suffice unless scores are far apart.
FEW_ROUNDS = 12
#: Lower bound of divisors, and the difference below which two bounds count as equal.
TINY, ROUNDING = 1e-300, 1e-9
#: The prior of which classes the queries are: none, or shares estimated from them.
SharePrior = Literal["none", "estimated"]
SHARE_PRIORS: tuple[SharePrior, ...] = get_args(SharePrior)
ESTIMATED = SHARE_PRIORS[1]
#: What is made of queries that are moved: prototypes, while they are answered where they were.
Shift = Literal["prototypes"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)
(PROTOTYPES,) = SHIFTS
#: Rounds that estimate shares, and the temperature of the cosines from which they are estimated.
SHARE_ROUNDS, SHARE_TEMPERATURE = 10, 1 / 60
#: Largest ratio of a factor to the largest logit at which their sum keeps the digits of the logit.
LARGEST_FACTOR = 1e6


@dataclass(frozen=True, eq=False)
class Span:
    """Keys and queries of an episode, and inner products with linear combinations of them.

    Transductive prototypes are linear combinations of the rows. If many combinations are needed, the Gram matrix of the
    rows gives all inner products.

    Attributes
    ----------
    keys : Tensor of shape (..., m, d)
        The first rows.
    queries : Tensor of shape (..., q, d)
        The rows after them.
    gram : Tensor of shape (..., m + q, m + q) or None
        Inner products of all rows; None if combinations are computed explicitly.
    """

    keys: Tensor
    queries: Tensor
    gram: Tensor | None = None

    @classmethod
    def of(cls, keys: Tensor, queries: Tensor, n_products: int) -> Span:
        """Return a span suited to inner products with `n_products` combinations."""
        if keys.shape[-2] + queries.shape[-2] > n_products:
            return cls(keys, queries)
        across = inner_products(keys, queries)
        first = torch.cat([inner_products(keys, keys), across], -1)
        second = torch.cat([across.mT, inner_products(queries, queries)], -1)
        return cls(keys, queries, torch.cat([first, second], -2))

    def products(self, combinations: Tensor) -> Tensor:
        """Return the inner products (..., c, m + q) of each row with `combinations` (..., c, m + q) of the rows."""
        if self.gram is not None:
            return inner_products(combinations, self.gram)
        m = self.keys.shape[-2]
        formed = inner_products(combinations[..., :m], self.keys.mT)
        formed = formed + inner_products(combinations[..., m:], self.queries.mT)
        return torch.cat([inner_products(formed, rows) for rows in (self.keys, self.queries)], -1)

    def squares(self) -> Tensor:
        """Return the squared lengths (..., m + q) of the rows."""
        if self.gram is not None:
            return self.gram.diagonal(dim1=-2, dim2=-1)
        return torch.cat([sum_of_squares(rows) for rows in (self.keys, self.queries)], -1)


@dataclass(frozen=True, eq=False)
class Compared:
    """Inner products and squared lengths of prototypes and queries.

    Attributes
    ----------
    products : Tensor of shape (..., n_way, q)
        Inner products of each prototype with each query.
    prototypes : Tensor of shape (..., n_way)
        Squared lengths of the prototypes.
    queries : Tensor of shape (..., q)
        Squared lengths of the queries.
    absent : Tensor of shape (..., n_way, 1)
        Which classes have no support.
    """

    products: Tensor
    prototypes: Tensor
    queries: Tensor
    absent: Tensor

    @property
    def cosine(self) -> Tensor:
        """Cosines (..., n_way, q); 0 for vectors of length 0."""
        return self.products * inverse_root(self.prototypes).unsqueeze(-1) * inverse_root(self.queries).unsqueeze(-2)

    @property
    def sqeuclidean(self) -> Tensor:
        """Minus the squared distances (..., n_way, q)."""
        return (2 * self.products - self.prototypes.unsqueeze(-1) - self.queries.unsqueeze(-2)).clamp(max=0)


def inverse_root(squares: Tensor) -> Tensor:
    """Return 1 / sqrt(x), or 0 with zero gradient unless x > 0."""
    return torch.where(squares > 0, torch.where(squares > 0, squares, 1).rsqrt(), 0)


def mean_weights(memory: Memory) -> tuple[Tensor, Tensor]:
    """Return the weight of each key in its class mean (..., n_way, m), and which classes are absent (..., n_way, 1)."""
    weight = memory.log_weight.exp()
    spread = weight.new_zeros((*weight.shape[:-1], memory.n_way, weight.shape[-1]))
    spread = spread.scatter(-2, memory.labels.unsqueeze(-2), weight.unsqueeze(-2))
    count = spread.sum(-1, keepdim=True)
    return spread / torch.where(count > 0, count, 1), count == 0


def compare_means(span: Span, memory: Memory) -> Compared:
    """Compare queries with the class means of the keys."""
    m, (means, absent) = memory.keys.shape[-2], mean_weights(memory)
    means = F.pad(means, (0, span.queries.shape[-2]))
    products = span.products(means)
    return Compared(products[..., m:], (means * products).sum(-1), span.squares()[..., m:], absent)


def estimated_shares(scores: Tensor) -> Tensor:
    """Return the logarithms of the class shares (..., n_way, 1) under which the queries are likeliest.

    They are estimated by `SHARE_ROUNDS` rounds of expectation maximisation from the logits `scores` (..., n_way, q), in
    which each present class has one query more than it has. Adding them to the logits of a single query, or of queries
    that are all nearest to one class, changes no answer.

    References
    ----------
    M. Saerens, P. Latinne, C. Decaestecker (2002). Adjusting the Outputs of a Classifier to New a Priori Probabilities:
    A Simple Procedure. Neural Computation 14(1).
    """
    log_share = torch.zeros_like(scores[..., :1])
    for _ in range(SHARE_ROUNDS if scores.shape[-1] else 0):
        log_share = log_shares((scores + log_share).softmax(-2), 1.0)
    return log_share


def log_shares(probability: Tensor, more: float) -> Tensor:
    """Return the logarithms (..., n_way, 1) of the shares of classes, each counted with `more` queries than it has."""
    return ((probability.sum(-1, keepdim=True) + more) / (probability.shape[-1] + more * probability.shape[-2])).log()


def check_shift(shift: Any) -> bool | Shift:
    """Return the parameter `shift` of a learner.

    Raises
    ------
    ValueError
        If it is text other than "prototypes".
    """
    return check_name("shift", cast(Shift, shift), SHIFTS) if isinstance(shift, str) else bool(shift)


def rectify(span: Span, memory: Memory, sharpness: float, shifted: bool | str, prior: str = "none") -> Compared:
    """Rectify the prototypes by the queries, and compare the two.

    Queries are pseudo-labelled with the prototype of largest cosine; if `shifted`, after they are moved by the
    difference between the means of support and queries; if `prior` is "estimated", with the logarithms of the
    `estimated_shares` of the classes added to the cosines / `SHARE_TEMPERATURE`. The rectified prototype of a class is
    the mean of its support and its pseudo-labelled queries, weighted by ``exp(sharpness cosine(x, prototype))``. If
    `shifted` is "prototypes", they are compared with the queries where they were.

    References
    ----------
    J. Liu, L. Song, Y. Qin (2020). Prototype Rectification for Few-Shot Learning. ECCV. arXiv:1911.10713.
    """
    m, q = memory.keys.shape[-2], span.queries.shape[-2]
    (means, absent), weight = mean_weights(memory), memory.log_weight.exp().unsqueeze(-2)
    shift = F.pad(weight / weight.sum(-1, keepdim=True), (0, q), value=-1 / max(q, 1))
    means = F.pad(means, (0, q))
    shift = shift if q and shifted else torch.zeros_like(shift)
    products = span.products(torch.cat([means, shift], -2))
    (with_means, with_shift), squares = products.split([memory.n_way, 1], -2), span.squares()

    def compared(combinations: Tensor, products: Tensor) -> Compared:
        """Compare prototypes with the keys and the shifted queries."""
        shifted = (combinations * with_shift).sum(-1, keepdim=True)
        moved = torch.cat([products[..., :m], products[..., m:] + shifted], -1)
        return Compared(moved, (combinations * products).sum(-1), lengths, absent)

    step = 2 * with_shift[..., 0, m:] + (shift * with_shift).sum(-1)
    lengths = torch.cat([squares[..., :m], squares[..., m:] + step], -1)
    cosine = compared(means, with_means).cosine
    scores = cosine[..., m:].masked_fill(absent, -torch.inf)
    if prior == ESTIMATED:
        scores = scores / SHARE_TEMPERATURE
        scores = scores + estimated_shares(scores)
    pseudo_labels = scores.max(-2).indices  # ten times as fast as argmax
    labels = torch.cat([memory.labels, pseudo_labels], -1).unsqueeze(-2)
    exponents = sharpness * cosine.gather(-2, labels) + F.pad(memory.log_weight, (0, q)).unsqueeze(-2)
    spread = torch.full_like(cosine, -torch.inf).scatter(-2, labels, exponents)
    shares = torch.where(absent, 0, torch.where(absent, 0, spread).softmax(-1))
    rectified = shares + shares[..., m:].sum(-1, keepdim=True) * shift
    with_rectified = span.products(rectified)
    found = compared(rectified, with_rectified)
    if shifted == PROTOTYPES:
        found = replace(found, products=with_rectified, queries=squares)
    return replace(found, products=found.products[..., m:], queries=found.queries[..., m:])


def transport(scores: Tensor, share: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distribute queries over classes in given shares, by entropic optimal transport with cost ``-scores``.

    The probabilities of each query sum to 1, and those of each class to ``q share`` within 1e-10 q. Each episode is
    solved in double precision until its own classes fit: by Newton's method, in about five rounds; if that does not
    converge, by the better of a Sinkhorn and a Newton step, in at most 500 rounds.

    Parameters
    ----------
    scores : Tensor of shape (..., n_way, q)
        Logits; minus infinity for absent classes.
    share : Tensor of shape (..., n_way)
        Fraction of the queries in each class; sums to 1, 0 for absent classes.
    start : Tensor of shape (..., n_way), optional
        Factors of a similar problem, as a starting point.

    Returns
    -------
    log_probability : Tensor of shape (..., n_way, q)
        Logarithms of the plan.
    factors : Tensor of shape (..., n_way)
        Logarithms of the column factors, added to the scores of each class.

    References
    ----------
    M. Cuturi (2013). Sinkhorn Distances: Lightspeed Computation of Optimal Transport. NeurIPS. arXiv:1306.0895.
    """
    share = share.double()
    wanted = share / share.sum(-1, keepdim=True) * scores.shape[-1]
    logits = scores.double().masked_fill((share == 0).unsqueeze(-1), -torch.inf)
    with torch.no_grad():
        v, moving = _newton(logits, wanted, torch.zeros_like(wanted) if start is None else start)
        if moving.any():
            v = torch.where(moving, _search(logits, wanted, torch.zeros_like(wanted)), v)
    if logits.requires_grad:
        # One more step, which leaves the value but carries the gradient of the solution.
        plan, missing, _ = _plan(logits, wanted, v)
        v = v + _newton_step(plan.detach(), wanted, missing)
    return (logits + v.unsqueeze(-1)).log_softmax(-2).to(scores.dtype), v


def _newton(logits: Tensor, wanted: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return v after a few Newton steps, and which episodes (..., 1) have not converged."""
    for i in range(FEW_ROUNDS):
        plan, missing, moving = _plan(logits, wanted, v)
        if not moving.any() or i == FEW_ROUNDS - 1:
            break
        v = torch.where(moving, v + _newton_step(plan, wanted, missing), v)
    return v, moving


def _search(logits: Tensor, wanted: Tensor, v: Tensor) -> Tensor:
    """Return v after line searches along Sinkhorn and Newton steps, until every episode has converged."""
    for i in range(MAX_ROUNDS):
        plan, missing, moving = _plan(logits, wanted, v)
        if not moving.any():
            break
        found = wanted - missing
        sinkhorn = torch.where(wanted > 0, (wanted.clamp(min=TINY) / found.clamp(min=TINY)).log(), 0)
        newton = _newton_step(plan, wanted, missing)
        steps = torch.stack([sinkhorn, newton / 8, newton], -2)
        if i >= FEW_ROUNDS:  # scores are far apart: Sinkhorn steps are too short and Newton steps too long
            steps = torch.cat([64 * steps[..., :1, :], 8 * steps[..., :1, :], steps / 64, steps], -2)
        # Of steps that are equally good up to rounding the last, which is Newton's near convergence.
        bounds = _bounds(v.unsqueeze(-2) + steps, logits, wanted)
        good = bounds <= bounds.amin(-1, keepdim=True) + ROUNDING
        best = (good * torch.arange(1, good.shape[-1] + 1, device=v.device)).argmax(-1, keepdim=True)
        step = steps.gather(-2, best.unsqueeze(-1).expand(*best.shape, v.shape[-1])).squeeze(-2)
        v = torch.where(moving, v + step, v)
    return v


def _plan(logits: Tensor, wanted: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the plan (..., n_way, q), the deficit of its classes (..., n_way), and whether to go on (..., 1)."""
    plan = (logits + v.unsqueeze(-1)).softmax(-2)
    missing = wanted - plan.sum(-1)
    fits = missing.abs().amax(-1, keepdim=True) <= TOLERANCE * logits.shape[-1]  # False for NaN, too
    # If the factors are far larger than the logits, rounding loses the logits and makes the plan uniform.
    largest = F.pad(logits.masked_fill(logits.isinf(), 0), (0, 1), value=1).abs().amax((-2, -1)).unsqueeze(-1)
    fits &= v.abs().amax(-1, keepdim=True) <= LARGEST_FACTOR * largest
    return plan, missing, ~fits


def _newton_step(plan: Tensor, wanted: Tensor, missing: Tensor) -> Tensor:
    """Return the Newton step (..., n_way) on the dual."""
    present = (wanted > 0).to(wanted)
    # The dual is flat along a common factor of all classes, so that direction is given some curvature.
    curved = present.unsqueeze(-1) * (present / wanted.shape[-1]).unsqueeze(-2)
    hessian = curved - plan @ plan.mT
    hessian.diagonal(dim1=-2, dim2=-1).add_(wanted - missing.detach() + 1 - present)
    step = torch.linalg.solve_ex(hessian, missing.unsqueeze(-1))[0].squeeze(-1)
    return torch.where(step.isfinite(), step, 0)  # 0 if the plan is too sharp to solve


def _bounds(v: Tensor, logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the dual (..., k) at logarithms v (..., k, n_way) of the column factors.

    The dual is convex in v and least where the columns of the plan have the wanted sums.
    """
    rows = (logits.unsqueeze(-3) + v.unsqueeze(-1)).logsumexp(-2).sum(-1)
    return rows - (v * wanted.unsqueeze(-2)).sum(-1)
