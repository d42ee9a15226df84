"""One result of the page of all results: an accuracy, the protocol by which it was measured, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.episodes.query_draws import BALANCED


@dataclass(frozen=True, eq=False)
class Source:
    """A file of results.

    Attributes
    ----------
    name : str
        Its name on the page.
    text : str
        Its content.
    command : str
        The command that wrote it; empty if unknown.
    manifest : mapping
        Versions, seed and machine; empty if unknown.
    """

    name: str
    text: str
    command: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """The accuracy of a method on episodes of one kind.

    Attributes
    ----------
    dataset, split : str
        The images; the split is empty if unknown.
    method, backbone : str
        What answered, and the network that embedded the images; the backbone is empty if unknown.
    n_way, n_shot : int
        Classes of an episode and support images of each; 0 if they vary.
    accuracy : float
        From 0 to 1.
    ci95 : float
        Half of its 95 % interval; NaN if unknown.
    n_query, n_episodes : int
        Queries of each class, and episodes; 0 if unknown.
    n_seeds : int
        Of how many seeds the episodes are, as many of each.
    query_classes : str or int
        How queries are spread over classes; see `EpisodeSampler`.
    external, transductive, supposes_balance : bool or None
        Whether the network has seen other data, queries are answered together, and queries are supposed to be
        balanced; None if unknown.
    source : Source
        The file.
    quoted : str
        The publication from which the result is quoted; empty if it was measured.
    by : str
        Who measured it; empty for this project.
    digest : str
        SHA-256 of the episodes; empty if unknown.
    accuracies : ndarray of shape (n_episodes,) or None
        The accuracy of each episode, if the file has it.
    against : str
        The method that it is compared with on the same episodes; empty for none.
    change, change_ci95 : float
        The paired difference from it and half of its 95 % interval; NaN if unknown.
    frozen : bool or None
        Whether the episodes are those of a frozen file; None if that cannot be known.
    note : str
        Why the episodes are not the frozen ones, or why there is no paired difference, in a sentence.
    """

    dataset: str
    method: str
    backbone: str
    n_way: int
    n_shot: int
    accuracy: float
    source: Source
    split: str = ""
    ci95: float = np.nan
    n_query: int = 0
    n_episodes: int = 0
    n_seeds: int = 1
    query_classes: str | int = BALANCED
    external: bool | None = None
    transductive: bool | None = None
    supposes_balance: bool | None = None
    quoted: str = ""
    by: str = ""
    digest: str = ""
    accuracies: NDArray[np.float64] | None = None
    against: str = ""
    change: float = np.nan
    change_ci95: float = np.nan
    frozen: bool | None = None
    note: str = ""

    @property
    def sizes(self) -> tuple[Any, ...]:
        """What two results on the same episodes share: for each of several seeds."""
        n_episodes = self.n_episodes // self.n_seeds
        return self.dataset, self.n_way, self.n_shot, self.n_query, str(self.query_classes), n_episodes
