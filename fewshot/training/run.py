"""The loop of a training run: steps, validation, the best weights, saved states, and an orderly end."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.data.images import LabeledImages
from fewshot.embedding.backbones.registered import network_code
from fewshot.embedding.checkpoint import load_state, save_weights, state
from fewshot.embedding.maps import network_for
from fewshot.embedding.network import embed
from fewshot.episodes.episode import Sampler
from fewshot.episodes.evaluate import evaluate
from fewshot.errors import TrainingError, TrainingInterrupted
from fewshot.persistence.files import sync
from fewshot.training.callbacks import Callback, CsvLog
from fewshot.training.distributed import barrier, broadcast, n_processes, rank
from fewshot.training.folder import BEST, LOG, TrainingState, remove_leftovers, remove_training, restore_optimizer
from fewshot.training.interrupt import deferred_signals
from fewshot.training.result import TrainResult
from fewshot.training.step import Stepper, StepResult, one_cycle
from fewshot.utils.logs import timed
from fewshot.utils.own_code import own_code
from fewshot.utils.text import counted
from fewshot.utils.warning import warn

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """One training run, which can be interrupted at any time and resumed exactly.

    Parameters
    ----------
    stepper : Stepper
        Takes the steps.
    episodes : Sampler
        The training episodes.
    val : LabeledImages or None
        Validation images; without them the last weights count as the best.
    identity : dict
        What must be the same to resume the run.
    recorded : mapping
        What the checkpoint of the best weights records about its training.
    folder : Path or None
        Folder for saved states and that checkpoint; None saves none.
    callbacks : sequence of Callback
        Observers of the run.
    """

    stepper: Stepper
    episodes: Sampler
    val: LabeledImages | None
    identity: dict[str, Any]
    recorded: Mapping[str, Any]
    folder: Path | None
    callbacks: Sequence[Callback]

    def __post_init__(self) -> None:
        self.config, self.optimizer = self.stepper.config, self.stepper.optimizer
        self.backbone, self.learner = self.stepper.backbone, self.stepper.learner
        self.schedule = one_cycle(self.optimizer, self.config.n_steps)
        # The first step may be skipped, or precede an interruption; torch would warn that there was none.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        self.result, self.faults_in_a_row, self.seconds_before = TrainResult(), 0, 0.0
        self.best: dict[str, Tensor] | None = None

    @cached_property
    def code(self) -> str:
        """Digest of the code that is trained, as far as it is somebody's own."""
        return network_code(self.backbone) + own_code([self.learner, self.stepper.augment])

    def train(self, resume: bool) -> TrainResult:
        """Take all remaining steps; at the end, even after an error, restore the best weights."""
        try:
            if self.folder is not None:
                self._open(self.folder, resume)
            self._take_steps()
        finally:
            if self.best is not None:
                load_state(self.best, self.backbone, self.learner)
            self.backbone.eval()
            self.learner.eval()
        return self.result

    def _open(self, folder: Path, resume: bool) -> None:
        if resume:
            self._resume(folder)
        elif rank() == 0:
            remove_training(folder)
        barrier()  # all processes have read the log before it is rewritten
        if rank() == 0:
            remove_leftovers(folder)

    def _take_steps(self) -> None:
        m, start = self.config.meta_batch, time.perf_counter() - self.seconds_before
        first, began = len(self.result.records), time.perf_counter()
        with deferred_signals() as received:
            for callback in self.callbacks:
                callback.start(asdict(self.config), self.result)
            try:
                for step in range(len(self.result.records), self.config.n_steps):
                    episodes = [self.episodes[i] for i in range(step * m, (step + 1) * m)]
                    found = self.stepper(step * m, episodes, stop=bool(received))
                    self._record(step, found, start)
                    # Processes stop together, so only a single process acts at once on a signal during the step.
                    if found.stop or (received and n_processes() == 1):
                        self._stop(step, received[0] if received else signal.SIGTERM)
            finally:
                for callback in self.callbacks:
                    callback.end(self.result)
                n, seconds = m * (len(self.result.records) - first), time.perf_counter() - began
                _log.info("trained %d episodes in %.1f s, %.1f a second", n, seconds, n / max(seconds, 1e-9))

    def _record(self, step: int, found: StepResult, start: float) -> None:
        """Record a step; validate and save if due."""
        config, result = self.config, self.result
        record: dict[str, float] = {
            "episode": (step + 1) * config.meta_batch,
            "loss": found.loss,
            "accuracy": found.accuracy,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
        }
        self.schedule.step()
        self._check_fault(found)
        last = step + 1 == config.n_steps
        if (step + 1) % config.validate_every == 0 or last:
            self._validate(record)
        record["seconds"] = time.perf_counter() - start
        result.records.append(record)
        for callback in self.callbacks:
            callback.step(record, result)
        if (step + 1) % config.save_every == 0 or last:
            self._save()

    def _validate(self, record: dict[str, float]) -> None:
        """Write the validation accuracy into `record`, and keep the weights if they are the best."""
        if self.val is not None:
            record |= self._measure(self.val, int(record["episode"]))
            if record["val_accuracy"] <= self.result.best_accuracy:  # False if best_accuracy is still NaN
                return
            self.result.best_accuracy = record["val_accuracy"]
        self.result.best_episode = int(record["episode"])
        self.best = {name: value.detach().clone() for name, value in state(self.backbone, self.learner).items()}
        self._write_best()

    def _measure(self, val: LabeledImages, episode: int) -> dict[str, float]:
        """Return the accuracy on the validation classes and its interval."""
        config, embeddings = self.config, embed(network_for(self.learner, self.backbone), val.images)
        if not np.isfinite(embeddings).all():
            raise TrainingError(
                f"after episode {episode} the network gives embeddings that are not finite; lower lr={config.lr:g}"
            )
        measured = evaluate(
            self.learner,
            embeddings,
            val.labels,
            n_way=min(config.val_n_way, len(val.classes)),
            n_shot=config.val_n_shot,
            n_query=config.val_n_query,
            n_episodes=config.val_n_episodes,
            seed=config.seed,
        )
        # All processes must agree, to the last bit, on which weights are the best.
        agreed = torch.tensor([measured.mean, measured.ci95], dtype=torch.float64, device="cpu")
        broadcast([agreed])
        return dict(zip(("val_accuracy", "val_ci95"), agreed.tolist(), strict=True))

    def _write_best(self) -> None:
        if self.best is not None and self.folder is not None and rank() == 0:
            save_weights(self.folder / BEST, self.backbone, self.learner, self.best, self.recorded)
            _log.info("wrote the weights of episode %d to %s", self.result.best_episode, self.folder / BEST)

    def _check_fault(self, found: StepResult) -> None:
        self.faults_in_a_row = self.faults_in_a_row + 1 if found.fault else 0
        if not found.fault:
            return
        self.result.skipped.append(found.episode)
        if self.faults_in_a_row == self.config.max_skipped:
            raise TrainingError(
                f"{self.faults_in_a_row} steps in a row were not finite, the last: {found.fault}; "
                f"lower lr={self.config.lr:g}"
            )
        warn(f"{found.fault} is not finite; the step is skipped")

    def _stop(self, step: int, signum: int) -> None:
        self._save()
        where = f"stopped after episode {(step + 1) * self.config.meta_batch}"
        cure = f"; the state is in {self.folder}, continue with resume=True" if self.folder else ""
        raise TrainingInterrupted(signum, where + cure)

    def _save(self) -> None:
        if self.folder is None or rank() > 0:
            return
        result = self.result
        progress = {
            "steps": len(result.records),
            "best_episode": result.best_episode,
            "best_accuracy": repr(result.best_accuracy),  # JSON has no NaN
            "seconds": result.records[-1]["seconds"],
            "skipped": result.skipped,
            "in_a_row": self.faults_in_a_row,
            "scaler": self.stepper.scaler.state_dict(),
            "computed with": _arithmetic(),
            "code": self.code,
            "log": CsvLog.digest(result.records),
        }
        if (self.folder / LOG).is_file():
            sync(self.folder / LOG)  # after a power failure the log must have a row for every step of the state
        model, best = state(self.backbone, self.learner), self.best or {}
        optimizer = self.optimizer.state_dict()["state"]
        with timed(_log, "wrote the state of step %d to %s", len(result.records), self.folder, level=logging.DEBUG):
            TrainingState(self.identity, progress, model, best, optimizer).save(self.folder)

    def _resume(self, folder: Path) -> None:
        """Continue from the state in a folder, if there is one."""
        saved = TrainingState.load(folder, self.identity)
        if saved is None:
            _log.info("%s holds no state to resume; training begins with the first episode", folder)
            return
        progress = saved.progress
        if progress["steps"] < self.config.n_steps:
            _warn_of_arithmetic(progress.get("computed with", _arithmetic()))
            if progress.get("code", self.code) != self.code:
                warn(
                    "the code of the network, learner or augmentation has changed since training stopped, so from here "
                    "on the new one is trained; to train only that, start again with overwrite=True instead of "
                    "resume=True"
                )
        load_state(saved.model, self.backbone, self.learner)
        restore_optimizer(saved, self.optimizer)
        device = next(self.backbone.parameters(), torch.empty(0, dtype=torch.float32, device="cpu")).device
        self.best = {k: v.to(device) for k, v in saved.best.items()} or None
        self._write_best()  # again, in case the file is gone
        if progress["scaler"]:
            self.stepper.scaler.load_state_dict(progress["scaler"])
        for _ in range(progress["steps"]):
            self.schedule.step()
        self.seconds_before, self.faults_in_a_row = progress["seconds"], progress["in_a_row"]
        best = progress["best_episode"], float(progress["best_accuracy"])
        self.result = TrainResult(_read_log(folder / LOG, progress), *best, progress["skipped"])
        _log.info("resumed %s after episode %d", folder, self.config.meta_batch * progress["steps"])


def _read_log(path: Path, progress: dict[str, Any]) -> list[dict[str, float]]:
    """Return the rows that belong to a saved state."""
    records = CsvLog.read(path, progress["steps"])
    if len(records) < progress["steps"]:
        raise ValueError(
            f"{path} has {counted(len(records), 'row')} and the state {counted(progress['steps'], 'step')}; "
            "start again with overwrite=True instead of resume=True"
        )
    digest = CsvLog.digest(records)
    if progress.get("log", digest) != digest:
        raise ValueError(
            f"{path} is damaged: its rows are not those of the state; restore it from a copy, or start again with "
            "overwrite=True instead of resume=True"
        )
    return records


def _arithmetic() -> dict[str, Any]:
    """Return what determines the last bits of a sum."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "processes": n_processes()}


def _warn_of_arithmetic(then: dict[str, Any]) -> None:
    now = _arithmetic()
    if differing := [f"{name} {then[name]} then and {now[name]} now" for name in now if then[name] != now[name]]:
        warn(f"training resumes, but not bit for bit: {', '.join(differing)}")
