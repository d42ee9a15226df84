"""The results of the demonstration, for its table, its JSON file and its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.episodes.result import EvalResult
from fewshot.training.result import TrainResult

#: The methods compared, in display order.
TRAINED, UNTRAINED, PIXELS = "meta-trained", "untrained", "raw pixels"
#: The test data sets.
CHARACTERS, DIGITS = "new characters", "handwritten digits"


@dataclass(frozen=True, eq=False)
class Contest:
    """One test: the same episodes answered by every method."""

    data: str
    n_way: int
    n_shot: int
    results: dict[str, EvalResult]

    @property
    def setting(self) -> str:
        """Data, ways and shots, for people."""
        return f"{self.data}, {self.n_way}-way {self.n_shot}-shot"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Everything that the demonstration measured, for `results.json` and the page."""

    results: dict[str, Any]
    contests: list[Contest]
    training: TrainResult
    test: dict[str, LabeledImages]
    embeddings: dict[str, dict[str, NDArray[np.float32]]]


def accuracy_frame(contests: list[Contest]) -> pd.DataFrame:
    """Return one row per test and method: accuracy, interval, protocol, chance."""
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
