"""What is kept of a training run: the best weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from fewshot.training.distributed import rank, take_from_first
from fewshot.training.result import TrainResult
from fewshot.training.state import BEST


class BestKeeper:
    """Validate, remember the best weights, and put them back at the end."""

    def __init__(
        self,
        learner: Learner,
        val: LabeledImages | None,
        config: TrainConfig,
        out: Path | None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.learner, self.val, self.config, self.training = learner, val, config, training
        self.path = None if out is None else out / BEST
        self.best: dict[str, Tensor] | None = None
        if val is not None:
            # Too few images are an error now, not after the first hundred steps.
            self.n_way = min(config.val_n_way, len(val.classes))
            if self.n_way < 2:
                raise ValueError("val has one class, among which every answer is right; give two or more, or none")
            EpisodeSampler(val.labels, self.n_way, config.val_n_shot, config.val_n_query)

    def validate(self, record: dict[str, float], result: TrainResult, backbone: nn.Module) -> None:
        """Measure `backbone` on the validation classes, into `record`; keep its weights if they are the best."""
        config = self.config
        if self.val is not None:
            embeddings = embed(backbone, self.val.images)
            if not np.isfinite(embeddings).all():
                raise TrainingError(
                    f"after episode {int(record['episode'])} the network gives embeddings that are not finite; "
                    f"lower lr={config.lr:g}"
                )
            measured = evaluate(
                self.learner,
                embeddings,
                self.val.labels,
                n_way=self.n_way,
                n_shot=config.val_n_shot,
                n_query=config.val_n_query,
                n_episodes=config.val_n_episodes,
                seed=config.seed,
            )
            # Processes must agree on which weights are the best, to the last bit.
            agreed = torch.tensor([measured.mean, measured.ci95], dtype=torch.float64, device="cpu")
            take_from_first([agreed])
            record["val_accuracy"], record["val_ci95"] = agreed.tolist()
            if record["val_accuracy"] <= result.best_accuracy:  # False while there is no best yet: NaN
                return
            result.best_accuracy = record["val_accuracy"]
        result.best_episode = int(record["episode"])
        self.best = {name: value.detach().clone() for name, value in state(backbone, self.learner).items()}
        if self.path is not None and rank() == 0:
            save_weights(self.path, backbone, self.learner, training=self.training)

    def put_back(self, best: dict[str, Tensor] | None, backbone: nn.Module) -> None:
        """Go on with the best weights of before; their file may be gone."""
        self.best = best
        if best is not None and self.path is not None and rank() == 0:
            save_weights(self.path, backbone, self.learner, best, self.training)

    @contextmanager
    def restoring(self, backbone: nn.Module) -> Iterator[None]:
        """Put the best weights in place, in evaluation mode, however the block is left."""
        try:
            yield
        finally:
            if self.best is not None:
                load_state(self.best, backbone, self.learner)
            backbone.eval()
            self.learner.eval()
