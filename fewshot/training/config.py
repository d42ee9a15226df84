"""How to meta-train, and what came of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainConfig:
    """How to meta-train.

    Parameters
    ----------
    n_episodes : int, default=500
        Episodes, one optimiser step each.
    n_way, n_shot, n_query : int, default=40, 1, 5
        Classes an episode; support and queries per class.
    rotate_support : bool, default=True
        Whether each image of a class serves as support in turn: from one embedding of an episode's images come
        n_shot + n_query tasks instead of one.
    lr : float, default=3e-3
        Peak learning rate of Adam under a one-cycle schedule.
    weight_decay : float, default=0.0
        Decoupled weight decay.
    seed : int, default=0
        Of initial weights, episodes, augmentation and the network's own noise.
    validate_every : int, default=100
        Episodes between validations (and after the last one).
    val_n_way, val_n_shot, val_n_query, val_n_episodes : int, default=20, 1, 5, 200
        Validation episodes; `val_n_way` is lowered to the number of validation classes.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> TrainConfig(n_episodes=1000, n_way=60).n_query
    5
    """

    n_episodes: int = 500
    n_way: int = 40
    n_shot: int = 1
    n_query: int = 5
    rotate_support: bool = True
    lr: float = 3e-3
    weight_decay: float = 0.0
    seed: int = 0
    validate_every: int = 100
    val_n_way: int = 20
    val_n_shot: int = 1
    val_n_query: int = 5
    val_n_episodes: int = 200

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in ("seed", "weight_decay"):
                ok, expected = 0 <= value < math.inf, "at least 0"
            elif name == "lr":
                ok, expected = 0 < value < math.inf, "above 0"
            else:
                ok, expected = name == "rotate_support" or value >= 1, "at least 1"
            if not ok:
                raise ValueError(f"{name} is {value!r}; expected {expected}")


@dataclass
class TrainResult:
    """What meta-training did.

    Attributes
    ----------
    records : list of dict
        One an episode: ``episode``, ``loss``, ``accuracy``, ``lr``, ``seconds``; where the embedding was
        validated also ``val_accuracy`` and ``val_ci95``.
    best_episode : int
        The episode whose weights were kept: the best on the validation classes, or the last.
    best_accuracy : float
        Its validation accuracy; NaN without validation classes.
    """

    records: list[dict[str, float]] = field(default_factory=list)
    best_episode: int = 0
    best_accuracy: float = math.nan

    def to_frame(self) -> pd.DataFrame:
        """Return one row an episode."""
        import pandas as pd

        return pd.DataFrame(self.records)
