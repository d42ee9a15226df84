"""The result of meta-training, and a page of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.report.figures import learning_curve
from fewshot.report.page import Page
from fewshot.utils.plain import plain_dict

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

    def __repr__(self) -> str:
        kept = f"best episode {self.best_episode}"
        if self.best_accuracy == self.best_accuracy:  # not NaN
            kept += f", validation accuracy {100 * self.best_accuracy:.2f} %"
        skipped = f"; {len(self.skipped)} skipped" if self.skipped else ""
        return f"TrainResult({len(self.records)} steps, {kept}{skipped}; more in .to_frame())"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per step."""
        import pandas as pd

        return pd.DataFrame(self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold; those of ``fewshot train --json``, and ``records``.

        Examples
        --------
        >>> TrainResult([{"episode": 1, "loss": 0.5, "seconds": 2.0}], best_episode=1).to_dict()["best_val_accuracy"]
        """
        seconds = self.records[-1]["seconds"] if self.records else None
        return plain_dict(
            seconds=seconds,
            best_episode=self.best_episode,
            best_val_accuracy=self.best_accuracy,
            skipped=self.skipped,
            records=self.records,
        )


def write_training(path: str | Path, result: TrainResult, facts: Mapping[str, Any]) -> None:
    """Write a page with the learning curves of a training run.

    Parameters
    ----------
    path : path
        A self-contained HTML file.
    result : TrainResult
        The result of `MetaTrainer.fit`.
    facts : mapping
        ``manifest`` and ``config``, as ``fewshot train`` stores them.
    """
    last = result.records[-1]
    page = Page(
        "Meta-training",
        f"A network learned to embed images from {int(last['episode'])} small learning tasks by descending their "
        "query loss, the meta-objective.",
    )
    cards = [(f"{last['seconds']:.0f} s", "of training"), (str(result.best_episode), "episodes to the weights kept")]
    if result.best_accuracy == result.best_accuracy:  # not NaN
        cards.insert(0, (f"{100 * result.best_accuracy:.1f} %", "accuracy on the validation classes"))
    if result.skipped:
        cards.append((str(len(result.skipped)), "steps skipped because they were not finite"))
    page.cards(cards)
    page.section("Learning curves")
    page.figure(learning_curve(result.to_frame()), "Loss, accuracy and validation accuracy over the episodes")
    page.rerun(facts["manifest"]["command"], facts["config"], "setting")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.write(path, "log.csv lists every step.")
