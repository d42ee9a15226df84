"""The page of a training run: its learning curves, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.report.figures import learning_curve
from fewshot.report.page import Page
from fewshot.training.result import TrainResult


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
