"""What methods share that look at all queries at once: rectified prototypes, and classes by optimal transport."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.learners.memory import Memory
from fewshot.search.similarity import inner_products, sum_of_squares

#: Rounds of optimal transport at most, and how far shares may be off at its end.
MAX_ROUNDS, TOLERANCE = 500, 1e-10
#: Rounds that are enough but where scores lie far apart.
FEW_ROUNDS = 12
#: What is as good as nothing, as a factor and as a difference.
TINY, ROUNDING = 1e-300, 1e-9
#: How much larger than the largest logit a factor may be, so that the sum of both keeps the digits of the logit.
LARGEST_FACTOR = 1e6


@dataclass(frozen=True, eq=False)
class Span:
    """Support and queries of an episode, and the inner products of each with combinations of them.

    Prototypes that follow the queries are combinations of the embeddings. Where many are asked for, the products of the
    embeddings with each other answer all of them.

    Attributes
    ----------
    keys : Tensor of shape (..., m, d)
        Rows that come first.
    queries : Tensor of shape (..., q, d)
        Rows that follow.
    gram : Tensor of shape (..., m + q, m + q) or None
        Inner products of all rows; None if each combination is formed instead.
    """

    keys: Tensor
    queries: Tensor
    gram: Tensor | None = None

    @classmethod
    def of(cls, keys: Tensor, queries: Tensor, n_products: int) -> Span:
        """Make one, of which products with so many combinations are asked for."""
        if keys.shape[-2] + queries.shape[-2] > n_products:
            return cls(keys, queries)
        across = inner_products(keys, queries)
        first = torch.cat([inner_products(keys, keys), across], -1)
        second = torch.cat([across.mT, inner_products(queries, queries)], -1)
        return cls(keys, queries, torch.cat([first, second], -2))

    def products(self, combinations: Tensor) -> Tensor:
        """Return the inner products (..., c, m + q) of each row with combinations (..., c, m + q) of the rows."""
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
    """Queries beside prototypes.

    Attributes
    ----------
    products : Tensor of shape (..., n_way, q)
        Inner products of each prototype with each query.
    prototypes : Tensor of shape (..., n_way)
        Squared lengths of the prototypes.
    queries : Tensor of shape (..., q)
        Squared lengths of the queries.
    absent : Tensor of shape (..., n_way, 1)
        Whether a class is not there.
    """

    products: Tensor
    prototypes: Tensor
    queries: Tensor
    absent: Tensor

    @property
    def cosine(self) -> Tensor:
        """The cosines (..., n_way, q); 0 where a length is 0."""
        return self.products * inverse_root(self.prototypes).unsqueeze(-1) * inverse_root(self.queries).unsqueeze(-2)

    @property
    def sqeuclidean(self) -> Tensor:
        """Minus the squared distances (..., n_way, q)."""
        return (2 * self.products - self.prototypes.unsqueeze(-1) - self.queries.unsqueeze(-2)).clamp(max=0)


def inverse_root(squares: Tensor) -> Tensor:
    """Return 1 / sqrt(x), and 0 with zero gradient where x is not above 0."""
    return torch.where(squares > 0, torch.where(squares > 0, squares, 1).rsqrt(), 0)


def mean_weights(memory: Memory) -> tuple[Tensor, Tensor]:
    """Return what each key counts in the mean of its class (..., n_way, m), and who has none (..., n_way, 1)."""
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


def rectify(span: Span, memory: Memory, sharpness: float) -> Compared:
    """Move queries onto the support, and prototypes towards the queries that look like them; compare the two.

    Each query is shifted by the difference of the means of support and queries and takes the class of the prototype of
    the largest cosine. Then the prototype of a class is the mean of its support and these queries, each weighted by
    ``exp(sharpness cosine(x, prototype))``.

    References
    ----------
    J. Liu, L. Song, Y. Qin (2020). Prototype Rectification for Few-Shot Learning. ECCV. arXiv:1911.10713.
    """
    m, q = memory.keys.shape[-2], span.queries.shape[-2]
    (means, absent), weight = mean_weights(memory), memory.log_weight.exp().unsqueeze(-2)
    shift = F.pad(weight / weight.sum(-1, keepdim=True), (0, q), value=-1 / max(q, 1))
    means = F.pad(means, (0, q))
    shift = shift if q else torch.zeros_like(shift)
    products = span.products(torch.cat([means, shift], -2))
    (with_means, with_shift), squares = products.split([memory.n_way, 1], -2), span.squares()

    def compared(combinations: Tensor, products: Tensor) -> Compared:
        """Compare prototypes with the rows: keys as they are, queries shifted."""
        shifted = (combinations * with_shift).sum(-1, keepdim=True)
        moved = torch.cat([products[..., :m], products[..., m:] + shifted], -1)
        return Compared(moved, (combinations * products).sum(-1), longer, absent)

    step = 2 * with_shift[..., 0, m:] + (shift * with_shift).sum(-1)
    longer = torch.cat([squares[..., :m], squares[..., m:] + step], -1)
    cosine = compared(means, with_means).cosine
    taken_for = cosine[..., m:].masked_fill(absent, -torch.inf).max(-2).indices  # argmax would take ten times as long
    labels = torch.cat([memory.labels, taken_for], -1).unsqueeze(-2)
    exponents = sharpness * cosine.gather(-2, labels) + F.pad(memory.log_weight, (0, q)).unsqueeze(-2)
    spread = torch.full_like(cosine, -torch.inf).scatter(-2, labels, exponents)
    shares = torch.where(absent, 0, torch.where(absent, 0, spread).softmax(-1))
    rectified = shares + shares[..., m:].sum(-1, keepdim=True) * shift
    found = compared(rectified, span.products(rectified))
    return replace(found, products=found.products[..., m:], queries=found.queries[..., m:])


def transport(scores: Tensor, share: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Spread queries over classes as `share` says.

    Log-probabilities of classes are the plan of optimal transport of the least cost, minus `scores`, with entropy: the
    classes of a query sum to 1, the queries of a class to ``q share``, to 1e-10 q. In double precision, each episode
    until its own classes fit: by Newton's steps, which take about five rounds, and where these lead nowhere by
    Sinkhorn's or Newton's, whichever brings more, for at most 500 rounds.

    Parameters
    ----------
    scores : Tensor of shape (..., n_way, q)
        Logits; minus infinity for a class that is not there.
    share : Tensor of shape (..., n_way)
        What part of the queries is of each class; sums to 1, 0 for a class that is not there.
    start : Tensor of shape (..., n_way), optional
        The factors of a problem that is much alike.

    Returns
    -------
    log_probability : Tensor of shape (..., n_way, q)
        Logarithms of the plan.
    factors : Tensor of shape (..., n_way)
        What was added to the scores of each class.

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
        # A step that changes nothing, but for the gradient, which is that of the solution.
        plan, missing, _ = _plan(logits, wanted, v)
        v = v + _newton_step(plan.detach(), wanted, missing)
    return (logits + v.unsqueeze(-1)).log_softmax(-2).to(scores.dtype), v


def _newton(logits: Tensor, wanted: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return v after a few steps of Newton's, and which episodes (..., 1) have not come to an end."""
    for i in range(FEW_ROUNDS):
        plan, missing, moving = _plan(logits, wanted, v)
        if not moving.any() or i == FEW_ROUNDS - 1:
            break
        v = torch.where(moving, v + _newton_step(plan, wanted, missing), v)
    return v, moving


