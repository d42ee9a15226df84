"""The meta-trainer: it descends the query loss, step by step."""

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

from fewshot.data.crop import CROPS, TRAINING, TrainingCrop
from fewshot.data.digest import digest_classes, digest_images
from fewshot.data.images import LabeledImages
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import check_backbone, create_backbone, spec_of
from fewshot.embedding.backbones.registered import CarriedBackbone, find_registered
from fewshot.embedding.beginning import draws_weights
from fewshot.embedding.checkpoint import describe_learner
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import embed, map_width
from fewshot.embedding.sources import RANDOM_WEIGHTS, TRAINED_HERE, sized
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.episode import Sampler
from fewshot.learners.base import Learner
from fewshot.learners.local import LocalLearner
from fewshot.learners.registry import as_learner
from fewshot.training.callbacks import Callback, CsvLog, ProgressBar
from fewshot.training.config import TrainConfig
from fewshot.training.distributed import broadcast, n_processes, process_group, rank
from fewshot.training.fitness import check_channels, check_network
from fewshot.training.folder import LOG, lock_training, refuse_foreign_log, refuse_interrupted
from fewshot.training.result import TrainResult
from fewshot.training.run import Run
from fewshot.training.step import Augment, Stepper, learning_rates
from fewshot.utils.carried import carrying, unloaded
from fewshot.utils.isolation import isolated
from fewshot.utils.malloc import give_back_memory, keeping_memory
from fewshot.utils.text import counted
from fewshot.utils.values import check_name


