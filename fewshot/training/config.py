"""The settings of meta-training."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

from fewshot.errors import UnknownNameError
from fewshot.persistence.files import read_regular

Precision = Literal["float32", "bf16", "fp16"]
BatchNorm = Literal["train", "frozen"]
_CHOICES = {"precision": get_args(Precision), "batch_norm": get_args(BatchNorm)}
_NUMBERS = {int: Integral, float: Real, bool: bool}
_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
#: Conditions of values, and what a message expects.
_COUNT = (lambda v: 1 <= v <= 10**6, "at least 1, at most 1000000")
_STEPS = (lambda v: 1 <= v <= 10**9, "at least 1, at most 1000000000")
_WAYS = (lambda v: 2 <= v <= 10**6, "at least 2, at most 1000000")
_CHUNK = (lambda v: 0 <= v <= 10**6, "at least 0, at most 1000000")
_SEED = (lambda v: 0 <= v < 2**63, "from 0, below 2**63")
_FLAG = (lambda v: v in (True, False), "True or False")
_RATE = (lambda v: 0 < v < math.inf, "above 0")
_RATIO = (lambda v: 0 < v <= 1, "above 0, at most 1")


def _setting(default: Any, text: str, ok: Callable[[Any], bool] = _COUNT[0], expected: str = _COUNT[1]) -> Any:
    return field(default=default, metadata={"help": text, "ok": ok, "expected": expected})


@dataclass(frozen=True)
class TrainConfig:
    """The settings of meta-training; `describe` returns a line about each.

    Parameters
    ----------
    n_episodes : int, default=500
        Total number of episodes.
    n_way, n_shot, n_query : int, default=40, 1, 5
        Classes per episode, of which ``fewshot train`` takes 20; support images and queries per class.
    rotate_support : bool, default=True
        Whether each image of a class serves as support in turn, so that one embedding of an episode's images gives
        n_shot + n_query tasks instead of one. Episodes of uneven classes are always one task.
    swap_shots : bool, default=False
        Whether support and queries change sizes in every second episode: with 1 shot and 5 queries the network learns
        to answer from 1 image and from 5, on the same images. Episodes of uneven classes stay as they are.
    meta_batch : int, default=1
        Episodes per optimiser step, whose mean loss is descended; must divide `n_episodes`. Processes share them.
    lr : float, default=3e-3
        Peak learning rate of Adam under a one-cycle schedule.
    weight_decay : float, default=0.0
        Decoupled weight decay.
    layer_decay : float, default=1.0
        Ratio of each layer's learning rate to that of the next layer, for timm networks.
    batch_norm : {"train", "frozen"}, default="train"
        "train" normalises all images of an episode together, as the papers do, and updates the running statistics;
        "frozen" uses the running statistics. Embedding after training always uses running statistics, so that no
        answer depends on other queries.
    precision : {"float32", "bf16", "fp16"}, default="float32"
        Precision of the network's arithmetic; weights, similarities and loss stay in float32.
    compile : bool, default=False
        Whether `torch.compile` compiles the network, which takes up to a minute and needs a C++ compiler, on a GPU
        Triton. It pays in long trainings on a GPU.
    embed_chunk : int, default=0
        Images embedded at a time; the backward pass recomputes activations, so memory does not grow with the episode.
        0 embeds all at once. With ``batch_norm="train"`` each chunk is normalised separately.
    seed : int, default=0
        Seed of initial weights, episodes, augmentation and dropout.
    validate_every : int, default=100
        Steps between validations; the last step is always validated.
    val_n_way, val_n_shot, val_n_query, val_n_episodes : int, default=20, 1, 5, 200
        Sizes of validation episodes; `val_n_way` is at most the number of validation classes.
    save_every : int, default=100
        Steps between saved states, from which an interrupted training resumes.
    max_skipped : int, default=5
        Consecutive steps with a non-finite loss or gradient before training stops.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> TrainConfig(n_episodes=1000, n_way=60).n_query
    5
    """

    n_episodes: int = _setting(500, "total number of episodes", *_STEPS)
    n_way: int = _setting(40, "classes per episode", *_WAYS)
    n_shot: int = _setting(1, "support images per class")
    n_query: int = _setting(5, "queries per class")
    rotate_support: bool = _setting(True, "use each image of a class as support in turn", *_FLAG)
    swap_shots: bool = _setting(False, "swap n_shot and n_query in every second episode", *_FLAG)
    meta_batch: int = _setting(1, "episodes per optimiser step")
    lr: float = _setting(3e-3, "peak learning rate of Adam with a one-cycle schedule", *_RATE)
    weight_decay: float = _setting(0.0, "decoupled weight decay", lambda v: 0 <= v < math.inf, "at least 0")
    layer_decay: float = _setting(1.0, "ratio of a layer's rate to that of the next layer (timm networks)", *_RATIO)
    batch_norm: BatchNorm = _setting(  # noqa: RUF009 - a field, as the others
        "train", "'train', or 'frozen': use the running statistics of the network"
    )
    precision: Precision = _setting("float32", "'float32', 'bf16' or 'fp16'")  # noqa: RUF009
    compile: bool = _setting(False, "compile the network with torch.compile: for long trainings on a GPU", *_FLAG)
    embed_chunk: int = _setting(0, "images embedded at a time, to save memory; 0: all", *_CHUNK)
    seed: int = _setting(0, "seed of weights, episodes and augmentation", *_SEED)
    validate_every: int = _setting(100, "steps between validations", *_STEPS)
    val_n_way: int = _setting(20, "classes per validation episode", *_WAYS)
    val_n_shot: int = _setting(1, "support images per class in validation")
    val_n_query: int = _setting(5, "queries per class in validation")
    val_n_episodes: int = _setting(200, "number of validation episodes")
    save_every: int = _setting(100, "steps between saved states", *_STEPS)
    max_skipped: int = _setting(5, "consecutive steps with a non-finite loss before training stops")

    def __post_init__(self) -> None:
        for f in fields(self):
            name, value = f.name, getattr(self, f.name)
            if name in _CHOICES:
                if value not in _CHOICES[name]:
                    raise UnknownNameError(name, value, _CHOICES[name])
                continue
            kind: Any = type(f.default)
            if isinstance(value, bool) != (kind is bool) or not isinstance(value, _NUMBERS[kind]):
                raise ValueError(f"{name} is {value!r:.60}; expected {_TYPES[kind]}")
            if not f.metadata["ok"](value):
                raise ValueError(f"{name} is {value!r}; expected {f.metadata['expected']}")
            object.__setattr__(self, name, kind(value))  # numpy's numbers cannot be written as JSON
        if self.n_episodes % self.meta_batch:
            raise ValueError(f"n_episodes is {self.n_episodes}; expected a multiple of meta_batch={self.meta_batch}")

    @property
    def n_steps(self) -> int:
        """Number of optimiser steps."""
        return self.n_episodes // self.meta_batch

    @classmethod
    def describe(cls, **defaults: Any) -> dict[str, str]:
        """Return a line about each field; `defaults` replace those of the class."""
        return {f.name: f"{f.metadata['help']} (default: {defaults.get(f.name, f.default)})" for f in fields(cls)}

    @classmethod
    def from_toml(cls, path: str | Path) -> dict[str, Any]:
        """Return the fields that a TOML file sets.

        Raises
        ------
        ValueError
            If the file is not TOML, or sets an unknown field or a wrong value; the message names the file.
        """
        try:
            values = tomllib.loads(read_regular(path, 1 << 20, follow=True).decode())
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); expected a TOML file of settings") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        try:
            return cls.parse(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields with values of the right type; a string is parsed as a TOML value.

        Raises
        ------
        ValueError
            If a field is unknown, or its value has the wrong type.
        """
        known = {f.name: type(f.default) for f in fields(cls)}
        parsed = {}
        for name, value in values.items():
            if name not in known:
                raise UnknownNameError("field", name, known)
            kind = known[name]
            if isinstance(value, str) and kind is not str:
                with suppress(ValueError, RecursionError):  # not TOML, or nested too deeply
                    value = tomllib.loads(f"value = {value}")["value"]
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise ValueError(f"{name} is {value!r:.60}; expected {_TYPES[kind]}")
            parsed[name] = value
        return parsed
