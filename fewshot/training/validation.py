"""Validation, and the best weights so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.data.images import LabeledImages
from fewshot.embedding.checkpoint import load_state, save_weights, state
from fewshot.embedding.network import embed
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.evaluate import evaluate
from fewshot.errors import TrainingError
from fewshot.learners.base import Learner
from fewshot.training.config import TrainConfig
from fewshot.training.distributed import broadcast, rank
from fewshot.training.folder import BEST
from fewshot.training.result import TrainResult


@dataclass(eq=False)
class Validator:
    """Measures the network on the validation classes, keeps the best weights, and restores them at the end.

    Parameters
    ----------
    learner : Learner
        The learner.
    val : LabeledImages or None
        Validation images; without them the last weights count as the best.
    config : TrainConfig
        Sizes of the validation episodes.
    out : Path or None
        Folder for the checkpoint of the best weights.
    training : mapping
        What the checkpoint records about its training.
    """

    learner: Learner
    val: LabeledImages | None
    config: TrainConfig
    out: Path | None
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.best: dict[str, Tensor] | None = None
        if self.val is not None:
            # Too few images are an error now, not at the first validation.
            self.n_way = min(self.config.val_n_way, len(self.val.classes))
            if self.n_way < 2:
                raise ValueError("val has one class, for which every answer is right; give two or more, or none")
            EpisodeSampler(self.val.labels, self.n_way, self.config.val_n_shot, self.config.val_n_query)

    def validate(self, record: dict[str, float], result: TrainResult, backbone: nn.Module) -> None:
        """Write the validation accuracy of `backbone` into `record`, and keep its weights if they are the best."""
        if self.val is not None:
            record |= self._measure(record, backbone, self.val)
            if record["val_accuracy"] <= result.best_accuracy:  # False if best_accuracy is still NaN
                return
            result.best_accuracy = record["val_accuracy"]
        result.best_episode = int(record["episode"])
        self.best = {name: value.detach().clone() for name, value in state(backbone, self.learner).items()}
        self._write(backbone)

    def _measure(self, record: Mapping[str, float], backbone: nn.Module, val: LabeledImages) -> dict[str, float]:
        config, embeddings = self.config, embed(backbone, val.images)
        if not np.isfinite(embeddings).all():
            raise TrainingError(
                f"after episode {int(record['episode'])} the network gives embeddings that are not finite; "
                f"lower lr={config.lr:g}"
            )
        measured = evaluate(
            self.learner,
            embeddings,
            val.labels,
            n_way=self.n_way,
            n_shot=config.val_n_shot,
            n_query=config.val_n_query,
            n_episodes=config.val_n_episodes,
            seed=config.seed,
        )
        # All processes must agree, to the last bit, on which weights are the best.
        agreed = torch.tensor([measured.mean, measured.ci95], dtype=torch.float64, device="cpu")
        broadcast([agreed])
        return dict(zip(("val_accuracy", "val_ci95"), agreed.tolist(), strict=True))

    def resume(self, best: dict[str, Tensor] | None, backbone: nn.Module) -> None:
        """Take over the best weights of a saved state, and write their file again in case it is gone."""
        self.best = best
        self._write(backbone)

    def _write(self, backbone: nn.Module) -> None:
        """Write the best weights, if there are any; of several processes only the first does."""
        if self.best is not None and self.out is not None and rank() == 0:
            save_weights(self.out / BEST, backbone, self.learner, self.best, self.training)

    @contextmanager
    def restoring_best(self, backbone: nn.Module) -> Iterator[None]:
        """Load the best weights and switch to evaluation mode when the block ends, even with an error."""
        try:
            yield
        finally:
            if self.best is not None:
                load_state(self.best, backbone, self.learner)
            backbone.eval()
            self.learner.eval()
