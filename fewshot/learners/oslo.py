"""Open-set likelihood maximisation: which queries belong to a class at all, while they are answered together."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.transduction import inverse_root, mean_weights
from fewshot.search.similarity import normalize
from fewshot.utils.discriminant import signed_power
from fewshot.utils.values import check_count, check_number

#: Strength of the regularisation of T, for rows of unit length, and the most that all queries together count in it.
STRENGTH, MOST_OF_QUERIES = 0.1, 30.0
#: The weight beyond which a row of the support teaches T no more.
MOST_WEIGHT = 100.0
#: A normal distribution has its standard deviation at this many median absolute deviations.
DEVIATIONS = 1.4826
#: The least spread of cosines, which are then all alike.
LEAST_SPREAD = 1e-6


@register_learner("oslo")
class OSLOLearner(SupportLearner):
    r"""Answer with the nearest prototype, refined by those queries alone that belong to a class. Transductive.

    Use it if queries come together and some of them are of none of the classes.

    Each query has an inlierness xi, the probability that it belongs to one of the classes, and an assignment z to them.
    From the class means P, `n_iterations` rounds compute in closed form, with :math:`a_{qc} = \cos(q, P_c) / s`, K
    classes and the threshold t:

    .. math:: z_q = \operatorname{softmax}_c(a_{qc}), \qquad
              \xi_q = \sigma \Bigl( \log \frac{1}{K} \sum_c e^{a_{qc}} - t \Bigr), \qquad
              P_c \leftarrow \frac{n_c m_c + \sum_q \xi_q z_{qc} \, q}{n_c + \sum_q \xi_q z_{qc}}

    where :math:`m_c` is the mean of the :math:`n_c` support images of class c.

    The logits are the last a, and the score of a query, which `reject` is compared with, is the log-odds of its last
    xi, so 0 is as likely in as out. Rows are signed roots of unit length, minus the mean of support and queries. The
    cosine is that in the metric of the second moment T of support and queries plus 0.1 times the identity, which damps
    what they share; of many queries, the sum counts as much as 30. s is the spread of all cosines, by the median
    absolute deviation: nearly all of them are those of queries with classes that are not theirs. O(n d) to store,
    O((n + q) d min(n + q, d)) for q queries.

    Parameters
    ----------
    threshold : float, default=3.0
        Log-odds that a query must have against being like no class.
    n_iterations : int, default=2
        Number of rounds. More of them draw queries of unknown classes in.

    References
    ----------
    M. Boudiaf, E. Bennequin, M. Tami, A. Toubhans, P. Piantanida, C. Hudelot, I. Ben Ayed (2023). Open-Set Likelihood
    Maximization for Few-Shot Learning. CVPR. arXiv:2301.08390. The paper has neither the threshold nor the metric, and
    the entropies of xi and z have weights of their own. Others of the field, OSTIM (arXiv:2206.09236) and EOL
    (arXiv:2408.02052), take gradient steps on the queries, so they are not among the learners.

    Examples
    --------
    >>> import torch
    >>> from fewshot import OSLOLearner, TransductiveClassifier
    >>> support, queries = torch.eye(4)[:2], torch.eye(4).repeat(3, 1)  # of four classes, two are known
    >>> model = TransductiveClassifier(OSLOLearner(threshold=2.0), reject=0.0).fit(support, ["a", "b"])
    >>> model.predict(queries)[:4].tolist()
    ['a', 'b', 'unknown', 'unknown']
    """

    indexable = False
    transductive = True
    supposes_balance = True  # queries of a few of the known classes move the mean that is subtracted

    def __init__(self, threshold: float = 3.0, n_iterations: int = 2) -> None:
        super().__init__("cosine")
        self.threshold = check_number("threshold", threshold)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)

    def transform(self, x: Tensor) -> Tensor:
        """Take the signed root of each number, and scale each embedding to unit length."""
        return normalize(signed_power(normalize(x), 0.5, torch))

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        weight, (shares, absent) = memory.log_weight.exp(), mean_weights(memory)
        count = torch.zeros_like(shares[..., 0]).scatter_add(-1, memory.labels, weight).unsqueeze(-1)
        n = weight.sum(-1, keepdim=True) + queries.shape[-2]
        middle = ((memory.keys * weight.unsqueeze(-1)).sum(-2) + queries.sum(-2)) / n.clamp(min=1e-30)
        support, queries = memory.keys - middle.unsqueeze(-2), queries - middle.unsqueeze(-2)
        taught = support * weight.clamp(max=MOST_WEIGHT).sqrt().unsqueeze(-1)
        part = min(1.0, MOST_OF_QUERIES / max(queries.shape[-2], 1))
        damp = _Metric(torch.cat([taught, queries * part**0.5], -2))
        means = torch.where(absent, 0, shares @ support)
        damped_means, damped = damp(means), damp(queries)
        scale = inverse_root((queries * damped).sum(-1)).unsqueeze(-1)
        prototypes, damped_prototypes = means, damped_means
        for i in range(self.n_iterations + 1):
            length = inverse_root((prototypes * damped_prototypes).sum(-1)).unsqueeze(-2)
            logits = _in_spreads(damped @ prototypes.mT * scale * length, absent.mT)
            if i < self.n_iterations:
                own = (self.closeness(logits, None).sigmoid().unsqueeze(-1) * logits.softmax(-1)).mT
                total = (count + own.sum(-1, keepdim=True)).clamp(min=1e-30)
                prototypes = (count * means + own @ queries) / total
                damped_prototypes = (count * damped_means + own @ damped) / total
        return logits

    def closeness(self, logits: Tensor, similarity: Tensor | None) -> Tensor:
        """Return the log-odds of the inlierness (..., q), which does not round to 1."""
        n = torch.isfinite(logits).sum(-1, dtype=logits.dtype).clamp(min=1)
        return logits.logsumexp(-1) - n.log() - self.threshold


class _Metric:
    """Multiply rows by STRENGTH T^-1, with T the second moment of other rows plus STRENGTH times the identity."""

    def __init__(self, rows: Tensor) -> None:
        n, d = rows.shape[-2:]
        side = STRENGTH * torch.eye(min(n, d), dtype=rows.dtype, device=rows.device)
        self.rows = rows if n < d else None
        self.factor = torch.linalg.cholesky((rows @ rows.mT if n < d else rows.mT @ rows) + side)

    def __call__(self, x: Tensor) -> Tensor:
        if self.rows is None:
            return STRENGTH * torch.cholesky_solve(x.mT, self.factor).mT
        return x - torch.cholesky_solve(self.rows @ x.mT, self.factor).mT @ self.rows


def _in_spreads(cosine: Tensor, absent: Tensor) -> Tensor:
    """Return cosines (..., q, n_way) in units of their spread; minus infinity for absent classes (..., 1, n_way)."""
    if not cosine.numel():
        return cosine
    middle = cosine.masked_fill(absent, torch.nan).flatten(-2).nanmedian(-1).values[..., None, None]
    away = (cosine - middle).abs().masked_fill(absent, torch.nan).flatten(-2).nanmedian(-1).values[..., None, None]
    return (cosine / (DEVIATIONS * away).clamp(min=LEAST_SPREAD)).masked_fill(absent, -torch.inf)