def _search(logits: Tensor, wanted: Tensor, v: Tensor) -> Tensor:
    """Return v after as many steps as it takes, each in the direction and of the length that bring most."""
    for i in range(MAX_ROUNDS):
        plan, missing, moving = _plan(logits, wanted, v)
        if not moving.any():
            break
        found = wanted - missing
        sinkhorn = torch.where(wanted > 0, (wanted.clamp(min=TINY) / found.clamp(min=TINY)).log(), 0)
        newton = _newton_step(plan, wanted, missing)
        steps = torch.stack([sinkhorn, newton / 8, newton], -2)
        if i >= FEW_ROUNDS:  # scores lie far apart: the one goes too slowly, the other too far
            steps = torch.cat([64 * steps[..., :1, :], 8 * steps[..., :1, :], steps / 64, steps], -2)
        # Where one is as good as another but for rounding, the last: near the end that is Newton's.
        bounds = _bounds(v.unsqueeze(-2) + steps, logits, wanted)
        good = bounds <= bounds.amin(-1, keepdim=True) + ROUNDING
        best = (good * torch.arange(1, good.shape[-1] + 1, device=v.device)).argmax(-1, keepdim=True)
        step = steps.gather(-2, best.unsqueeze(-1).expand(*best.shape, v.shape[-1])).squeeze(-2)
        v = torch.where(moving, v + step, v)
    return v


def _plan(logits: Tensor, wanted: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the plan (..., n_way, q), what its classes lack (..., n_way), and whether that is too much (..., 1)."""
    plan = (logits + v.unsqueeze(-1)).softmax(-2)
    missing = wanted - plan.sum(-1)
    fits = missing.abs().amax(-1, keepdim=True) <= TOLERANCE * logits.shape[-1]  # False for NaN, too
    # Beside factors far larger than the logits these vanish, and the plan is uniform whatever they say.
    largest = F.pad(logits.masked_fill(logits.isinf(), 0), (0, 1), value=1).abs().amax((-2, -1)).unsqueeze(-1)
    fits &= v.abs().amax(-1, keepdim=True) <= LARGEST_FACTOR * largest
    return plan, missing, ~fits


def _newton_step(plan: Tensor, wanted: Tensor, missing: Tensor) -> Tensor:
    """Return Newton's step (..., n_way) on the dual."""
    there = (wanted > 0).to(wanted)
    # A common factor of all classes changes nothing: that direction is given some curvature.
    curved = there.unsqueeze(-1) * (there / wanted.shape[-1]).unsqueeze(-2)
    hessian = curved - plan @ plan.mT
    hessian.diagonal(dim1=-2, dim2=-1).add_(wanted - missing.detach() + 1 - there)
    step = torch.linalg.solve_ex(hessian, missing.unsqueeze(-1))[0].squeeze(-1)
    return torch.where(step.isfinite(), step, 0)  # where the plan is so sharp that no step can be computed


def _bounds(v: Tensor, logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the dual (..., k) at some logarithms v (..., k, n_way) of the columns' factors.

    It is convex in v, and least where the columns of the plan are as wanted.
    """
    rows = (logits.unsqueeze(-3) + v.unsqueeze(-1)).logsumexp(-2).sum(-1)
    return rows - (v * wanted.unsqueeze(-2)).sum(-1)
