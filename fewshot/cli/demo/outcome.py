"""What the demonstration found, for its table, its JSON and its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.episodes.result import EvalResult
from fewshot.training.result import TrainResult

#: The contestants, in the order in which they are shown.
TRAINED, UNTRAINED, PIXELS = "meta-trained", "untrained", "raw pixels"
#: The data sets that are tested on.
CHARACTERS, DIGITS = "new characters", "handwritten digits"


@dataclass(frozen=True, eq=False)
class Contest:
    """One test: the same episodes answered by every contestant."""

    data: str
    n_way: int
    n_shot: int
    results: dict[str, EvalResult]

    @property
    def setting(self) -> str:
        """Return data, ways and shots, to read."""
        return f"{self.data}, {self.n_way}-way {self.n_shot}-shot"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything that the demonstration found, for `results.json` and for the page."""

    results: dict[str, Any]
    contests: list[Contest]
    training: TrainResult
    test: dict[str, LabeledImages]
    embeddings: dict[str, dict[str, NDArray[np.float32]]]


def accuracy_frame(contests: list[Contest]) -> pd.DataFrame:
    """Return one row a test and method: accuracy, interval, protocol, chance."""
    rows = [
        {
            "data": contest.data,
            "setting": contest.setting,
            "method": method,
            "accuracy": result.mean,
            "ci95": result.ci95,
            "chance": 1 / contest.n_way,
            **result.protocol,
        }
        for contest in contests
        for method, result in contest.results.items()
    ]
    return pd.DataFrame(rows)
