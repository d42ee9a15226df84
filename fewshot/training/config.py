"""How to meta-train."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fewshot.errors import UnknownNameError
from fewshot.persistence.files import read_regular

PRECISIONS = ("float32", "bf16", "fp16")
BATCH_NORMS = ("train", "frozen")


def _help(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """How to meta-train; `describe` says the same of each field in a line.

    Parameters
    ----------
    n_episodes : int, default=500
        Episodes in all.
    n_way, n_shot, n_query : int, default=40, 1, 5
        Classes an episode; support and queries per class.
    rotate_support : bool, default=True
        Whether each image of a class serves as support in turn: from one embedding of an episode's images come
        n_shot + n_query tasks instead of one. Episodes of uneven classes are one task each.
    meta_batch : int, default=1
        Episodes a step of the optimiser, whose mean loss it descends; divides `n_episodes`. Several processes share
        them.
    lr : float, default=3e-3
        Peak learning rate of Adam under a one-cycle schedule.
    weight_decay : float, default=0.0
        Decoupled weight decay.
    layer_decay : float, default=1.0
        Each layer learns at this part of the rate of the layer after it, for timm networks.
    batch_norm : {"train", "frozen"}, default="train"
        Whether batch norm normalises an episode's images together, support with queries, as the papers do, and keeps
        running statistics; or uses those it has. Whatever is embedded after training uses running statistics, so that
        no answer depends on other queries.
    precision : {"float32", "bf16", "fp16"}, default="float32"
        Of the network's arithmetic; weights, similarities and loss stay in float32.
    embed_chunk : int, default=0
        Images that are embedded at a time, with activations computed again in the backward pass, so that memory does
        not grow with the episode; 0 embeds all at once. Where batch norm trains, each chunk is normalised by itself.
    seed : int, default=0
        Of initial weights, episodes, augmentation and the network's own noise.
    validate_every : int, default=100
        Steps between validations (and after the last one).
    val_n_way, val_n_shot, val_n_query, val_n_episodes : int, default=20, 1, 5, 200
        Validation episodes; `val_n_way` is lowered to the number of validation classes.
    save_every : int, default=100
        Steps between saved states, from which an interrupted training goes on.
    max_skipped : int, default=5
        Steps in a row with a loss or gradient that is not finite, before training stops.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> TrainConfig(n_episodes=1000, n_way=60).n_query
    5
    """

    n_episodes: int = _help(500, "episodes in all")
    n_way: int = _help(40, "classes an episode")
    n_shot: int = _help(1, "support images a class")
    n_query: int = _help(5, "queries a class")
    rotate_support: bool = _help(True, "let each image of a class be support in turn")
    meta_batch: int = _help(1, "episodes a step of the optimiser")
    lr: float = _help(3e-3, "peak learning rate of Adam, under a one-cycle schedule")
    weight_decay: float = _help(0.0, "decoupled weight decay")
    layer_decay: float = _help(1.0, "rate of a layer as part of that of the layer after it (timm networks)")
    batch_norm: str = _help("train", "'train', or 'frozen': use the statistics that the network has")
    precision: str = _help("float32", "'float32', 'bf16' or 'fp16'")
    embed_chunk: int = _help(0, "images embedded at a time, recomputed in the backward pass; 0: all")
    seed: int = _help(0, "of everything that is drawn")
    validate_every: int = _help(100, "steps between validations")
    val_n_way: int = _help(20, "classes of a validation episode")
    val_n_shot: int = _help(1, "its support images a class")
    val_n_query: int = _help(5, "its queries a class")
    val_n_episodes: int = _help(200, "validation episodes")
    save_every: int = _help(100, "steps between saved states")
    max_skipped: int = _help(5, "steps in a row that may have no finite loss")

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in _CHOICES:
                if value not in _CHOICES[name]:
                    raise UnknownNameError(name, value, _CHOICES[name])
                continue
            ok, expected = _RANGES.get(name, (lambda v: 1 <= v <= 10**6, "at least 1, at most 1000000"))
            if isinstance(value, str) or not ok(value):
                raise ValueError(f"{name} is {value!r}; expected {expected}")
        if self.n_episodes % self.meta_batch:
            raise ValueError(f"n_episodes is {self.n_episodes}; expected a multiple of meta_batch={self.meta_batch}")

    @property
    def n_steps(self) -> int:
        """Steps of the optimiser."""
        return self.n_episodes // self.meta_batch

    @classmethod
    def describe(cls, **defaults: Any) -> dict[str, str]:
        """Return what each field is, in a line; `defaults` are those of the caller."""
        return {f.name: f"{f.metadata['help']} (default: {defaults.get(f.name, f.default)})" for f in fields(cls)}

    @classmethod
    def from_toml(cls, path: str | Path) -> dict[str, Any]:
        """Return the fields that a TOML file sets.

        Raises
        ------
        ValueError
            If it is no TOML, or names a field that there is not.
        """
        try:
            values = tomllib.loads(read_regular(path, 1 << 20, follow=True).decode())
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); expected a TOML file of settings") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        return cls.parse(values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields with values of their own type; text is read as one would write it in TOML.

        Raises
        ------
        ValueError
            If there is no such field, or the value is of another type.
        """
        known = {f.name: type(f.default) for f in fields(cls)}
        parsed = {}
        for name, value in values.items():
            if name not in known:
                raise UnknownNameError("field", name, known)
            kind = known[name]
            if isinstance(value, str) and kind is not str:
                with suppress(ValueError, RecursionError):  # no TOML, or nested too deep
                    value = tomllib.loads(f"value = {value}")["value"]
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise ValueError(f"{name} is {value!r:.60}; expected {_TYPES[kind]}")
            parsed[name] = value
        return parsed


_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_CHOICES = {"precision": PRECISIONS, "batch_norm": BATCH_NORMS}
_AT_LEAST_0 = (lambda v: 0 <= v < math.inf, "at least 0")
_STEPS = (lambda v: 1 <= v <= 10**9, "at least 1, at most 1000000000")
_RANGES: dict[str, tuple[Any, str]] = {
    "seed": (lambda v: 0 <= v < 2**63, "from 0, below 2**63"),
    **dict.fromkeys(("n_episodes", "validate_every", "save_every"), _STEPS),
    **dict.fromkeys(("n_way", "val_n_way"), (lambda v: 2 <= v <= 10**6, "at least 2, at most 1000000")),
    "weight_decay": _AT_LEAST_0,
    "embed_chunk": (lambda v: 0 <= v <= 10**6, "at least 0, at most 1000000"),
    "rotate_support": (lambda v: v in (True, False), "True or False"),
    "lr": (lambda v: 0 < v < math.inf, "above 0"),
    "layer_decay": (lambda v: 0 < v <= 1, "above 0, at most 1"),
}
