"""Whether a learner answers a query as if it were alone, which tables say of every learner."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.episodes.episode import Episode
from fewshot.learners.base import Learner

#: Queries that are asked alone, and the largest difference of a probability that rounding explains.
ASKED, ROUNDING = 3, 0.01


def refuse_hidden_transduction(learner: Learner, x: Tensor, episode: Episode, transformed: bool) -> None:
    """Raise if a learner of the user's own is transductive and does not say so; those of the package are tested.

    Parameters
    ----------
    learner : Learner
        The learner.
    x : Tensor of shape (n, d)
        Embeddings of all rows, transformed by the learner if `transformed`.
    episode : Episode
        Some of its queries are asked alone.

    Raises
    ------
    ValueError
        If a query has other probabilities among those of the episode than alone.
    """
    own = type(learner)
    if learner.transductive or own.__module__.startswith("fewshot."):
        return
    support, queries = (x[torch.from_numpy(rows).to(x.device)] for rows in (episode.support, episode.query))
    labels = torch.from_numpy(episode.support_labels).to(x.device)

    def probabilities(some: Tensor) -> Tensor:
        return learner(support, labels, some, episode.n_way, transformed=transformed).softmax(-1)

    together = probabilities(queries)[:ASKED]
    alone = torch.cat([probabilities(queries[i : i + 1]) for i in range(len(together))])
    if (together - alone).abs().max() > ROUNDING:  # False for NaN, which has a message of its own
        raise ValueError(
            f"{own.__name__} answers a query otherwise among the others of an episode than alone; set "
            "transductive = True in the class, so that tables say so"
        )
