"""One optimiser step: the gradient of a few episodes, shared by processes and guarded against NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from fewshot.embedding.maps import network_for
from fewshot.embedding.network import to_input
from fewshot.episodes.episode import Episode
from fewshot.errors import TrainingError
from fewshot.learners.base import Learner
from fewshot.training.config import TrainConfig
from fewshot.training.distributed import all_reduce, n_processes, rank
from fewshot.training.resident import resident, taken
from fewshot.utils.isolation import seeded
from fewshot.utils.streams import AUGMENT, MODEL, episode_rng

Augment = Callable[[Tensor, np.random.Generator], Tensor]
_TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Attributes
    ----------
    loss, accuracy : float
        Means over the episodes of the step.
    fault : str
        What was not finite, and in which episode; empty if nothing.
    episode : int
        That episode, or the first of the step.
    stop : bool
        Whether any process wants to stop after this step.
    """

    loss: float
    accuracy: float
    fault: str
    episode: int
    stop: bool


@dataclass(eq=False)
class Stepper:
    """Descend the mean query loss of episodes, one step at a time.

    Parameters
    ----------
    backbone, learner : nn.Module, Learner
        The modules to train.
    optimizer : torch.optim.Optimizer
        Optimiser of the parameters of both.
    images : uint8 ndarray of shape (n, h, w) or (n, h, w, c)
        All training images; memory-mapped files are not loaded, unless a GPU has room for them.
    config : TrainConfig
        The settings.
    augment : callable or None
        See `MetaTrainer`.
    device : torch.device
        The training device.
    """

    backbone: nn.Module
    learner: Learner
    optimizer: torch.optim.Optimizer
    images: NDArray[np.uint8]
    config: TrainConfig
    augment: Augment | None
    device: torch.device

    def __post_init__(self) -> None:
        network = network_for(self.learner, self.backbone)
        self._network: nn.Module = torch.compile(network) if self.config.compile else network  # type: ignore[assignment]
        self._images = resident(self.images, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.config.precision == "fp16")

    def __call__(self, first: int, episodes: Sequence[Episode], *, stop: bool = False) -> StepResult:
        """Take a step on `episodes`, numbered ``first``, ``first + 1``, ...; skip it if something is not finite."""
        self._train_mode()
        m, buffers, parameters = len(episodes), self._buffers(), self._parameters()
        before = [buffer.clone() for buffer in buffers]
        # Sums in float64 are the same for any number of processes, because there the order of a few float32 numbers
        # does not matter. Some gradients, such as of a bias before batch norm, are pure rounding error, which Adam
        # would amplify.
        totals = [_wide_zeros(tensor) for tensor in (*buffers, *parameters)] if m > 1 else []
        losses, accuracies = torch.zeros((2, m), dtype=torch.float64, device="cpu")
        for k in range(rank(), m, n_processes()):
            _copy(before, buffers)  # every episode starts from the same statistics, in any process
            self.optimizer.zero_grad(set_to_none=True)
            losses[k], accuracies[k] = self._episode(first + k, episodes[k], m)
            for total, value in zip(totals, (*buffers, *(p.grad for p in parameters)), strict=False):
                if value is not None:
                    total += value.to(total.device)
        stops = torch.tensor([float(stop)], dtype=torch.float32, device="cpu")
        all_reduce([losses, accuracies, stops, *totals])
        if totals:
            _copy([total / m for total in totals[: len(buffers)]], buffers)
        for total, parameter in zip(totals[len(buffers) :], parameters, strict=False):
            parameter.grad = total.to(parameter)
        fault, k, taken = self._descend(losses)
        if not taken:
            _copy(before, buffers)
        mean = losses.mean().item(), accuracies.mean().item()
        where = f"{fault} of episode {first + k} (seed {self.config.seed})" if fault else ""
        return StepResult(*mean, where, first + k, stops.item() > 0)

    def _train_mode(self) -> None:
        self.backbone.train()
        self.learner.train()
        if self.config.batch_norm == "frozen":
            for part in (*self.backbone.modules(), *self.learner.modules()):
                if isinstance(part, _BatchNorm):
                    part.eval()

    def _buffers(self) -> list[Tensor]:
        return [*self.backbone.buffers(), *self.learner.buffers()]

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _descend(self, losses: Tensor) -> tuple[str, int, bool]:
        """Take the step if everything is finite.

        Returns
        -------
        fault : str
            What is not finite; empty if nothing. An overflow of half precision is not a fault: the step is skipped, and
            the loss scale lowered.
        k : int
            Index of the faulty episode in the step.
        taken : bool
            Whether the step was taken.
        """
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            self.optimizer.zero_grad(set_to_none=True)
            return f"the loss ({losses[bad[0]].item()})", bad[0], False
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters() if p.grad is not None])
        scale = self.scaler.get_scale()
        finite = bool(torch.isfinite(norm))
        if finite or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # skips the step itself if half precision overflowed
        self.scaler.update()
        harmless = finite or (self.scaler.is_enabled() and scale > 1)
        return "" if harmless else "the gradient", 0, finite

    def _episode(self, i: int, episode: Episode, n_episodes: int) -> tuple[float, float]:
        """Compute the gradient of one episode; return its loss and accuracy."""
        rows, n_shot = task_rows(episode)
        if self.config.swap_shots and i % 2 and n_shot:
            n_shot = len(rows) // episode.n_way - n_shot
        try:
            with seeded(int(episode_rng(self.config.seed, i, MODEL).integers(2**63))):
                x = to_input(taken(self._images, rows), self.backbone)
                if self.augment is not None:
                    x = self.augment(x, episode_rng(self.config.seed, i, AUGMENT))
                embeddings = self._embed(x)
                tasks = split_episode(embeddings, episode, n_shot, self.config.rotate_support)
                support, labels, queries, expected = tasks
                logits = self.learner(support, labels, queries, episode.n_way)
                loss = self.learner.loss(logits, expected)
                # The backward pass recomputes chunks, which would update the batch-norm statistics a second time.
                buffers = self._buffers() if self.config.embed_chunk else []
                once = [buffer.clone() for buffer in buffers]
                self.scaler.scale(loss / n_episodes).backward()
                _copy(once, buffers)
        except (RuntimeError, MemoryError) as error:
            if self.config.compile and _is_of_compiler(error):
                raise TrainingError(
                    f"torch.compile cannot compile the network ({_first_line(error)}); leave compile out"
                ) from error
            if not _is_out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory in episode {i}: {len(rows)} images of {episode.n_way} classes; embed fewer at a "
                f"time (embed_chunk={max(len(rows) // 4, 1)}), or lower n_way or n_query"
            ) from error
        accuracy = (logits.detach().argmax(-1) == expected).float().mean()
        return loss.item(), accuracy.item()

    def _embed(self, x: Tensor) -> Tensor:
        kind = _TYPES[self.config.precision]
        # No cache: autocast around the caller would keep it alive, with the weights of earlier steps.
        with torch.autocast(self.device.type, kind, enabled=kind is not torch.float32, cache_enabled=False):
            size, network = self.config.embed_chunk, self._network
            if not size or size >= len(x):
                return network(x).float()
            return torch.cat([checkpoint(network, part, use_reentrant=False).float() for part in x.split(size)])


