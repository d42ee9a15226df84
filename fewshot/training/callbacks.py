"""Observers of training: the log, the progress bar, TensorBoard, and your own."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fewshot.errors import missing
from fewshot.persistence.files import replacing, sync
from fewshot.training.result import TrainResult
from fewshot.utils.progress import progress_bar


class Callback:
    """An observer of training; override the methods you need.

    Examples
    --------
    >>> class Losses(Callback):
    ...     def step(self, record, result):
    ...         print(f"{record['episode']}: {record['loss']:.3f}")
    """

    def start(self, config: Mapping[str, Any], result: TrainResult) -> None:
        """Prepare for training, which starts, or resumes after the steps in `result`."""

    def step(self, record: Mapping[str, float], result: TrainResult) -> None:
        """Process a step; `record` is its row in the log."""

    def end(self, result: TrainResult) -> None:
        """Finish; called even if training fails."""


class CsvLog(Callback):
    """The training log, one row per step, flushed after each row so that a killed run keeps it."""

    columns = ("episode", "loss", "accuracy", "lr", "seconds", "val_accuracy", "val_ci95")

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, config: Mapping[str, Any], result: TrainResult) -> None:
        """Write the rows known so far; rows after the resumed state are dropped."""
        # Written as a whole: a process killed here must not lose rows that its state counts.
        with replacing(self.path) as partial:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(result.records)
            sync(partial)
        self.file = self.path.open("a", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.columns)

    def step(self, record: Mapping[str, float], result: TrainResult) -> None:
        """Append a row."""
        self.writer.writerow(dict(record))
        self.file.flush()

    def end(self, result: TrainResult) -> None:
        """Close the file."""
        self.file.close()

    @staticmethod
    def digest(records: Sequence[Mapping[str, float]]) -> str:
        """Return a digest of rows, without their times."""
        rows = [{k: float(v) for k, v in sorted(row.items()) if k != "seconds"} for row in records]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @staticmethod
    def read(path: Path, n: int) -> list[dict[str, float]]:
        """Return the first `n` rows of a log, without an incomplete last row."""
        if not path.is_file():
            return []
        complete = path.read_text(encoding="utf-8").rpartition("\n")[0]
        rows = islice(csv.DictReader(complete.splitlines()), n)
        return [
            {k: int(v) if k == "episode" else float(v) for k, v in row.items() if k in CsvLog.columns and v}
            for row in rows
        ]


class ProgressBar(Callback):
    """A progress bar on standard error with loss, accuracy and the best validation accuracy."""

    def __init__(self, n_steps: int, unit: str) -> None:
        self.n_steps, self.unit = n_steps, unit

    def start(self, config: Mapping[str, Any], result: TrainResult) -> None:
        """Show the bar, starting at the steps already taken."""
        self.bar = progress_bar(self.n_steps, self.unit, show=True, initial=len(result.records))

    def step(self, record: Mapping[str, float], result: TrainResult) -> None:
        """Advance the bar."""
        shown = {"loss": f"{record['loss']:.3f}", "accuracy": f"{100 * record['accuracy']:.1f}%"}
        if math.isfinite(result.best_accuracy):
            shown["best val"] = f"{100 * result.best_accuracy:.1f}%"
        if result.skipped:
            shown["skipped"] = str(len(result.skipped))
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def end(self, result: TrainResult) -> None:
        """Close the bar."""
        self.bar.close()


class TensorBoard(Callback):
    """Write learning curves for TensorBoard (extra ``tensorboard``).

    Parameters
    ----------
    folder : path
        The folder to pass to ``tensorboard --logdir``.

    Raises
    ------
    MissingExtraError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise missing("TensorBoard is missing", "tensorboard") from None
        self._writer_class, self.folder = SummaryWriter, str(folder)

    def start(self, config: Mapping[str, Any], result: TrainResult) -> None:
        """Open the folder; points after the resumed state are purged."""
        last = int(result.records[-1]["episode"]) if result.records else 0
        self.writer = self._writer_class(self.folder, purge_step=last + 1 if last else None)

    def step(self, record: Mapping[str, float], result: TrainResult) -> None:
        """Write every number of the record under its name."""
        for name, value in record.items():
            if name != "episode":
                self.writer.add_scalar(name, value, int(record["episode"]))

    def end(self, result: TrainResult) -> None:
        """Flush and close."""
        self.writer.close()
