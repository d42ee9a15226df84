"""What learners of local descriptors share: embeddings that are maps, compared class by class in bounded memory."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from fewshot.learners.base import Learner, SupportLearner
from fewshot.learners.memory import Memory
from fewshot.search.similarity import normalize
from fewshot.utils.values import check_count, check_number
from fewshot.utils.warning import warn

#: Most similarities of local descriptors at a time, of all episodes together.
CHUNK = 4_000_000
#: The salience of a place that is as the mean of all: not zero, so that places of an even image count the same.
LEAST = 1e-6


class LocalLearner(SupportLearner):
    r"""A learner that compares the places of images: an embedding (L * width) is L local descriptors in a row.

    A subclass says which similarities count, in `nearest`, and what they say together, in `match`. Descriptors are
    compared by the cosine. Those of a query may count by their salience: :math:`(1 - \cos(q_i, \bar q))^s`, for the
    mean :math:`\bar q` of the query's descriptors of unit length, and the parameter s.

    The support is the memory: O(n L width) to store, O(n L^2 width) per query. Queries and support are compared in
    chunks, so that at most about `CHUNK` similarities are held at a time, or those of one query with one image of each
    episode.

    Parameters
    ----------
    width : int or None, default=None
        Numbers of a local descriptor. None means that the whole embedding is one; models of images set it, and so do
        `evaluate` and classifiers that are given maps (n, L, width).
    salience : float, default=0
        How much the places of a query that differ from the rest of it outweigh the others; 0 for not at all. 8 finds
        small objects in large scenes.
    temperature : float, default=0.05
        Logits are the mean similarity of the descriptors of a query / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    """

    indexable = False
    local = True

    def __init__(
        self,
        width: int | None = None,
        salience: float = 0.0,
        temperature: float = 0.05,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature)
        self.width = None if width is None else check_count("width", width)
        self.salience = check_number("salience", salience)

    def of_width(self, width: int) -> Self:
        """Return this learner for descriptors of `width` numbers.

        Raises
        ------
        ValueError
            If it is for another width.
        """
        return copy.deepcopy(self).set_width(width)

    def set_width(self, width: int) -> Self:
        """Make this learner one for descriptors of `width` numbers, and return it.

        Raises
        ------
        ValueError
            If it is for another width.
        """
        if self.width not in (None, width):
            raise ValueError(f"width is {self.width} and the maps have descriptors of {width} numbers; leave out width")
        self.width = width
        return self

    # ---- what a method defines ---------------------------------------------------------------------------------

    def nearest(self, similarity: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities that may count among those to some images of a class, and their weights.

        Parameters
        ----------
        similarity : Tensor of shape (..., q, L, m)
            Cosine of each descriptor of a query to m descriptors.
        weight : Tensor of shape (..., 1, 1, m)
            Sample weights of their images; 0 for padding, where the similarity does not matter.

        Returns
        -------
        tuple of Tensor
            Two tensors (..., q, L, k).
        """
        raise NotImplementedError(f"{type(self).__name__} has no nearest(); define it")

    def match(self, similarity: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return how well each descriptor matches the class, and how much it counts, both (..., q, L).

        Parameters
        ----------
        similarity, weight : Tensor of shape (..., q, L, k)
            What `nearest` has returned, of all images of the class.
        """
        raise NotImplementedError(f"{type(self).__name__} has no match(); define it")

    def compared(self, descriptors: Tensor) -> Tensor:
        """Return descriptors (..., n, L, width) as they are compared; by default unchanged."""
        return descriptors

    # ---- the contract ------------------------------------------------------------------------------------------

    def descriptors(self, x: Tensor) -> Tensor:
        """Return the local descriptors (..., n, L, width) of embeddings (..., n, L * width).

        Raises
        ------
        ValueError
            If an embedding is not a whole number of descriptors.
        """
        width = self.width or max(x.shape[-1], 1)
        if x.shape[-1] % width:
            raise ValueError(
                f"embeddings have {x.shape[-1]} numbers, which is no multiple of width={width}; give maps of features, "
                "as Embedder(pool=None) makes them"
            )
        return x.unflatten(-1, (-1, width))

    def transform(self, x: Tensor) -> Tensor:
        """Scale each local descriptor to unit length."""
        return normalize(self.descriptors(x)).flatten(-2)

    def items(self, x: Tensor) -> Tensor:
        """Return the mean descriptor of each image, weighted by salience: another place is no other item."""
        found = self.descriptors(self.transform(x))
        shares = self.shares(found).unsqueeze(-1)
        return (found * shares).sum(-2) / shares.sum(-2)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the mean match of the descriptors of each query with each class, divided by the temperature."""
        asked, weight = self.descriptors(queries), memory.log_weight.exp()
        shares, asked, logits = self.shares(asked), self.compared(asked), []
        for label in range(memory.n_way):
            own = torch.where(memory.labels == label, weight, 0)
            # Rows of the class first, and as many as the largest episode needs: all, without leading dimensions.
            n = int((own > 0).sum(-1).max()) if own.numel() else 0
            rows = (own > 0).int().argsort(dim=-1, descending=True, stable=True)[..., :n]
            keys = memory.keys.gather(-2, rows.unsqueeze(-1).expand(*rows.shape, memory.keys.shape[-1]))
            values, counts = self.matches(asked, self.compared(self.descriptors(keys)), own.gather(-1, rows))
            counts = counts * shares
            total = counts.sum(-1)
            found = (values * counts).sum(-1) / torch.where(total > 0, total, 1)
            logits.append(found.masked_fill((own > 0).sum(-1, keepdim=True) == 0, -torch.inf))
        return torch.stack(logits, -1) / self.temperature.to(queries)

    def shares(self, asked: Tensor) -> Tensor:
        """Return how much each descriptor of queries (..., q, L, width) counts, by its salience, (..., q, L)."""
        if not self.salience:
            return asked.new_ones(asked.shape[:-1])
        asked = asked.detach()  # what counts is not learned, or training would choose what is easy
        differs = (1 - (asked * normalize(asked.mean(-2, keepdim=True))).sum(-1)).clamp(min=LEAST)
        return (differs / differs.amax(-1, keepdim=True)) ** self.salience

    def matches(self, asked: Tensor, keys: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Match queries (..., q, L, width) with a class (..., s, L, width) of `weight` (..., s); see `match`."""
        if not weight.shape[-1]:
            nothing = asked.new_zeros(asked.shape[:-1])
            return nothing, nothing
        pair = asked.shape[:-3].numel() * asked.shape[-2] * keys.shape[-2]  # similarities of an image with another
        n_keys = max(1, min(keys.shape[-3], CHUNK // pair))
        n_queries = max(1, CHUNK // (pair * n_keys))
        found = [self._match(part, keys, weight, n_keys) for part in asked.split(n_queries, -3)]
        values, counts = (torch.cat(one, -2) for one in zip(*found, strict=True))
        return values, counts

    def _match(self, asked: Tensor, keys: Tensor, weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Match some queries, with `size` images of the class at a time."""
        parts = []
        for images, share in zip(keys.split(size, -3), weight.split(size, -1), strict=True):
            similarity = asked.flatten(-3, -2) @ images.flatten(-3, -2).mT
            spread = share.repeat_interleave(images.shape[-2], -1)[..., None, None, :]
            parts.append(self.nearest(similarity.unflatten(-2, asked.shape[-3:-1]), spread))
        values, weights = (torch.cat(one, -1) for one in zip(*parts, strict=True))
        return self.match(values, weights)


def of_maps(learner: Learner, X: Any, *, warns: bool = False) -> tuple[Learner, Any]:
    """Return a learner for maps (n, L, width), and the maps as rows (n, L * width); other embeddings as they are.

    If `warns`, a learner of local descriptors that gets one vector of each image, and no width, says so.

    Raises
    ------
    ValueError
        If the learner is for descriptors of another width.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import DN4Learner
    >>> learner, rows = of_maps(DN4Learner(), np.zeros((5, 49, 64)))
    >>> learner.width, rows.shape
    (64, (5, 3136))
    """
    if not isinstance(learner, LocalLearner):
        return learner, X
    if getattr(X, "ndim", 2) != 3:
        if warns and learner.width is None:
            warn(
                f"{learner.name or type(learner).__name__} compares the places of images, and takes each of these "
                "embeddings for one place; give maps (n, L, d), as Embedder(pool=None) makes them, or, if one vector "
                "of each image is meant, the length of the vectors as width"
            )
        return learner, X
    if warns and X.shape[1] == 1:
        warn(
            f"{learner.name or type(learner).__name__} compares the places of images, and these maps have only one; "
            "give larger images, or take a network that scales them down less"
        )
    return learner.of_width(X.shape[-1]), X.reshape(len(X), -1)