def _wide_zeros(like: Tensor) -> Tensor:
    """Return zeros in float64; on the CPU for Apple's GPUs, which have no float64."""
    device = torch.device("cpu") if like.device.type == "mps" else like.device
    return torch.zeros_like(like, dtype=torch.float64, device=device)


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for new, old in zip(source, target, strict=True):
        old.copy_(new)


def _is_of_compiler(error: BaseException) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # takes a second

    return isinstance(error, TorchDynamoException)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text


def learning_rates(backbone: nn.Module, learner: Learner, config: TrainConfig) -> list[dict[str, object]]:
    """Return the parameter groups with their peak learning rates, for an optimiser.

    Raises
    ------
    ValueError
        If `layer_decay` is set and the network does not define its layers.
    """
    own = [p for p in learner.parameters() if p.requires_grad]
    if config.layer_decay == 1:
        # One group, so that saved states keep the order of the parameters.
        return [{"params": [p for p in backbone.parameters() if p.requires_grad] + own, "lr": config.lr}]
    if not hasattr(backbone, "group_matcher"):
        raise ValueError(f"{type(backbone).__name__} does not define its layers; leave layer_decay at 1")
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(backbone, config.weight_decay, layer_decay=config.layer_decay)
    rates = [
        {"params": g["params"], "weight_decay": g["weight_decay"], "lr": config.lr * g["lr_scale"]} for g in groups
    ]
    return rates + ([{"params": own, "weight_decay": 0.0, "lr": config.lr}] if own else [])


