"""A pool of unlabelled items, as the strategies see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.similarity import CHUNK_BYTES, normalize

#: Labelled items of a class that are compared with each other.
MOST_OF_CLASS = 1000


@dataclass(frozen=True, eq=False)
class Pool:
    """Unlabelled items and what the model knows about them.

    Attributes
    ----------
    x : Tensor of shape (n, d), float32
        Embeddings of the items about the mean of all items, as unit vectors, so that products are cosines.
    labelled : Tensor of shape (m, d)
        Those of the items that are labelled already.
    codes : Tensor of shape (m,)
        The class of each of these, as a number.
    margin : Tensor of shape (n,)
        How much likelier the likeliest class is than the second; 0 if there are no two classes.
    entropy : Tensor of shape (n,)
        Entropy of the probabilities; 0 if there are no two classes.
    seed : int
        Seed of random choices.
    """

    x: Tensor
    labelled: Tensor
    codes: Tensor
    margin: Tensor
    entropy: Tensor
    seed: int

    @classmethod
    def of(
        cls,
        x: Tensor,
        labelled: Tensor,
        codes: Tensor,
        probabilities: Callable[[slice], NDArray[np.floating]],
        seed: int,
    ) -> Pool:
        """Return the pool of embeddings `x` (n, d) and `labelled` (m, d), whose classes are `codes` (m,).

        Parameters
        ----------
        x, labelled : Tensor
            Embeddings as the learner compares them.
        codes : Tensor
            Numbers.
        probabilities : callable
            Returns those of the classes, (rows, n_classes), for a slice of `x`.
        seed : int
            Seed of random choices.
        """
        middle = torch.cat([x, labelled]).mean(0)
        margin, entropy = (x.new_zeros(len(x), dtype=torch.float32) for _ in range(2))
        for rows in parts(len(x), 1024):
            shares = torch.from_numpy(np.asarray(probabilities(rows), np.float32))
            if shares.shape[-1] > 1:
                best = shares.topk(2, -1).values
                margin[rows], entropy[rows] = best[:, 0] - best[:, 1], torch.special.entr(shares).sum(-1)
        unit, known = (normalize(some - middle).float() for some in (x, labelled))
        return cls(unit, known, codes, margin, entropy, seed)

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def nearest_labelled(self) -> Tensor:
        """The cosine (n,) with the nearest labelled item; -1 if there is none."""
        found = self.margin.new_full((len(self),), -1)
        if len(self.labelled):
            for rows in parts(len(self), max(1, CHUNK_BYTES // (4 * len(self.labelled)))):
                found[rows] = (self.x[rows] @ self.labelled.T).amax(-1)
        return found

    @cached_property
    def known(self) -> float:
        """The share of the items that are as near to a labelled one as those of one class usually are to each other.

        It is 0 as long as no class has two labelled items.
        """
        found = []
        for code in self.codes.unique():
            own = self.labelled[self.codes == code][:MOST_OF_CLASS]
            if len(own) > 1:
                found.append((own @ own.T).fill_diagonal_(-1).amax(-1))
        return float((self.nearest_labelled >= torch.cat(found).median()).float().mean()) if found else 0.0

    def rng(self) -> np.random.Generator:
        """Return a generator of random numbers."""
        return np.random.default_rng(self.seed)


def parts(n: int, size: int) -> list[slice]:
    """Return slices that cover 0..n-1, each of at most `size` numbers."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
