"""Episodes within one group of classes at a time: an alphabet, a superclass, a source of a mixture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.episode import Episode, Sampler, check_whole, rows_by_class
from fewshot.errors import TooSmallError
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import GROUP, GROUP_SEED, episode_rng

SmallGroups = Literal["raise", "drop"]
SMALL_GROUPS: tuple[SmallGroups, ...] = get_args(SmallGroups)


class GroupedEpisodeSampler(Sampler):
    """Draw a group, then an episode from the classes of that group.

    Classes of one group are similar, so these episodes are harder than episodes across groups. For cross-domain
    training, let the sources of a mixture be the groups: every episode then comes from one source.

    Parameters
    ----------
    labels : array-like of shape (n,)
        The label of each row of a data set.
    groups : array-like of shape (n,)
        The group of each row; a class lies in one group.
    sampler : callable, default=EpisodeSampler
        ``sampler(labels, seed=seed)`` builds the sampler of one group; set sizes with `functools.partial`.
    weight : mapping, optional
        Relative frequency of each group; 1 for groups not named. By default all groups are equally likely, however many
        classes they have.
    class_weight : mapping, optional
        Relative frequency of each class within its group, for samplers that take it; see `EpisodeSampler`.
    small_groups : {"raise", "drop"}, default="raise"
        What to do with groups that are too small for an episode.
    seed : int, default=0
        At least 0.

    Raises
    ------
    ValueError
        If a class lies in two groups, a group is too small (the message names it), or a weight names no group.

    Examples
    --------
    >>> from functools import partial
    >>> from fewshot import EpisodeSampler, GroupedEpisodeSampler
    >>> labels = ["cat", "cat", "dog", "dog", "oak", "oak", "elm", "elm"]
    >>> pairs = partial(EpisodeSampler, n_way=2, n_query=1)
    >>> sampler = GroupedEpisodeSampler(labels, ["animal"] * 4 + ["tree"] * 4, pairs)
    >>> sorted(sampler[0].classes.tolist()) in (["cat", "dog"], ["elm", "oak"])
    True
    """

    def __init__(
        self,
        labels: ArrayLike,
        groups: ArrayLike,
        sampler: Callable[..., Sampler] = EpisodeSampler,
        *,
        weight: Mapping[Any, float] | None = None,
        class_weight: Mapping[Any, float] | None = None,
        small_groups: SmallGroups = "raise",
        seed: int = 0,
    ) -> None:
        check_whole(0, seed=seed)
        if small_groups not in SMALL_GROUPS:
            raise ValueError(f"small_groups is {small_groups!r}; expected {' or '.join(map(repr, SMALL_GROUPS))}")
        labels = as_labels(labels, name="the list of labels", any_type=True)
        groups = as_labels(groups, name="the list of groups", any_type=True)
        _check_nested(labels, groups)
        self.seed, self.weight = seed, weight
        self._members: dict[Any, tuple[Sampler, NDArray[np.int64]]] = {}
        for place, (group, rows) in enumerate(rows_by_class(groups).items()):
            # Each group has its own seed; nested grouped samplers would otherwise repeat the draws of this one.
            own = int(episode_rng(seed, place, GROUP_SEED).integers(2**63))
            members = class_weight and {k: v for k, v in class_weight.items() if k in set(labels[rows].tolist())}
            weighted = {} if class_weight is None else {"class_weight": members}
            try:
                self._members[group] = sampler(labels[rows], seed=own, **weighted), rows
            except TooSmallError as error:
                if small_groups == "raise":
                    raise TooSmallError(
                        f"the group {group} is too small: {error}; or pass small_groups='drop'"
                    ) from error
        if not self._members:
            raise TooSmallError("no group is large enough for an episode; lower the sizes of the episode")
        self._assignment = hashlib.sha256(repr([groups.tolist(), labels.tolist()]).encode()).hexdigest()
        self.classes = np.sort(np.concatenate([member.classes for member, _ in self._members.values()]))
        self._chances = self._normalized(weight or {})

    @property
    def protocol(self) -> dict[str, Any]:
        """Number and weights of the groups, the seed, and the protocol within a group."""
        within = next(iter(self._members.values()))[0].protocol
        described = {"sampler": "grouped", "n_groups": len(self._members), "within": within, "seed": self.seed}
        described["assignment"] = self._assignment[:16]
        if self.weight is not None:
            described["weight"] = {str(group): value for group, value in self.weight.items()}
        return described

    def draw(self, index: int) -> Episode:
        """Return episode `index`, at least 0."""
        chosen = episode_rng(self.seed, index, GROUP).choice(len(self._members), p=self._chances)
        sampler, rows = list(self._members.values())[chosen]
        episode = sampler[index]
        return replace(episode, support=rows[episode.support], query=rows[episode.query])

    def _normalized(self, weight: Mapping[Any, float]) -> NDArray[np.float64]:
        if strange := [group for group in weight if group not in self._members]:
            raise ValueError(f"weight names {strange[0]!r}; the groups are {', '.join(map(str, self._members))}")
        weights = np.array([weight.get(group, 1.0) for group in self._members], np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError("weight must be finite and at least 0, and above 0 for some group")
        return weights / weights.sum()


def _check_nested(labels: NDArray[Any], groups: NDArray[Any]) -> None:
    if labels.shape != groups.shape:
        raise ValueError(f"groups have shape {groups.shape} and labels {labels.shape}; give one group for each row")
    codes = np.unique(groups, return_inverse=True)[1] if len(groups) else groups
    for label, rows in rows_by_class(labels).items():
        if len(np.unique(codes[rows])) > 1:
            raise ValueError(f"the class {label} lies in {len(np.unique(codes[rows]))} groups; expected one")