def one_cycle(optimizer: torch.optim.Optimizer, n_steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return a schedule that rises from 1/25 of each group's peak rate to the peak, then falls to almost 0."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    # One more step than are taken: the scheduler computes a rate after the last step, too.
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=n_steps + 1, pct_start=0.3)


def task_rows(episode: Episode) -> tuple[NDArray[np.int64], int]:
    """Return the images of an episode in the order in which to embed them, and the shots per class.

    If all classes have as many shots and queries, images are ordered by class; else support comes first, and the number
    of shots is 0.
    """
    shots, queries = (
        np.bincount(codes, minlength=episode.n_way) for codes in (episode.support_labels, episode.query_labels)
    )
    if (shots != shots[0]).any() or (queries != queries[0]).any() or not queries[0]:
        return np.concatenate([episode.support, episode.query]), 0
    parts = [rows.reshape(episode.n_way, -1) for rows in (episode.support, episode.query)]
    return np.concatenate(parts, axis=1).ravel(), int(shots[0])


def split_episode(
    embeddings: Tensor, episode: Episode, n_shot: int, rotate: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return support, support labels, queries and query labels: (n_tasks, n, d) or (n_tasks, n).

    Parameters
    ----------
    embeddings : Tensor of shape (n, d)
        The embeddings of the `task_rows` of the episode.
    episode : Episode
        The episode.
    n_shot : int
        Shots per class, or 0, as `task_rows` returns them; another number divides each class in another way.
    rotate : bool
        Whether each image of a class is support in turn; ignored for uneven classes.
    """
    if n_shot:
        support, queries = split_tasks(embeddings.unflatten(0, (episode.n_way, -1)), n_shot, rotate)
        codes = [np.arange(episode.n_way).repeat(part.shape[1] // episode.n_way) for part in (support, queries)]
    else:
        support, queries = embeddings[None].tensor_split([len(episode.support)], dim=1)
        codes = [episode.support_labels, episode.query_labels]
    labels, expected = (
        torch.from_numpy(of).to(embeddings.device).expand(part.shape[:-1])
        for of, part in zip(codes, (support, queries), strict=True)
    )
    return support, labels, queries, expected


def split_tasks(embeddings: Tensor, n_shot: int, rotate: bool) -> tuple[Tensor, Tensor]:
    """Split the embeddings of an episode into support and queries, once or with each image as support in turn.

    Parameters
    ----------
    embeddings : Tensor of shape (n_way, n, d)
        All images of an episode, ordered by class.
    n_shot : int
        Support images per class.
    rotate : bool
        If True, task ``r`` takes images ``r, ..., r + n_shot - 1`` (modulo n) of every class as its support.

    Returns
    -------
    support : Tensor of shape (n_tasks, n_way * n_shot, d)
        With n_tasks = n if `rotate`, else 1.
    queries : Tensor of shape (n_tasks, n_way * (n - n_shot), d)
        The remaining images.

    Examples
    --------
    >>> support, queries = split_tasks(torch.arange(6.0).view(2, 3, 1), n_shot=1, rotate=True)
    >>> support[..., 0].tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    n_way, n, d = embeddings.shape
    # Rolled copies, not an index: with several threads the gradient of an index is summed in a varying order.
    tasks = torch.stack([embeddings.roll(-first, 1) for first in range(n if rotate else 1)])
    return (
        tasks[:, :, :n_shot].reshape(-1, n_way * n_shot, d),
        tasks[:, :, n_shot:].reshape(-1, n_way * (n - n_shot), d),
    )
