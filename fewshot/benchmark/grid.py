"""What a benchmark compares, read from a TOML file and checked before anything runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from fewshot.errors import UnknownNameError
from fewshot.persistence.files import open_regular
from fewshot.training.config import TrainConfig

#: What would be fetched from where it says.
_ADDRESS = re.compile(r"[\w-]{2,}:", re.ASCII)
#: Kinds of episodes.
SAMPLERS = ("fixed", "varied")
#: A backbone that embeds nothing: the pixels themselves.
PIXELS = "pixels"
#: Learners that are no few-shot methods: scikit-learn's logistic regression, and that which a checkpoint carries.
LINEAR_PROBE, OWN = "linear-probe", "own"


@dataclass(frozen=True)
class Dataset:
    """Images of classes that nothing was trained on.

    Attributes
    ----------
    source : str
        ``digits``, ``glyphs``, or what `LabeledImages.open` takes.
    name : str
        What tables call it; by default the last part of the source.
    split : str
        The split that is measured on, where the data have splits.
    base : str
        The split whose mean embedding is the ``center = "base"`` of a learner.
    query : int
        Queries a class, where not those of the grid: its classes may be small.
    """

    source: str
    name: str = ""
    split: str = "test"
    base: str = "train"
    query: int | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "source", "name", "split", "base")
        object.__setattr__(self, "name", self.name or Path(self.source).stem)
        if self.query is not None:
            _check_whole("query", self.query, 1, 10**6)


@dataclass(frozen=True)
class Backbone:
    """What embeds images.

    Attributes
    ----------
    backbone : str
        A timm name, the file of a checkpoint, or ``pixels``: the images themselves, in greys of 28 x 28.
    name : str
        What tables call it.
    weights, pretrained, img_size
        As for `Embedder`.
    train_on : str
        A source of data, see `Dataset`; the network is meta-trained on its training classes first.
    learner : str
        What it is trained with.
    train : mapping
        Fields of `TrainConfig` for that.
    size : int
        Side in pixels of the images that it is trained on, where these are files.
    distort : bool
        Whether they are turned, scaled, sheared and shifted a little.
    """

    backbone: str = "tf_efficientnet_lite0"
    name: str = ""
    weights: str | None = None
    pretrained: bool = False
    img_size: int | None = None
    train_on: str = ""
    learner: str = "prototypical"
    train: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    distort: bool = False

    def __post_init__(self) -> None:
        _check_texts(
            self, "backbone", "name", "train_on", "learner", *(["weights"] if self.weights is not None else [])
        )
        for what in ("backbone", "weights"):
            if (address := getattr(self, what)) and _ADDRESS.match(address):
                raise ValueError(f"{what} is {address!r:.60}, an address; a grid takes timm's names and local files")
        trained = f" trained on {Path(self.train_on).stem}" if self.train_on else ""
        object.__setattr__(self, "name", self.name or Path(self.backbone).name + trained)
        if self.train_on and (self.weights or self.pretrained or self.img_size):
            raise ValueError(f"backbone {self.name!r} is trained from the start; leave weights and img_size out")
        without = [name for name in ("weights", "pretrained", "img_size", "train_on") if getattr(self, name)]
        if self.backbone == PIXELS and without:
            raise ValueError(f"backbone {PIXELS!r} embeds nothing; leave {', '.join(without)} out")
        if self.train and not self.train_on:
            raise ValueError(f"backbone {self.name!r} says how to train, but not on what; give train_on")
        for what in ("img_size", "size"):
            if getattr(self, what) is not None:
                _check_whole(what, getattr(self, what), 1, 2**14)
        TrainConfig(**TrainConfig.parse(dict(self.train)))


@dataclass(frozen=True)
class LearnerSpec:
    """A learner with its parameters.

    Attributes
    ----------
    learner : str
        A registered name; ``own``, that which the checkpoint of the backbone carries; or ``linear-probe``.
    name : str
        What tables call it.
    params : mapping
        Arguments of the learner; ``center = "base"`` is the mean embedding of the base split.
    """

    learner: str
    name: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.learner == OWN and self.params:
            raise ValueError(f"the learner of a checkpoint has its parameters; leave {', '.join(self.params)} out")
        given = ", ".join(f"{key}={value}" for key, value in self.params.items())
        object.__setattr__(self, "name", self.name or (f"{self.learner} ({given})" if given else self.learner))

    @property
    def needs_base(self) -> bool:
        """Whether a base split is needed."""
        return self.params.get("center") == "base"


@dataclass(frozen=True)
class Grid:
    """Every data set with every backbone, every learner, every way, shot and seed.

    Attributes
    ----------
    datasets, backbones, learners : tuple
        What is compared; each of its own name.
    way, shot, seeds : tuple of int
        Sizes and seeds of episodes.
    query, episodes : int
        Queries a class; episodes of each way, shot and seed.
    sampler : tuple of {"fixed", "varied"}
        Episodes of these sizes, or of varied ones as in the Meta-Dataset, or both.
    baseline : str
        The learner that all are compared with, on the same episodes; by default the first.

    Examples
    --------
    >>> grid = Grid.from_dict({"datasets": [{"source": "digits"}], "backbones": [{"backbone": "pixels"}],
    ...                        "learners": [{"learner": "prototypical"}, {"learner": "matching"}], "episodes": 50})
    >>> len(list(grid.cells)), grid.baseline
    (2, 'prototypical')
    """

    datasets: tuple[Dataset, ...]
    backbones: tuple[Backbone, ...]
    learners: tuple[LearnerSpec, ...]
    way: tuple[int, ...] = (5,)
    shot: tuple[int, ...] = (1, 5)
    seeds: tuple[int, ...] = (0,)
    query: int = 15
    episodes: int = 600
    sampler: tuple[str, ...] = ("fixed",)
    baseline: str = ""

    def __post_init__(self) -> None:
        for what in ("datasets", "backbones", "learners", "way", "shot", "seeds", "sampler"):
            values = [getattr(value, "name", value) for value in getattr(self, what)]
            if not values:
                raise ValueError(f"the grid has no {what}; give at least one")
            if again := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"two of the {what} are called {again[0]!r}; give one of them another name")
        for what, least, most in (("way", 2, 10**6), ("shot", 1, 10**6), ("seeds", 0, 2**63 - 1)):
            for value in getattr(self, what):
                _check_whole(what, value, least, most)
        _check_whole("query", self.query, 1, 10**6)
        _check_whole("episodes", self.episodes, 2, 10**7)
        for sampler in self.sampler:
            if sampler not in SAMPLERS:
                raise UnknownNameError("sampler", sampler, SAMPLERS)
        names = [method.name for method in self.learners]
        object.__setattr__(self, "baseline", self.baseline or names[0])
        if self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is none of the learners: {', '.join(names)}")

    @property
    def cells(self) -> list[tuple[int, int, int]]:
        """The way, shot and seed of each set of episodes; varied ones have neither way nor shot, which are 0."""
        sizes = [(way, shot) for way in self.way for shot in self.shot] if "fixed" in self.sampler else []
        sizes += [(0, 0)] if "varied" in self.sampler else []
        return [(*size, seed) for size in sizes for seed in self.seeds]

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a grid.

        A grid says which files are read, and with ``pretrained = true`` that timm's hub is asked for weights of a
        network by its name: read a stranger's grid before you run it. It cannot name another address.

        Raises
        ------
        ValueError
            If there is no such file, it is no TOML, or something in it cannot be meant; the message says what.
        """
        try:
            with open_regular(path, follow=True) as file:
                values = tomllib.load(file)
            return cls.from_dict(values)
        except RecursionError:
            raise ValueError(f"{path}: its tables are nested too deeply") from None
        except FileNotFoundError:
            raise ValueError(f"{path} is not there; expected a grid, a TOML file") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); expected a grid, a TOML file") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the grid that a TOML file of these values describes."""
        values = dict(values)
        for key in ("datasets", "backbones", "learners"):
            if not isinstance(values.get(key), Sequence) or isinstance(values[key], str):
                raise ValueError(f"the grid has no [[{key}]]; give at least one")
        parts: dict[str, Any] = {
            "datasets": tuple(_build(Dataset, one, "datasets") for one in values.pop("datasets")),
            "backbones": tuple(_build(Backbone, one, "backbones") for one in values.pop("backbones")),
            "learners": tuple(_method(one) for one in values.pop("learners")),
        }
        for key in ("way", "shot", "seeds", "sampler"):
            if key in values:
                given = values.pop(key)
                parts[key] = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        return _build(cls, {**parts, **values}, "the grid")


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} holds {values!r}; expected a table of settings")
    known = [f.name for f in fields(kind)]
    for name in values:
        if name not in known:
            raise UnknownNameError(f"setting of {where}", name, known)
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}".replace(".__init__()", "")) from error


def _method(values: Any) -> LearnerSpec:
    if not isinstance(values, Mapping) or not isinstance(values.get("learner"), str):
        raise ValueError(f"learners holds {values!r}; expected a table with the name of a learner, learner = ...")
    own = {key: value for key, value in values.items() if key in ("learner", "name")}
    if not isinstance(own.get("name", ""), str):
        raise ValueError(f"name of the learner {own['learner']!r} is {own['name']!r}; expected a text")
    return LearnerSpec(**own, params={key: value for key, value in values.items() if key not in own})


def _check_texts(holder: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(holder, name), str):
            raise ValueError(f"{name} is {getattr(holder, name)!r}; expected a text")


def _check_whole(what: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what} is {value!r:.60}; expected a whole number of at least {least}, at most {most}")
