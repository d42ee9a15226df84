"""The meta-trainer: one step down the query loss after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewshot.data.digest import digest_classes, digest_images
from fewshot.data.images import LabeledImages
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import check_backbone, create_backbone, spec_of
from fewshot.embedding.checkpoint import describe_learner
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import embed
from fewshot.embedding.sources import sized
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.episode import Sampler
from fewshot.learners.base import Learner
from fewshot.learners.registry import as_learner
from fewshot.training.callbacks import Callback, CsvLog, ProgressBar
from fewshot.training.config import TrainConfig
from fewshot.training.distributed import n_processes, process_group, rank, take_from_first
from fewshot.training.keeping import BestKeeper
from fewshot.training.place import only_training, refuse_log
from fewshot.training.result import TrainResult
from fewshot.training.run import Run
from fewshot.training.state import LOG
from fewshot.training.step import Augment, Stepper, learning_rates
from fewshot.utils.heap import give_back_memory, keeping_memory
from fewshot.utils.isolation import isolated


class MetaTrainer:
    """Improve a backbone, and a learner's own parameters, on many small learning tasks.

    Each episode is embedded, its support learned by the learner, and the query loss, the meta-objective,
    descended by one step of Adam. Afterwards the best weights on the validation classes are in place.

    Parameters
    ----------
    backbone : str, nn.Module or Embedder, default="conv4"
        A name for `create_backbone`, trained from the start; a network, trained in place; or an embedder, a copy of
        whose network is trained on from the weights that it has. With a name, channels are taken from the images and,
        for networks that want one size, the size; a second `fit` trains the same network on.
    learner : str or Learner, default="prototypical"
        A registered name or a learner, trained in place.
    config : TrainConfig, optional
        How to train.
    augment : callable, optional
        ``augment(images, rng)`` maps a float tensor (n, c, h, w) and a numpy generator, which is the episode's
        own, to a tensor of the same shape; see `Distortion`.
    device : str or torch.device, default="cpu"
        Where to train.
    callbacks : sequence of Callback, default=()
        Who is told of each step, beside the log and the progress bar; see `fewshot.training.callbacks`.

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
        backbone: str | nn.Module | Embedder = "conv4",
        learner: str | Learner = "prototypical",
        config: TrainConfig | None = None,
        *,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config = config or TrainConfig()
        self.learner = as_learner(learner)
        if isinstance(backbone, str):
            check_backbone(backbone)  # an error now, not after the data are read
        if isinstance(backbone, Embedder):
            with isolated(gradients=True):
                backbone = deepcopy(backbone.network).requires_grad_(True)  # clones of the embedder share theirs
        self._architecture = backbone if isinstance(backbone, str) else ""
        self._network = None if isinstance(backbone, str) else backbone
        self._began = "random" if isinstance(backbone, str) else "given"
        self.augment = augment
        self.device = torch.device(device)
        self.callbacks = callbacks

    @property
    def backbone(self) -> nn.Module:
        """The network; one asked for by name is created by `fit`, which knows the size of the images."""
        if self._network is None:
            raise AttributeError(f"the backbone {self._architecture!r} is created by fit(); call that first")
        return self._network

    @isolated(gradients=True)
    def fit(
        self,
        train: LabeledImages,
        val: LabeledImages | None = None,
        *,
        out: str | Path | None = None,
        progress: bool = True,
        resume: bool = False,
        sampler: Callable[..., Sampler] | None = None,
    ) -> TrainResult:
        """Meta-train on the classes of `train`, choosing the best weights on those of `val`.

        Parameters
        ----------
        train, val : LabeledImages
            Images; the two must not share a class. Without `val` the last weights are kept.
        out : path, optional
            A folder for ``log.csv``, written as training goes, the checkpoint ``best.safetensors``, which `Embedder`
            and `FewShotImageClassifier` take as a backbone, and ``state.safetensors``, to go on from.
        progress : bool, default=True
            Whether to show a progress bar on standard error.
        resume : bool, default=False
            Whether to go on from the state in `out`, bit for bit as if nothing had happened at an equal number of
            threads; without a state training begins.
        sampler : callable, optional
            ``sampler(labels, seed=seed)`` draws episodes of another kind than n_way, n_shot and n_query say, such as
            `VariedEpisodeSampler`.

        Returns
        -------
        TrainResult
            Loss, accuracy and validation, step by step.

        Raises
        ------
        InUseError
            If another training is writing to `out`.
        ValueError
            If `train` and `val` share classes or hold too few images, the state is of another training, or `out` holds
            a ``log.csv`` that is not one of a training.
        TrainingError
            If too many steps in a row are not finite, or memory ends; the message names the episode, and the best
            weights are in place.
        TrainingInterrupted
            After Ctrl-C or SIGTERM: the episode is finished, the state saved, the best weights are in place.
        """
        _check_data(train, val)
        if resume and out is None:
            raise ValueError("resume needs the folder of the training; pass out=")
        config, folder = self.config, None if out is None else Path(out)
        drawing = sampler or partial(EpisodeSampler, n_way=config.n_way, n_shot=config.n_shot, n_query=config.n_query)
        episodes = drawing(train.labels, seed=config.seed)
        keeper = BestKeeper(self.learner, val, config, folder, self._training(train, val))
        if folder is not None:
            refuse_log(folder)
            folder.mkdir(parents=True, exist_ok=True)
        with process_group(self.device), only_training(folder):
            if config.meta_batch % n_processes():
                raise ValueError(
                    f"meta_batch is {config.meta_batch}; expected a multiple of the {n_processes()} processes"
                )
            backbone = self._build(train)
            identity = {} if folder is None else self._identity(train, val, episodes)
            groups = learning_rates(backbone, self.learner, config)
            optimizer = torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay)
            stepper = Stepper(backbone, self.learner, optimizer, train.images, config, self.augment, self.device)
            run = Run(stepper, episodes, keeper, identity, folder, self._callbacks(folder, progress))
            try:
                with keeper.restoring(backbone), keeping_memory():
                    return run.go(resume)
            finally:
                give_back_memory()

    def _build(self, train: LabeledImages) -> nn.Module:
        if self._network is None:
            channels = 1 if train.images.ndim == 3 else train.images.shape[-1]
            own = sized(self._architecture, int(train.images.shape[1]))
            self._network = create_backbone(self._architecture, seed=self.config.seed, in_chans=channels, **own)
        # The network owns its preprocessing: from now on, that of the images it is trained on.
        height, width, channels = (*train.images.shape[1:], 1)[:3]
        config = getattr(self._network, "pretrained_cfg", None) or {}
        if spec_of(self._network) and config["input_size"][0] != channels:
            raise ValueError(
                f"the images have {channels} channel(s) and the network takes {config['input_size'][0]}; give images "
                "of as many, e.g. LabeledImages(np.repeat(images[..., None], 3, -1), labels), or another network"
            )
        seen = {"input_size": (channels, height, width), "crop_pct": 1.0, "crop_mode": "center"}
        seen["interpolation"] = Preprocessing.interpolation  # as LabeledImages.decoded scales
        self._network.pretrained_cfg = {**config, **seen}
        self.learner.to(self.device)
        self._network.to(self.device)
        if self.learner.learned:  # its weights are as wide as what the network gives
            one = embed(self._network, train.images[:1])
            self.learner.sized(one.shape[-1], self.config.seed, torch.from_numpy(one).to(self.device))
        take_from_first([*self._network.state_dict().values(), *self.learner.state_dict().values()])
        return self._network

    def _training(self, train: LabeledImages, val: LabeledImages | None) -> dict[str, Any]:
        """Return what a checkpoint says of its training: so that nobody measures it on these classes."""
        both = [data for data in (train, val) if data is not None]
        classes = [label for data in both for label in data.classes.tolist()]
        plain = all(isinstance(label, (str, int)) for label in classes)
        return {
            "classes": classes if plain else [str(label) for label in classes],
            "images": sorted({content for data in both for content in digest_classes(data).values()}),
            "began": self._began,
        }

    def _callbacks(self, folder: Path | None, progress: bool) -> list[Callback]:
        if rank() > 0:
            return []
        own: list[Callback] = [] if folder is None else [CsvLog(folder / LOG)]
        if progress:
            own.append(ProgressBar(self.config.n_steps, "episode" if self.config.meta_batch == 1 else "step"))
        return own + list(self.callbacks)

    def _identity(self, train: LabeledImages, val: LabeledImages | None, episodes: Sampler) -> dict[str, Any]:
        """Return what must be the same for a run to go on."""
        config = {k: v for k, v in asdict(self.config).items() if k not in ("save_every", "max_skipped")}
        learner = describe_learner(self.learner)
        for name in [name for name in learner["params"] if getattr(self.learner, f"learn_{name}", False)]:
            del learner["params"][name]  # training moves it
        augment = self.augment
        return {
            "config": config,
            "backbone": spec_of(self.backbone) or type(self.backbone).__qualname__,
            "learner": learner,
            "augment": repr(augment) if is_dataclass(augment) else getattr(augment, "__qualname__", str(type(augment))),
            "train": digest_images(train),
            "val": None if val is None else digest_images(val),
            "episodes": episodes.protocol,
        }


def _check_data(train: LabeledImages, val: LabeledImages | None) -> None:
    for data in (train, val):
        if data is not None and not data.is_decoded:
            raise ValueError("train and val must be pixels of one size, not files; pass train.decoded(size=84)")
    shared = np.intersect1d(train.classes, val.classes) if val is not None else np.empty(0)
    if len(shared):
        raise ValueError(
            f"train and val share {len(shared)} classes, such as {shared[0]!r}; split by class, "
            "or the best weights are chosen on classes that were trained on"
        )
