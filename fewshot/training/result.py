"""The result of meta-training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class TrainResult:
    """The result of meta-training.

    Attributes
    ----------
    records : list of dict
        One per step: ``episode``, ``loss``, ``accuracy``, ``lr``, ``seconds``, and after a validation also
        ``val_accuracy`` and ``val_ci95``.
    best_episode : int
        The episode whose weights were kept: the best in validation, or the last.
    best_accuracy : float
        Its validation accuracy; NaN without validation classes.
    skipped : list of int
        Episodes, counted from 0, whose step was skipped because its loss or gradient was not finite.
    """

    records: list[dict[str, float]] = field(default_factory=list)
    best_episode: int = 0
    best_accuracy: float = math.nan
    skipped: list[int] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per step."""
        import pandas as pd

        return pd.DataFrame(self.records)
