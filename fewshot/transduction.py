"""What methods share that look at all queries at once: rectified prototypes, and classes by optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.memory import Memory
from fewshot.similarity import normalize
from fewshot.statistics import Statistics

#: Rounds of optimal transport at most, and how far shares may be off at its end.
MAX_ROUNDS, TOLERANCE = 500, 1e-10
#: Rounds that are enough but where scores lie far apart.
FEW_ROUNDS = 12
#: What is as good as nothing, as a factor and as a difference.
TINY, ROUNDING = 1e-300, 1e-9


def class_means(memory: Memory) -> tuple[Tensor, Tensor]:
    """Return mean (..., n_way, d) and count (..., n_way) of the keys of each class, by their weights."""
    statistics = Statistics.of_support(memory.keys, memory.labels, memory.n_way, memory.log_weight.exp())
    return statistics.means, statistics.count


def rectify(memory: Memory, queries: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Move queries (..., q, d) onto the support, and prototypes towards the queries that look like them.

    Each query is shifted by the difference of the means of support and queries and takes the class of the prototype of
    the largest cosine. Then the prototype of a class is the mean of its support and these queries, each weighted by
    ``exp(sharpness cosine(x, prototype))``.

    Returns
    -------
    prototypes : Tensor of shape (..., n_way, d)
        0 for a class without support.
    queries : Tensor of shape (..., q, d)
        Shifted.

    References
    ----------
    J. Liu, L. Song, Y. Qin (2020). Prototype Rectification for Few-Shot Learning. ECCV. arXiv:1911.10713.
    """
    weight, (means, count) = memory.log_weight.exp(), class_means(memory)
    middle = (weight.unsqueeze(-2) @ memory.keys) / count.sum(-1)[..., None, None]
    if queries.shape[-2]:
        queries = queries + (middle - queries.mean(-2, keepdim=True))
    absent, units = (count == 0).unsqueeze(-2), normalize(means).mT
    near, far = ((normalize(x) @ units).masked_fill(absent, -torch.inf) for x in (memory.keys, queries))
    own = near.gather(-1, memory.labels.unsqueeze(-1)).squeeze(-1)
    best, taken_for = far.max(-1)
    # The largest of each class is taken off: it cancels, and nothing over- or underflows.
    parts = [(torch.where(weight > 0, sharpness * own, -torch.inf), memory.labels), (sharpness * best, taken_for)]
    top = own.new_full(means.shape[:-1], -torch.inf)
    for exponent, labels in parts:
        top = top.scatter_reduce(-1, labels, exponent.detach(), "amax")
    top = torch.where(torch.isfinite(top), top, 0)
    sums, total = torch.zeros_like(means), torch.zeros_like(top)
    for (exponent, labels), x, times in zip(
        parts, (memory.keys, queries), (weight, torch.ones_like(best)), strict=True
    ):
        shares = times * (exponent - top.gather(-1, labels)).exp()
        # A row a class, a column an image: as large as the logits, and a product instead of copies of the images.
        spread = sums.new_zeros((*top.shape, x.shape[-2])).scatter(-2, labels.unsqueeze(-2), shares.unsqueeze(-2))
        sums, total = sums + spread @ x, total + spread.sum(-1)
    return sums / torch.where(total > 0, total, 1).unsqueeze(-1), queries


def transport(scores: Tensor, share: Tensor) -> Tensor:
    """Return log-probabilities of classes (..., q, n_way) that are spread over the queries as `share` says.

    They are the plan of optimal transport of the least cost, minus `scores`, with entropy: rows sum to 1, columns to
    ``q share``, to 1e-10 q. In double precision, each episode until its own columns fit, for at most 500 rounds: by
    Sinkhorn's step or by Newton's, whichever brings more. Usually five rounds do.

    Parameters
    ----------
    scores : Tensor of shape (..., q, n_way)
        Logits; minus infinity for a class that is not there.
    share : Tensor of shape (..., n_way)
        What part of the queries is of each class; sums to 1, 0 for a class that is not there.

    References
    ----------
    M. Cuturi (2013). Sinkhorn Distances: Lightspeed Computation of Optimal Transport. NeurIPS. arXiv:1306.0895.
    """
    there, share = share > 0, share.double()
    wanted = share / share.sum(-1, keepdim=True) * scores.shape[-2]
    # Classes come before queries here: sums over few classes are sums of long rows.
    logits = scores.double().mT.masked_fill(~there.unsqueeze(-1), -torch.inf)
    curved = there.unsqueeze(-1) & there.unsqueeze(-2)
    v = torch.zeros_like(wanted)
    for i in range(MAX_ROUNDS):
        plan = (logits + v.unsqueeze(-1)).softmax(-2)
        found = plan.sum(-1)
        moving = ((found - wanted).abs() > TOLERANCE * scores.shape[-2]).any(-1, keepdim=True)
        if not moving.any():
            break
        sinkhorn = torch.where(there, (wanted.clamp(min=TINY) / found.clamp(min=TINY)).log(), 0)
        # A common factor of all columns changes nothing: that direction is given some curvature.
        hessian = torch.diag_embed(torch.where(there, found, 1)) - plan @ plan.mT + curved / curved.shape[-1]
        newton = torch.nan_to_num(torch.linalg.solve_ex(hessian, (wanted - found).unsqueeze(-1))[0].squeeze(-1))
        steps = torch.stack([sinkhorn, newton / 8, newton], -2)
        if i >= FEW_ROUNDS:  # scores lie far apart: the one goes too slowly, the other too far
            steps = torch.cat([64 * steps[..., :1, :], 8 * steps[..., :1, :], steps / 64, steps], -2)
        # Where one is as good as another but for rounding, the last: near the end that is Newton's.
        bounds = _bounds(v.unsqueeze(-2) + steps.detach(), logits.detach(), wanted)
        good = bounds <= bounds.amin(-1, keepdim=True) + ROUNDING
        best = (good * torch.arange(1, good.shape[-1] + 1, device=v.device)).argmax(-1, keepdim=True)
        step = steps.gather(-2, best.unsqueeze(-1).expand(*best.shape, v.shape[-1])).squeeze(-2)
        v = torch.where(moving, v + step, v)
    return (logits + v.unsqueeze(-1)).log_softmax(-2).mT.to(scores.dtype)


def _bounds(v: Tensor, logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the dual (..., k) at some logarithms v (..., k, n_way) of the columns' factors.

    It is convex in v, and least where the columns of the plan are as wanted.
    """
    rows = (logits.unsqueeze(-3) + v.unsqueeze(-1)).logsumexp(-2).sum(-1)
    return rows - (v * wanted.unsqueeze(-2)).sum(-1)
