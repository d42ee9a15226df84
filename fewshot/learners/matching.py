"""Matching Networks: attention over the support embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric
from fewshot.utils.values import check_name

Replacement = Literal["reservoir", "oldest"]
REPLACEMENTS: tuple[Replacement, ...] = get_args(Replacement)


@register_learner("matching", "matching-networks")
class MatchingLearner(SupportLearner):
    r"""Answer with the class whose support receives most attention.

    Use it if single images matter more than their mean. If classes have uneven numbers of images, give
    ``centered=True`` and ``balanced=True``.

    .. math:: p(c \mid q) = \sum_{i:\, y_i = c} \frac{\exp(\cos(q, x_i) / \tau)}{\sum_j \exp(\cos(q, x_j) / \tau)}

    for a query q, the support x with labels y, and the temperature τ, without full-context embeddings (see
    `FullContextLearner`). The support is the memory: O(n d) to store, O(n d) per query.

    Every image adds its share, so a class with many more images than the others gets most answers, unless the learner
    is `balanced`; `DiscriminantLearner` does not mind.

    A classifier learns and forgets an image without touching the others, unless the learner is `centered` or
    `balanced`: then every key or weight depends on all classes.

    Parameters
    ----------
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        The paper uses the cosine.
    temperature : float or None, default=0.1
        Logits are similarity / temperature. The paper has no temperature, which means 1. Cosines lie in [-1, 1], so
        that softmax is nearly flat; the default here is sharper. None suits it to the spread of the class means.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    max_support : int, optional
        Support rows that a growing classifier retains per class; all by default.
    replacement : {"reservoir", "oldest"}, default="reservoir"
        Which rows a full class drops: those outside a uniform sample of all rows seen, or the oldest. See
        `rows_to_keep`.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings, scaled to unit length under the cosine.
    balanced : bool, default=False
        Whether each class has the same total weight, however many images it has.

    References
    ----------
    O. Vinyals, C. Blundell, T. Lillicrap, K. Kavukcuoglu, D. Wierstra (2016). Matching Networks for One Shot
    Learning. NeurIPS. arXiv:1606.04080.

    Examples
    --------
    >>> import torch
    >>> from fewshot import MatchingLearner
    >>> support = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> logits = MatchingLearner()(support, torch.tensor([0, 0, 1]), torch.tensor([[0.2, 1.0]]), n_way=2)
    >>> logits.argmax(-1)
    tensor([1])
    """

    by_distance = True

    def __init__(
        self,
        metric: Metric = "cosine",
        temperature: float | None = 0.1,
        learn_temperature: bool = False,
        max_support: int | None = None,
        replacement: Replacement = "reservoir",
        centered: bool = False,
        balanced: bool = False,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.centered, self.balanced = bool(centered), bool(balanced)
        if max_support is not None and (not isinstance(max_support, (int, np.integer)) or max_support < 1):
            raise ValueError(f"max_support is {max_support!r}; expected at least 1, or None to keep all support")
        self.max_support = max_support
        self.replacement = check_name("replacement", replacement, REPLACEMENTS)

    @property
    def keys_by_class(self) -> bool:
        """Whether the keys of a class follow from its own support; not if `centered` or `balanced`."""
        return self._keeps_hooks_of(MatchingLearner)

    def kept_rows(self, statistics: Statistics) -> Tensor | None:
        """Return at most `max_support` rows per class."""
        if self.max_support is None:
            return None
        return rows_to_keep(statistics.support, self.max_support, self.replacement)


def rows_to_keep(support: Mapping[str, Tensor], limit: int, replacement: str) -> Tensor | None:
    """Return the positions of at most `limit` rows per class, in their order; None if all stay.

    Parameters
    ----------
    support : dict of str to Tensor
        Kept support, without leading dimensions; see `Statistics`.
    limit : int
        Rows retained per class.
    replacement : {"reservoir", "oldest"}
        ``oldest`` drops the oldest rows. ``reservoir`` retains a uniform sample of all rows seen: those whose hashes
        are smallest (bottom-k sampling). The sample does not depend on the order or the portions in which support
        arrived, and merging the samples of two memories gives the sample of both.

    References
    ----------
    J. S. Vitter (1985). Random sampling with a reservoir. ACM TOMS 11(1).
    E. Cohen, H. Kaplan (2007). Summarizing data using bottom-k sketches. PODC.
    """
    labels, weight = (support[name].numpy() for name in ("labels", "weight"))
    if np.bincount(labels, minlength=1).max() <= limit:
        return None
    rows = np.flatnonzero(weight > 0)  # rows of weight 0 were never counted
    last = _hashes(support["x"].numpy()[rows]) if replacement == "reservoir" else -rows
    by_class = rows[np.lexsort((last, labels[rows]))]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    return torch.from_numpy(np.sort(by_class[np.arange(len(by_class)) - starts < limit]))


def _hashes(x: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row of `x` (n, d)."""
    digests = (blake2b(row.tobytes(), digest_size=8).digest() for row in x + 0.0)  # minus zero equals zero
    return np.frombuffer(b"".join(digests), np.uint64)
