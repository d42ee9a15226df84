"""The meta-trainer: one episode, one step down the query loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.backbones import check_backbone, create_backbone
from fewshot.data.images import LabeledImages
from fewshot.embedding.network import to_input
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.episode import Episode
from fewshot.episodes.stream import AUGMENT, MODEL, episode_rng
from fewshot.errors import TrainingError
from fewshot.learners.base import Learner, as_learner
from fewshot.progress import progress_bar
from fewshot.randomness import seeded
from fewshot.training.config import TrainConfig, TrainResult
from fewshot.training.keeping import BestKeeper, CsvLog

Augment = Callable[[Tensor, np.random.Generator], Tensor]


class MetaTrainer:
    """Improve a backbone, and a learner's own parameters, on many small learning tasks.

    Each episode is embedded, its support learned by the learner, and the query loss, the meta-objective,
    descended by one step of Adam. Afterwards the best weights on the validation classes are in place.

    Parameters
    ----------
    backbone : str or nn.Module, default="conv4"
        A name for `create_backbone`, or a network, trained in place. Channels are taken from the images and, for
        ``conv4``, the size; other networks that want one size need images of that size.
    learner : str or Learner, default="prototypical"
        A registered name or a learner, trained in place.
    config : TrainConfig, optional
        How to train.
    augment : callable, optional
        ``augment(images, rng)`` maps a float tensor (n, c, h, w) and a numpy generator, which is the episode's
        own, to a tensor of the same shape; see `Distortion`.
    device : str or torch.device, default="cpu"
        Where to train.

    References
    ----------
    J. Snell, K. Swersky, R. Zemel (2017). Prototypical Networks for Few-shot Learning. arXiv:1703.05175.

    Examples
    --------
    >>> from fewshot import MetaTrainer, TrainConfig, glyphs
    >>> config = TrainConfig(n_episodes=2, n_way=5, val_n_episodes=10)
    >>> trainer = MetaTrainer("conv4", "prototypical", config)
    >>> result = trainer.fit(glyphs("train"), glyphs("val"), progress=False)
    >>> len(result.records)
    2
    """

    def __init__(
        self,
        backbone: str | nn.Module = "conv4",
        learner: str | Learner = "prototypical",
        config: TrainConfig | None = None,
        *,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = config or TrainConfig()
        self.learner = as_learner(learner)
        if isinstance(backbone, str):
            check_backbone(backbone)  # an error now, not after the data are read
        self._architecture = backbone if isinstance(backbone, str) else ""
        self._network = None if isinstance(backbone, str) else backbone
        self.augment = augment
        self.device = torch.device(device)

    @property
    def backbone(self) -> nn.Module:
        """The network; one asked for by name is created by `fit`, which knows the size of the images."""
        if self._network is None:
            raise AttributeError(f"the backbone {self._architecture!r} is created by fit(); call that first")
        return self._network

    def fit(
        self,
        train: LabeledImages,
        val: LabeledImages | None = None,
        *,
        out: str | Path | None = None,
        progress: bool = True,
    ) -> TrainResult:
        """Meta-train on the classes of `train`, choosing the best weights on those of `val`.

        Parameters
        ----------
        train, val : LabeledImages
            Images; the two must not share a class. Without `val` the last weights are kept.
        out : path, optional
            A folder for ``log.csv``, written as training goes, and the checkpoint ``best.safetensors``, which
            `Embedder` and `FewShotImageClassifier` take as a backbone.
        progress : bool, default=True
            Whether to show a progress bar on standard error.

        Returns
        -------
        TrainResult
            Loss, accuracy and validation, episode by episode.

        Raises
        ------
        ValueError
            If `train` and `val` share classes or hold too few images.
        TrainingError
            If the loss or its gradient is not finite; the message names the episode. The best weights are in place.
        """
        for data in (train, val):
            if data is not None and not data.is_decoded:
                raise ValueError("train and val must be pixels of one size, not files; pass train.decoded(size=84)")
        _check_disjoint(train, val)
        config = self.config
        sampler = EpisodeSampler(train.labels, config.n_way, config.n_shot, config.n_query, seed=config.seed)
        keeper = BestKeeper(self.learner, val, config, out)
        backbone = self._build(train)
        optimizer, schedule = self._optimizer()
        images = torch.from_numpy(np.require(train.images, requirements=["C", "W"])).to(self.device)
        result = TrainResult()
        with (
            keeper.restoring(backbone),
            CsvLog(out) as log,
            progress_bar(config.n_episodes, "episode", show=progress) as bar,
        ):
            start = time.perf_counter()
            for i in range(config.n_episodes):
                backbone.train()
                self.learner.train()
                loss, accuracy = self._step(images, sampler[i], i, optimizer)
                record: dict[str, float] = {
                    "episode": i + 1,
                    "loss": loss,
                    "accuracy": accuracy,
                    "lr": float(schedule.get_last_lr()[0]),
                }
                schedule.step()
                if (i + 1) % config.validate_every == 0 or i + 1 == config.n_episodes:
                    keeper.validate(record, result, backbone)
                record["seconds"] = time.perf_counter() - start
                result.records.append(record)
                log.write(record)
                bar.update()
                bar.set_postfix(_postfix(record, result), refresh=False)
        return result

    def _build(self, train: LabeledImages) -> nn.Module:
        if self._network is None:
            channels = 1 if train.images.ndim == 3 else train.images.shape[-1]
            sized = {"img_size": train.images.shape[1]} if self._architecture == "conv4" else {}
            self._network = create_backbone(self._architecture, seed=self.config.seed, in_chans=channels, **sized)
        # The network owns its preprocessing: from now on, that of the images it is trained on.
        height, width, channels = (*train.images.shape[1:], 1)[:3]
        config = getattr(self._network, "pretrained_cfg", None) or {}
        seen = {"input_size": (channels, height, width), "crop_pct": 1.0, "crop_mode": "center"}
        self._network.pretrained_cfg = {**config, **seen}  # type: ignore[assignment]
        self.learner.to(self.device)
        return self._network.to(self.device)

    def _optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
        config = self.config
        parameters = [p for m in (self.backbone, self.learner) for p in m.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        # One step more than episodes: the last rate is asked for after the last step.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.lr, total_steps=config.n_episodes + 1, pct_start=0.3
        )
        return optimizer, schedule

    def _step(self, images: Tensor, episode: Episode, i: int, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
        config, backbone = self.config, self.backbone
        rows = np.concatenate(
            [episode.support.reshape(config.n_way, -1), episode.query.reshape(config.n_way, -1)], axis=1
        )
        with seeded(int(episode_rng(config.seed, i, MODEL).integers(2**63))):
            x = to_input(images[torch.from_numpy(rows.ravel()).to(self.device)], backbone)
            if self.augment is not None:
                x = self.augment(x, episode_rng(config.seed, i, AUGMENT))
            embeddings = backbone(x).unflatten(0, rows.shape)
            support, queries = split_tasks(embeddings, config.n_shot, config.rotate_support)
            labels = torch.arange(config.n_way, device=x.device)
            support_labels = labels.repeat_interleave(config.n_shot).expand(support.shape[:-1])
            query_labels = labels.repeat_interleave(config.n_query).expand(queries.shape[:-1])
            logits = self.learner(support, support_labels, queries, config.n_way)
            loss = self.learner.loss(logits, query_labels)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss of episode {i} (seed {config.seed}) is {loss.item()}; lower lr={config.lr:g}"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if not torch.isfinite(norm):
                raise TrainingError(
                    f"the gradient of episode {i} (seed {config.seed}) is not finite; lower lr={config.lr:g}"
                )
            optimizer.step()
        accuracy = (logits.detach().argmax(-1) == query_labels).float().mean()
        return loss.item(), accuracy.item()


def split_tasks(embeddings: Tensor, n_shot: int, rotate: bool) -> tuple[Tensor, Tensor]:
    """Split the embeddings of an episode into support and queries, once or with each image as support in turn.

    Parameters
    ----------
    embeddings : Tensor of shape (n_way, n, d)
        All images of an episode, class by class.
    n_shot : int
        Support images a class.
    rotate : bool
        If True, task ``r`` takes images ``r, ..., r + n_shot - 1`` (modulo n) of every class as its support.

    Returns
    -------
    support : Tensor of shape (n_tasks, n_way * n_shot, d)
        With n tasks if `rotate`, else 1.
    queries : Tensor of shape (n_tasks, n_way * (n - n_shot), d)
        The others.

    Examples
    --------
    >>> support, queries = split_tasks(torch.arange(6.0).view(2, 3, 1), n_shot=1, rotate=True)
    >>> support[..., 0].tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    n_way, n, d = embeddings.shape
    # Rolled copies, not an index: on several threads the gradient of an index sums in an order that varies.
    tasks = torch.stack([embeddings.roll(-first, 1) for first in range(n if rotate else 1)])
    return (
        tasks[:, :, :n_shot].reshape(-1, n_way * n_shot, d),
        tasks[:, :, n_shot:].reshape(-1, n_way * (n - n_shot), d),
    )


def _check_disjoint(train: LabeledImages, val: LabeledImages | None) -> None:
    shared = np.intersect1d(train.classes, val.classes) if val is not None else np.empty(0)
    if len(shared):
        raise ValueError(
            f"train and val share {len(shared)} classes, such as {shared[0]!r}; split by class, "
            "or the best weights are chosen on classes that were trained on"
        )


def _postfix(record: dict[str, Any], result: TrainResult) -> dict[str, str]:
    shown = {"loss": f"{record['loss']:.3f}", "accuracy": f"{100 * record['accuracy']:.1f}%"}
    if math.isfinite(result.best_accuracy):
        shown["best val"] = f"{100 * result.best_accuracy:.1f}%"
    return shown
