"""The learning tasks of one episode: one task, or one for each rotation of the support."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.episodes.episode import Episode


@dataclass(frozen=True)
class Tasks:
    """How the images of an episode become tasks.

    Attributes
    ----------
    rows : ndarray of shape (n,)
        The images to embed, in this order.
    n_shot : int
        Shots per class; 0 if classes are uneven.
    episode : Episode
        The episode.
    """

    rows: NDArray[np.int64]
    n_shot: int
    episode: Episode

    @classmethod
    def of(cls, episode: Episode) -> Tasks:
        """Plan the tasks of an episode; if classes are even, their images are ordered by class."""
        shots, queries = (
            np.bincount(codes, minlength=episode.n_way) for codes in (episode.support_labels, episode.query_labels)
        )
        if (shots != shots[0]).any() or (queries != queries[0]).any() or not queries[0]:
            return cls(np.concatenate([episode.support, episode.query]), 0, episode)
        parts = [rows.reshape(episode.n_way, -1) for rows in (episode.support, episode.query)]
        return cls(np.concatenate(parts, axis=1).ravel(), int(shots[0]), episode)

    def split(self, embeddings: Tensor, rotate: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return support, support labels, queries and query labels: (n_tasks, n, d) or (n_tasks, n).

        Parameters
        ----------
        embeddings : Tensor of shape (n, d)
            The embeddings of `rows`.
        rotate : bool
            Whether each image of a class is support in turn; ignored for uneven classes.
        """
        n_way, device = self.episode.n_way, embeddings.device
        if not self.n_shot:
            n = len(self.episode.support)
            codes = (self.episode.support_labels, self.episode.query_labels)
            support_labels, query_labels = (torch.from_numpy(c).to(device)[None] for c in codes)
            return embeddings[None, :n], support_labels, embeddings[None, n:], query_labels
        support, queries = split_tasks(embeddings.unflatten(0, (n_way, -1)), self.n_shot, rotate)
        support_labels, query_labels = (
            torch.arange(n_way, device=device).repeat_interleave(part.shape[1] // n_way).expand(part.shape[:-1])
            for part in (support, queries)
        )
        return support, support_labels, queries, query_labels


def split_tasks(embeddings: Tensor, n_shot: int, rotate: bool) -> tuple[Tensor, Tensor]:
    """Split the embeddings of an episode into support and queries, once or with each image as support in turn.

    Parameters
    ----------
    embeddings : Tensor of shape (n_way, n, d)
        All images of an episode, ordered by class.
    n_shot : int
        Support images per class.
    rotate : bool
        If True, task ``r`` takes images ``r, ..., r + n_shot - 1`` (modulo n) of every class as its support.

    Returns
    -------
    support : Tensor of shape (n_tasks, n_way * n_shot, d)
        With n_tasks = n if `rotate`, else 1.
    queries : Tensor of shape (n_tasks, n_way * (n - n_shot), d)
        The remaining images.

    Examples
    --------
    >>> support, queries = split_tasks(torch.arange(6.0).view(2, 3, 1), n_shot=1, rotate=True)
    >>> support[..., 0].tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    n_way, n, d = embeddings.shape
    # Rolled copies, not an index: with several threads the gradient of an index is summed in a varying order.
    tasks = torch.stack([embeddings.roll(-first, 1) for first in range(n if rotate else 1)])
    return (
        tasks[:, :, :n_shot].reshape(-1, n_way * n_shot, d),
        tasks[:, :, n_shot:].reshape(-1, n_way * (n - n_shot), d),
    )
