"""What a benchmark compares, read from a TOML file and checked before anything runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self, get_args

from fewshot.benchmark.ready import text_of_grid
from fewshot.episodes.query_draws import BALANCED, QueryClasses, check_query_classes
from fewshot.errors import UnknownNameError
from fewshot.persistence.files import open_regular
from fewshot.training.config import TrainConfig
from fewshot.training.folder import BEST

#: Matches names that would be fetched from an address, such as ``hf-hub:...``.
_ADDRESS = re.compile(r"[\w-]{2,}:", re.ASCII)
#: Kinds of episodes.
Sampling = Literal["fixed", "varied"]
SAMPLERS: tuple[Sampling, ...] = get_args(Sampling)
#: The backbone whose embeddings are the pixels themselves.
PIXELS = "pixels"
#: The backbone of data that are embeddings already, and its name in tables if their file gives none.
GIVEN = "given embeddings"
#: Learners outside the registry: scikit-learn's logistic regression, any classifier of it, and the one in a checkpoint.
LINEAR_PROBE, SCIKIT_LEARN, OWN = "linear-probe", "scikit-learn", "own"


def is_given(source: str) -> bool:
    """Whether a source is a file of embeddings, by its name."""
    return Path(source).suffix.lower() == ".npz"


@dataclass(frozen=True)
class Dataset:
    """Images of classes that no backbone was trained on.

    Attributes
    ----------
    source : str
        ``digits``, ``glyphs``, or any source that `LabeledImages.open` takes; or a file of embeddings and labels, as
        ``np.savez("sentences.npz", embeddings=X, labels=y, network="MiniLM")`` writes it, which no backbone embeds.
    name : str
        Name in tables; by default the last part of the source.
    split : str
        The split to measure on, if the data have splits.
    base : str
        The split whose mean embedding replaces ``center = "base"`` of a learner.
    n_query : int, optional
        Queries per class, for data whose classes are too small for the grid's.
    """

    source: str
    name: str = ""
    split: str = "test"
    base: str = "train"
    n_query: int | None = None

    def __post_init__(self) -> None:
        _check_strings(self, "source", "name", "split", "base")
        object.__setattr__(self, "name", self.name or Path(self.source).stem)
        if self.n_query is not None:
            _check_integer("n_query", self.n_query, 1, 10**6)


@dataclass(frozen=True)
class Backbone:
    """The network that embeds the images.

    Attributes
    ----------
    backbone : str
        A timm name, a checkpoint file, or ``pixels``: the images themselves, in grey, 28 x 28.
    name : str
        Name in tables.
    weights, pretrained, img_size
        As for `Embedder`.
    train_on : str
        A source of data, see `Dataset`; the network is first meta-trained on its training classes.
    learner : str
        The learner it is trained with.
    train : mapping
        Fields of `TrainConfig` for the training.
    size : int
        Side in pixels to which training images are scaled, if they are files.
    distort : bool
        Whether training images are slightly rotated, scaled, sheared and shifted.
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
        _check_strings(self, "backbone", "name", "train_on", "learner", *(["weights"] * (self.weights is not None)))
        for what in ("backbone", "weights"):
            if (address := getattr(self, what)) and _ADDRESS.match(address):
                raise ValueError(f"{what} is {address!r:.60}, an address; a grid takes only timm names and local files")
        trained = f" trained on {Path(self.train_on).stem}" if self.train_on else ""
        path = Path(self.backbone)  # every training calls its checkpoint by the same name
        own = f"{path.parent.name}/{path.name}" if path.name == BEST and path.parent.name else path.name
        object.__setattr__(self, "name", self.name or own + trained)
        if self.train_on and (self.weights or self.pretrained or self.img_size):
            raise ValueError(f"backbone {self.name!r} is trained from scratch; leave weights and img_size out")
        unused = [name for name in ("weights", "pretrained", "img_size", "train_on") if getattr(self, name)]
        if self.backbone == PIXELS and unused:
            raise ValueError(f"backbone {PIXELS!r} has no network; leave {', '.join(unused)} out")
        if self.train and not self.train_on:
            raise ValueError(f"backbone {self.name!r} has training settings but no training data; give train_on")
        for what in ("img_size", "size"):
            if getattr(self, what) is not None:
                _check_integer(what, getattr(self, what), 1, 2**14)
        if self.train:
            TrainConfig(**TrainConfig.parse(dict(self.train)))

    def describe(self) -> dict[str, Any]:
        """Return the settings, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class LearnerSpec:
    """A learner with its parameters.

    Attributes
    ----------
    learner : str
        A registered name; ``own``, the learner in the backbone's checkpoint; ``linear-probe``; or ``scikit-learn``,
        whose parameters name one of its classifiers (see `ScikitLearn`).
    name : str
        Name in tables.
    params : mapping
        Arguments of the learner; ``center = "base"`` stands for the mean embedding of the base split.
    """

    learner: str
    name: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.learner == OWN and self.params:
            raise ValueError(
                f"the learner {OWN!r} takes its parameters from the checkpoint; leave {', '.join(self.params)} out"
            )
        given = ", ".join(f"{key}={value}" for key, value in self.params.items())
        object.__setattr__(self, "name", self.name or (f"{self.learner} ({given})" if given else self.learner))

    @property
    def needs_base(self) -> bool:
        """Whether the learner needs a base split."""
        return self.params.get("center") == "base"


@dataclass(frozen=True)
class Grid:
    """Every data set with every backbone, learner, n_way, n_shot and seed.

    Attributes
    ----------
    datasets, backbones, learners : tuple
        The data sets, backbones and learners to compare; names must be unique. Data that are embeddings need no
        backbone.
    n_way, n_shot, seeds : tuple of int
        Classes per episode, support images per class, and seeds.
    n_query, n_episodes : int
        Queries per class; episodes for each n_way, n_shot and seed.
    sampler : tuple of {"fixed", "varied"}
        Episodes of these sizes, episodes of varied sizes as in the Meta-Dataset, or both.
    query_classes : tuple of {"balanced", "dirichlet", "single"} or int
        How the queries of episodes of these sizes are spread over the classes; see `EpisodeSampler`.
    baseline : str
        The learner that all others are compared with, on the same episodes; by default the first.

    Examples
    --------
    >>> grid = Grid.from_dict({"datasets": [{"source": "digits"}], "backbones": [{"backbone": "pixels"}],
    ...                        "learners": [{"learner": "prototypical"}, {"learner": "matching"}], "n_episodes": 50})
    >>> len(list(grid.cells)), grid.baseline
    (2, 'prototypical')
    """

    datasets: tuple[Dataset, ...]
    backbones: tuple[Backbone, ...]
    learners: tuple[LearnerSpec, ...]
    n_way: tuple[int, ...] = (5,)
    n_shot: tuple[int, ...] = (1, 5)
    seeds: tuple[int, ...] = (0,)
    n_query: int = 15
    n_episodes: int = 600
    sampler: tuple[Sampling, ...] = ("fixed",)
    query_classes: tuple[QueryClasses | int, ...] = (BALANCED,)
    baseline: str = ""

    def __post_init__(self) -> None:
        for what in ("datasets", "backbones", "learners", "n_way", "n_shot", "seeds", "sampler", "query_classes"):
            values = [getattr(value, "name", value) for value in getattr(self, what)]
            if not values and not (what == "backbones" and all(is_given(one.source) for one in self.datasets)):
                raise ValueError(f"the grid has no {what}; give at least one")
            if repeated := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{what} has {repeated[0]!r} twice; give one of the two another name or value")
        for what, least, most in (("n_way", 2, 10**6), ("n_shot", 1, 10**6), ("seeds", 0, 2**63 - 1)):
            for value in getattr(self, what):
                _check_integer(what, value, least, most)
        _check_integer("n_query", self.n_query, 1, 10**6)
        _check_integer("n_episodes", self.n_episodes, 2, 10**7)
        for sampler in self.sampler:
            if sampler not in SAMPLERS:
                raise UnknownNameError("sampler", sampler, SAMPLERS)
        for spread, n_way in product(self.query_classes, self.n_way):
            check_query_classes(spread, n_way)
        names = [method.name for method in self.learners]
        object.__setattr__(self, "baseline", self.baseline or names[0])
        if self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is not among the learners: {', '.join(names)}")

    @property
    def cells(self) -> list[tuple[int, int, QueryClasses | int, int]]:
        """The (n_way, n_shot, query_classes, seed) of each set of episodes; n_way and n_shot are 0 if they vary."""
        fixed = product(self.n_way, self.n_shot, self.query_classes) if "fixed" in self.sampler else ()
        sizes = [*fixed, *([(0, 0, BALANCED)] if "varied" in self.sampler else [])]
        return [(*size, seed) for size in sizes for seed in self.seeds]

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a grid: a file, or the name of one that comes with the package, such as ``quick``.

        A grid names the files to read and, with ``pretrained = true``, makes timm fetch weights from its hub by
        network name. It cannot name any other address. Read a stranger's grid before you run it.

        Raises
        ------
        ValueError
            If the file is missing, is not TOML, or holds an invalid setting; the message names it.
        """
        try:
            if (text := text_of_grid(path)) is not None:
                return cls.from_dict(tomllib.loads(text))
            with open_regular(path, follow=True) as file:
                values = tomllib.load(file)
            return cls.from_dict(values)
        except UnknownNameError:
            raise
        except RecursionError:
            raise ValueError(f"{path}: its tables are nested too deeply") from None
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist; expected a grid, a TOML file") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); expected a grid, a TOML file") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the grid that a TOML file with these values describes."""
        parts, known = dict(values), [f.name for f in fields(cls)]
        for name in (name for name in parts if name not in known):
            raise UnknownNameError("setting of the grid", name, known)
        for key, kind in (("datasets", Dataset), ("backbones", Backbone), ("learners", LearnerSpec)):
            if kind is Backbone and key not in parts and all(is_given(one.source) for one in parts["datasets"]):
                parts[key] = ()
            if isinstance(parts.get(key), Mapping):
                raise ValueError(f"[{key}] is one table; write [[{key}]] before each of them")
            if not isinstance(parts.get(key), Sequence) or isinstance(parts[key], str):
                raise ValueError(f"the grid has no [[{key}]]; give at least one")
            parts[key] = tuple(_learner(one) if kind is LearnerSpec else _build(kind, one, key) for one in parts[key])
        for key in ("n_way", "n_shot", "seeds", "sampler", "query_classes"):
            if key in parts:
                parts[key] = tuple(parts[key]) if isinstance(parts[key], (list, tuple)) else (parts[key],)
        return _build(cls, parts, "the grid")


def _learner(values: Any) -> LearnerSpec:
    if not isinstance(values, Mapping) or not isinstance(values.get("learner"), str):
        raise ValueError(f"learners holds {values!r}; expected a table that names a learner, learner = ...")
    params = dict(values)
    learner, name = params.pop("learner"), params.pop("name", "")
    if not isinstance(name, str):
        raise ValueError(f"name of the learner {learner!r} is {name!r}; expected a string")
    return LearnerSpec(learner, name, params)


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


def _check_strings(holder: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(holder, name), str):
            given, ways = getattr(holder, name), ", such as the path of a folder or of a CSV table of images"
            shown = f"a {type(given).__name__}" if name == "source" else repr(given)
            raise ValueError(f"{name} is {shown}; expected a string{ways if name == 'source' else ''}")


def _check_integer(what: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what} is {value!r:.60}; expected an integer from {least} to {most}")
