"""The loop of a training run: steps, validation, saved states, and an orderly end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fewshot.embedding.checkpoint import load_state, state
from fewshot.episodes.episode import Sampler
from fewshot.errors import TrainingError, TrainingInterrupted
from fewshot.persistence.files import sync
from fewshot.training.callbacks import Callback, CsvLog
from fewshot.training.distributed import n_processes, rank, wait_for_all
from fewshot.training.interrupt import Interruption
from fewshot.training.keeping import BestKeeper
from fewshot.training.place import clear, sweep
from fewshot.training.result import TrainResult
from fewshot.training.state import LOG, TrainingState, put_back
from fewshot.training.step import Outcome, Stepper, one_cycle, top_rate
from fewshot.utils.warning import warn


class Run:
    """One training run, which can be interrupted at any time and goes on exactly.

    Parameters
    ----------
    stepper : Stepper
        Takes the steps.
    episodes : Sampler
        What is learned from.
    keeper : BestKeeper
        Validates, and keeps the best weights.
    identity : dict
        What must be the same when the run goes on.
    folder : Path or None
        For the states; None keeps none.
    callbacks : sequence of Callback
        Who is told.
    """

    def __init__(
        self,
        stepper: Stepper,
        episodes: Sampler,
        keeper: BestKeeper,
        identity: dict[str, Any],
        folder: Path | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.stepper, self.episodes, self.keeper = stepper, episodes, keeper
        self.identity, self.folder, self.callbacks = identity, folder, callbacks
        self.config, self.backbone, self.learner = stepper.config, stepper.backbone, stepper.learner
        self.schedule = one_cycle(stepper.optimizer, self.config.n_steps)
        # The first step may be skipped, or lie before an interruption; torch would warn that there was none.
        stepper.optimizer._opt_called = True  # type: ignore[attr-defined]
        self.result, self.in_a_row, self.before = TrainResult(), 0, 0.0

    def go(self, resume: bool) -> TrainResult:
        """Take all steps that are left."""
        if self.folder is not None:
            if resume:
                self._take_up(self.folder)
            elif rank() == 0:
                clear(self.folder)
            wait_for_all()  # before the log is written anew, all have read it
            if rank() == 0:
                sweep(self.folder)
        start = time.perf_counter() - self.before
        with Interruption() as interruption:
            for callback in self.callbacks:
                callback.start(asdict(self.config), self.result)
            try:
                for step in range(len(self.result.records), self.config.n_steps):
                    m = self.config.meta_batch
                    episodes = [self.episodes[i] for i in range(step * m, (step + 1) * m)]
                    outcome = self.stepper(step * m, episodes, stop=interruption.signum > 0)
                    self._note(step, outcome, start)
                    # Processes stop together, so what came during the step counts only where there is one.
                    if outcome.stop or (interruption.signum and n_processes() == 1):
                        self._stop(step, interruption.signum)
            finally:
                for callback in self.callbacks:
                    callback.end(self.result)
        return self.result

    def _note(self, step: int, outcome: Outcome, start: float) -> None:
        """Record a step, validate and save where it is time."""
        config, result = self.config, self.result
        record: dict[str, float] = {
            "episode": (step + 1) * config.meta_batch,
            "loss": outcome.loss,
            "accuracy": outcome.accuracy,
            "lr": top_rate(self.stepper.optimizer),
        }
        self.schedule.step()
        last = step + 1 == config.n_steps
        self.in_a_row = self.in_a_row + 1 if outcome.fault else 0
        if outcome.fault:
            result.skipped.append(outcome.episode)
            if self.in_a_row == config.max_skipped:
                raise TrainingError(
                    f"{self.in_a_row} steps in a row were not finite, the last: {outcome.fault}; lower lr={config.lr:g}"
                )
            warn(f"{outcome.fault} is not finite; the step is skipped")
        if (step + 1) % config.validate_every == 0 or last:
            self.keeper.validate(record, result, self.backbone)
        record["seconds"] = time.perf_counter() - start
        result.records.append(record)
        for callback in self.callbacks:
            callback.step(record, result)
        if (step + 1) % config.save_every == 0 or last:
            self._save()

    def _stop(self, step: int, signum: int) -> None:
        self._save()
        where = f"stopped after episode {(step + 1) * self.config.meta_batch}"
        kept = f"{where}; the state is in {self.folder}, go on with resume" if self.folder else where
        raise TrainingInterrupted(signum or 15, kept)

    def _save(self) -> None:
        if self.folder is None or rank() > 0:
            return
        result, scaler = self.result, self.stepper.scaler
        progress = {
            "steps": len(result.records),
            "best_episode": result.best_episode,
            "best_accuracy": repr(result.best_accuracy),  # JSON knows no NaN
            "seconds": result.records[-1]["seconds"],
            "skipped": result.skipped,
            "in_a_row": self.in_a_row,
            "scaler": scaler.state_dict(),
            "computed with": _arithmetic(),
            "log": CsvLog.digest(result.records),
        }
        memory = self.stepper.optimizer.state_dict()["state"]
        if (self.folder / LOG).is_file():
            sync(self.folder / LOG)  # power may fail: the log must not have fewer rows than the state has steps
        TrainingState(self.identity, progress, state(self.backbone, self.learner), self.keeper.best or {}, memory).save(
            self.folder
        )

    def _take_up(self, folder: Path) -> None:
        """Go on from the state in a folder, if there is one."""
        saved = TrainingState.load(folder, self.identity)
        if saved is None:
            return
        progress = saved.progress
        then, now = progress.get("computed with", _arithmetic()), _arithmetic()
        if then != now and progress["steps"] < self.config.n_steps:
            differing = ", ".join(
                f"{name} {then[name]} then and {now[name]} now" for name in now if then[name] != now[name]
            )
            warn(f"training goes on, but not bit for bit: {differing}")
        load_state(saved.model, self.backbone, self.learner)
        put_back(saved, self.stepper.optimizer)
        device = next(self.backbone.parameters(), torch.empty(0, dtype=torch.float32, device="cpu")).device
        self.keeper.put_back({k: v.to(device) for k, v in saved.best.items()} or None, self.backbone)
        if progress["scaler"]:
            self.stepper.scaler.load_state_dict(progress["scaler"])
        for _ in range(progress["steps"]):
            self.schedule.step()
        records = CsvLog.read(folder / LOG, progress["steps"])
        if len(records) < progress["steps"]:
            raise ValueError(
                f"{folder / LOG} has {len(records)} rows, and the state is after {progress['steps']} steps; "
                "start anew without resume=True"
            )
        if progress.get("log", CsvLog.digest(records)) != CsvLog.digest(records):
            raise ValueError(
                f"{folder / LOG} is damaged: its rows are not those of the state; restore it from a copy, or start "
                "again without resume=True"
            )
        self.before, self.in_a_row = progress["seconds"], progress["in_a_row"]
        self.result = TrainResult(
            records, progress["best_episode"], float(progress["best_accuracy"]), progress["skipped"]
        )


def _arithmetic() -> dict[str, Any]:
    """Return what decides the last bits of a sum."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "processes": n_processes()}