class MetaTrainer:
    """Improve a backbone, and a learner's own parameters, on many small learning tasks.

    For each episode, the backbone embeds the images, the learner learns the support, and one step of Adam descends the
    query loss, the meta-objective. At the end the weights with the best validation accuracy are restored.

    Parameters
    ----------
    backbone : str, nn.Module or Embedder, default="conv4"
        A name for `create_backbone`, trained from scratch; a network, trained in place; or an embedder, whose network
        is copied and trained further. A named network takes its channels from the images and, if it needs a fixed
        size, also the size; a second `fit` trains the same network further.
    learner : str or Learner, default="prototypical"
        A registered name, or a learner to train in place. One of local descriptors, such as `DN4Learner`, is trained on
        the maps of features of a network that has them.
    config : TrainConfig, optional
        The settings.
    augment : callable, optional
        ``augment(images, rng)`` takes a float tensor (n, c, h, w) and the episode's own numpy generator, and returns a
        tensor of the same shape; see `Distortion`.
    device : str or torch.device, default="cpu"
        The training device.
    callbacks : sequence of Callback, default=()
        Observers of each step, in addition to the log and the progress bar; see `fewshot.training.callbacks`.
    crop : {"center", "pad", "squash"}, default="center"
        How the training images were cropped, see `LabeledImages.decoded`: the checkpoint records it for other images.

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
        crop: TrainingCrop = "center",
    ) -> None:
        self.config = config or TrainConfig()
        self.learner = as_learner(learner)
        if isinstance(backbone, str):
            check_backbone(backbone)  # fail now, not after reading the data
        self._is_random = isinstance(backbone, Embedder) and backbone.weights == RANDOM_WEIGHTS
        if isinstance(backbone, Embedder):
            with isolated(gradients=True):
                backbone = deepcopy(backbone.network).requires_grad_(True)  # clones of the embedder share it
        self._architecture = backbone if isinstance(backbone, str) else ""
        self._network = None if isinstance(backbone, str) else backbone
        self.augment = augment
        self.device = torch.device(device)
        self.callbacks = callbacks
        self.crop = check_name("crop", crop, TRAINING)

    def __getstate__(self) -> dict[str, Any]:
        return carrying(dict(self.__dict__), CarriedBackbone.of(self._architecture))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unloaded(state))

    @property
    def backbone(self) -> nn.Module:
        """The network; `fit` creates a named one, because it needs the size of the images."""
        if self._network is None:
            raise AttributeError(f"the backbone {self._architecture!r} is created by fit(); call fit() first")
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
        overwrite: bool = False,
        sampler: Callable[..., Sampler] | None = None,
    ) -> TrainResult:
        """Meta-train on the classes of `train`, and select the best weights on those of `val`.

        Parameters
        ----------
        train, val : LabeledImages
            Images; the two must not share a class. Without `val` the last weights are kept.
        out : path, optional
            A folder for ``log.csv``, the checkpoint ``best.safetensors``, which `Embedder` and
            `FewShotImageClassifier` take as a backbone, and ``state.safetensors``, from which to resume.
        progress : bool, default=True
            Whether to show a progress bar on standard error.
        resume : bool, default=False
            Whether to resume from the state in `out`, if there is one. With the same number of threads the result is
            bit for bit that of an uninterrupted run.
        overwrite : bool, default=False
            Whether to begin again although `out` holds a training that was interrupted. One that came to its end is
            replaced in any case.
        sampler : callable, optional
            ``sampler(labels, seed=seed)`` returns a sampler to use instead of `EpisodeSampler` with n_way, n_shot and
            n_query, such as a `VariedEpisodeSampler`.

        Returns
        -------
        TrainResult
            Loss, accuracy and validation accuracy of each step.

        Raises
        ------
        InUseError
            If another training is writing to `out`.
        ValueError
            If `train` and `val` share classes or hold too few images, the state is of another training, ``log.csv`` in
            `out` is not the log of a training, or `out` holds an interrupted training and neither `resume` nor
            `overwrite` is given.
        TrainingError
            If too many consecutive steps are not finite, or memory runs out; the message names the episode, and the
            best weights are restored.
        TrainingInterrupted
            After Ctrl-C or SIGTERM: the episode is finished, the state saved, and the best weights restored.
        """
        _check_data(train, val, self.config)
        if resume and out is None:
            raise ValueError("resume=True needs the folder of the training; pass out=")
        config, folder = self.config, None if out is None else Path(out)
        sampler = sampler or partial(EpisodeSampler, n_way=config.n_way, n_shot=config.n_shot, n_query=config.n_query)
        episodes = sampler(train.labels, seed=config.seed)
        if folder is not None:
            refuse_foreign_log(folder)
            if not (resume or overwrite):
                refuse_interrupted(folder)
            folder.mkdir(parents=True, exist_ok=True)
        with process_group(self.device), lock_training(folder):
            if config.meta_batch % n_processes():
                raise ValueError(
                    f"meta_batch is {config.meta_batch}; expected a multiple of the {n_processes()} processes"
                )
            backbone = self._build(train)
            identity, recorded = {}, {}
            if folder is not None:
                identity, recorded = self._identity(train, val, episodes), self._describe_data(train, val)
            groups = learning_rates(backbone, self.learner, config)
            optimizer = torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay)
            stepper = Stepper(backbone, self.learner, optimizer, train.images, config, self.augment, self.device)
            run = Run(stepper, episodes, val, identity, recorded, folder, self._callbacks(folder, progress))
            try:
                with keeping_memory():
                    return run.train(resume)
            finally:
                give_back_memory()

    def _build(self, train: LabeledImages) -> nn.Module:
        height, width, channels = (*train.images.shape[1:], 1)[:3]
        network = self._network
        if network is None:
            own = sized(self._architecture, height)
            if find_registered(self._architecture) is None:  # a network of the user's own says what it takes
                own["in_chans"] = channels
            network = create_backbone(self._architecture, seed=self.config.seed, **own)
        check_channels(network, train.images)
        self.learner.to(self.device)
        check_network(network.to(self.device), self.learner, train.images)
        self._network = network
        # The network owns its preprocessing, which from now on is that of its training images.
        seen = {"input_size": (channels, height, width), "crop_pct": 1.0, "crop_mode": CROPS[self.crop]}
        seen[TRAINED_HERE] = True
        seen["interpolation"] = Preprocessing.interpolation  # as LabeledImages.decoded scales
        network.pretrained_cfg = {**(getattr(network, "pretrained_cfg", None) or {}), **seen}
        if isinstance(self.learner, LocalLearner):
            self.learner.set_width(map_width(network, train.images))
        if self.learner.learned:  # the shapes of its parameters depend on the embedding dimension
            one = embed(network, train.images[:1])
            self.learner.sized(one.shape[-1], self.config.seed, torch.from_numpy(one).to(self.device))
        broadcast([*network.state_dict().values(), *self.learner.state_dict().values()])
        return network

    def _describe_data(self, train: LabeledImages, val: LabeledImages | None) -> dict[str, Any]:
        """Return what a checkpoint records about its data, so that no one measures it on the same classes."""
        both = [data for data in (train, val) if data is not None]
        classes = [label for data in both for label in data.classes.tolist()]
        as_json = all(isinstance(label, (str, int)) for label in classes)
        return {
            "classes": classes if as_json else [str(label) for label in classes],
            "images": sorted({content for data in both for content in digest_classes(data).values()}),
            "began": "random" if self._is_drawn(train) else "given",
        }

    def _is_drawn(self, train: LabeledImages) -> bool:
        """Whether training began from random weights; the factory of a registered network may return trained ones."""
        name = self._architecture
        if not name or find_registered(name) is None:
            return bool(name) or self._is_random
        return draws_weights(name, **sized(name, int(train.images.shape[1])))

    def _callbacks(self, folder: Path | None, progress: bool) -> list[Callback]:
        if rank() > 0:
            return []
        own: list[Callback] = [] if folder is None else [CsvLog(folder / LOG)]
        if progress:
            own.append(ProgressBar(self.config.n_steps, "episode" if self.config.meta_batch == 1 else "step"))
        return own + list(self.callbacks)

    def _identity(self, train: LabeledImages, val: LabeledImages | None, episodes: Sampler) -> dict[str, Any]:
        """Return what must be the same to resume a run."""
        config = {k: v for k, v in asdict(self.config).items() if k not in ("save_every", "max_skipped")}
        learner = describe_learner(self.learner)
        for name in [name for name in learner["params"] if getattr(self.learner, f"learn_{name}", False)]:
            learner["params"][name] = self.learner.initial_value(name)  # training changes it
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


def _check_data(train: LabeledImages, val: LabeledImages | None, config: TrainConfig) -> None:
    for name, data in (("train", train), ("val", val)):
        if not (data is None and name == "val") and not isinstance(data, LabeledImages):
            raise TypeError(
                f"{name} is a {type(data).__name__}; expected LabeledImages, such as "
                "LabeledImages.open(PATH, 'train').decoded(size=84) or LabeledImages(images, labels)"
            )
        if data is not None and not data.is_decoded:
            raise ValueError("train and val must be pixels of one size, not files; pass train.decoded(size=84)")
    shared = np.intersect1d(train.classes, val.classes) if val is not None else np.empty(0)
    if len(shared):
        raise ValueError(
            f"train and val share {counted(len(shared), 'class')}, such as {shared.tolist()[0]!r}; split by class, "
            "so that validation measures unseen classes"
        )
    if val is not None:
        n_way = min(config.val_n_way, len(val.classes))
        if n_way < 2:
            raise ValueError("val has one class, for which every answer is right; give two or more, or none")
        EpisodeSampler(val.labels, n_way, config.val_n_shot, config.val_n_query)  # raises if there are too few images
