"""The learner contract: from a labelled support set to a memory, from a memory and queries to logits."""

from __future__ import annotations

import copy
import inspect
import json
import math
from contextlib import suppress
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.errors import UnknownNameError
from fewshot.learners.memory import Memory, read
from fewshot.learners.rows import mask_padding
from fewshot.learners.statistics import Statistics
from fewshot.search.similarity import METRICS, prepare_keys
from fewshot.utils.isolation import isolated
from fewshot.utils.randomness import seeded

#: Label of a query that is padding; the loss passes over it.
IGNORE = -100
#: What is left to chance where a logarithm needs it.
SMOOTHING = 0.01


class Learner(nn.Module):
    """A method of few-shot classification that takes no gradient step.

    A subclass fills in hooks: what of a support set is kept (`collect`), how that becomes labelled keys (`memorize`)
    and, where the defaults do not fit, `transform`, `score` and `loss`. Callers use `learn`, `answer` and the module
    itself, which check their input once. Meta-trainer, scikit-learn estimators and index use the same object.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity between queries and keys; higher is closer.
    temperature : float, default=1.0
        Logits are similarity / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature (in log space, starting from `temperature`).

    Attributes
    ----------
    name : str
        The name in the registry.
    indexable : bool
        Whether the nearest keys decide, so that an index may propose them.
    transductive : bool
        Whether an answer depends on the other queries.
    learned : bool
        Whether it has weights of its own, and is to be trained with `MetaTrainer` first.
    ordered : bool
        Whether the order of the support matters.
    d : int or None
        Length of the embeddings that the weights of a `learned` one are made for; None before that is known.

    Raises
    ------
    ValueError
        If the metric is unknown or the temperature is below 1e-9.
    """

    name: ClassVar[str] = ""
    indexable: ClassVar[bool] = True
    transductive: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    ordered: ClassVar[bool] = False

    d: int | None = None
    log_temperature: nn.Parameter | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "score" in cls.__dict__ and cls.indexable:
            raise TypeError(
                f"{cls.__name__} has a score of its own, which an index would pass over; set indexable = False"
            )

    def __init__(self, metric: str = "sqeuclidean", temperature: float = 1.0, learn_temperature: bool = False) -> None:
        super().__init__()
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        if isinstance(temperature, str) or not 1e-9 <= temperature < math.inf:
            raise ValueError(f"temperature is {temperature!r}; it divides the similarities, so give at least 1e-9")
        self.metric = metric
        self._fixed_temperature = float(temperature)
        self.register_parameter("log_temperature", log_parameter(temperature) if learn_temperature else None)

    @property
    def temperature(self) -> Tensor:
        """The temperature, a scalar tensor; differentiable if it is learned."""
        if self.log_temperature is not None:
            return self.log_temperature.exp()
        return torch.tensor(self._fixed_temperature, dtype=torch.float64, device="cpu")

    @property
    def learn_temperature(self) -> bool:
        """Whether meta-training adjusts the temperature."""
        return self.log_temperature is not None

    @property
    def description(self) -> str:
        """Name, metric and temperature in words, such as "prototypical, sqeuclidean, temperature 1"."""
        name = self.name or type(self).__name__
        return f"{name}, {self.metric}, temperature {self.temperature.item():.4g}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that build a learner like this one; weights are in its ``state_dict``.

        Raises
        ------
        TypeError
            If an argument of the constructor is not the attribute of its name, or is nothing that JSON can hold.
        """
        params = {}
        for name in inspect.signature(type(self)).parameters:
            if not hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__} takes {name!r} but has no attribute of that name; keep it as self.{name}, "
                    "so that the learner can be saved"
                )
            value = getattr(self, name)
            params[name] = value.tolist() if isinstance(value, Tensor) else value
        try:
            json.dumps(params)
        except TypeError as error:
            raise TypeError(f"an argument of {type(self).__name__} cannot be saved as JSON: {error}") from None
        return params

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor: scikit-learn reaches them as ``learner__temperature``."""
        values = {n: getattr(self, n) for n in inspect.signature(type(self)).parameters if hasattr(self, n)}
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}

    def set_params(self, **params: Any) -> Self:
        """Become a learner with other arguments, as `GridSearchCV` over ``learner__temperature`` needs it.

        Raises
        ------
        ValueError
            If there is no such argument, a value is out of range, or there are weights that were trained with the
            present ones. The learner is then unchanged.

        Examples
        --------
        >>> from fewshot import FewShotClassifier, PrototypicalLearner
        >>> FewShotClassifier(PrototypicalLearner("cosine")).set_params(learner__temperature=0.1).learner
        PrototypicalLearner(metric='cosine', temperature=0.1)
        """
        arguments, name = self.get_params(), type(self).__name__
        if unknown := params.keys() - arguments.keys():
            raise ValueError(f"{name} has no parameter {min(unknown)!r}; expected one of {', '.join(arguments)}")
        if self.learned and self.d is not None:
            raise ValueError(f"the weights of this {name} were trained with its parameters; make another one instead")
        if params:
            fresh = type(self)(**{**arguments, **params}).train(self.training)
            self.__dict__.clear()
            self.__dict__.update(fresh.__dict__)
        return self

    def __sklearn_clone__(self) -> Self:
        return copy.deepcopy(self)  # with its weights, which its arguments do not have

    def is_like(self, other: Learner) -> bool:
        """Return whether both answer alike from the same statistics, whatever their classes are called."""
        if type(self) is not type(other) and _behaviour(type(self)) != _behaviour(type(other)):
            return False
        mine, theirs = self._settings(), other._settings()
        alike = mine.keys() == theirs.keys() and all(_is_near(mine[name], theirs[name]) for name in mine)
        if alike and self.learned and self.d is not None:
            weights, others = self.state_dict(), other.state_dict()
            alike = all(torch.equal(weights[name].double(), others[name].double()) for name in weights)
        return alike

    def _settings(self) -> dict[str, Any]:
        """Return metric, temperature and the other arguments."""
        settings = {"metric": self.metric, "temperature": self.temperature.item()}
        with suppress(TypeError):  # learners that cannot be saved are compared by these two alone
            settings |= self.arguments()
        return settings

    def sized(self, d: int, seed: int = 0, like: Tensor | None = None) -> Self:
        """Make the weights for embeddings of length `d`, unless they are there; only a `learned` one has some.

        They are of the type, and where, `like` is.

        Raises
        ------
        ValueError
            If they are there, for embeddings of another length.
        """
        if self.learned and self.d is None:
            with isolated(gradients=True), seeded(seed):
                self.build(d)
            self.d = int(d)
            self.train(self.training)
            if like is not None:
                self.to(like)
        elif self.learned and self.d != d:
            raise ValueError(
                f"{type(self).__name__} has weights for embeddings of {self.d} dimensions, and these have {d}; embed "
                "with the backbone that it was trained with"
            )
        return self

    # ---- hooks -------------------------------------------------------------------------------------------------

    def build(self, d: int) -> None:
        """Make the weights that depend on the length `d` of an embedding; `sized` calls it once.

        Such a learner sets ``learned = True`` and calls ``self.sized(d)`` where its constructor is given a `d`.
        """

    def transform(self, x: Tensor) -> Tensor:
        """Map embeddings (..., n, d) item by item, with parameters that no support set changes."""
        return x

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Summarise a support set that `learn` has checked: padding is zero rows of class 0 with weight 0.

        Parameters
        ----------
        support : Tensor of shape (..., n, d)
            Transformed embeddings.
        labels : Tensor of shape (..., n)
            Classes, integers in 0..n_way-1.
        n_way : int
            Number of classes; some may have no support.
        weight : Tensor of shape (..., n)
            Sample weights, at least 0.

        Returns
        -------
        Statistics
            A summary that adds.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it keeps; define collect()")

    def memorize(self, statistics: Statistics) -> Memory:
        """Turn statistics into a memory of labelled keys."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its keys are; define memorize()")

    def kept_rows(self, statistics: Statistics) -> Tensor | None:
        """Return the rows (k,) of kept support that a growing classifier keeps on; None, by default, for all."""
        return None

    def settle(self, statistics: Statistics) -> Statistics:
        """Return what a growing classifier keeps of everything it has learned, without leading dimensions."""
        return statistics if (rows := self.kept_rows(statistics)) is None else statistics.take(rows)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits (..., q, n_way) of transformed `queries` (..., q, d)."""
        return self.read(prepare_keys(memory.keys, self.metric).similarity(queries), memory)

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Turn similarities to keys (..., q, m), or to candidates (q, k), into logits (..., q, n_way)."""
        return read(similarity / self.temperature.to(similarity.dtype), memory, candidates)

    def margins(self, logits: Tensor) -> Tensor:
        """Return finite logits (..., n_way): where there are none, something below all others of the query."""
        there = torch.isfinite(logits)
        least = torch.where(there, logits, torch.inf).amin(-1, keepdim=True)
        least = torch.where(torch.isfinite(least), least, 0)
        # Large logits swallow a small gap.
        below = torch.minimum(least - least_chance(logits), torch.nextafter(least, least - torch.inf))
        return torch.where(there, logits, below)

    def closeness(self, logits: Tensor, similarity: Tensor | None) -> Tensor:
        """Return the similarity (..., q) to the nearest key; where there are none, temperature times the top logit."""
        return logits.amax(-1) * self.temperature.to(logits) if similarity is None else similarity.amax(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean query loss of `logits` (..., q, n_way): the cross-entropy. Labels -100 are padding."""
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE)

    # ---- what callers use --------------------------------------------------------------------------------------

    def learn(
        self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor | None = None, *, transformed: bool = False
    ) -> Statistics:
        """Check and transform a support set and summarise it.

        Parameters
        ----------
        support : Tensor of shape (..., n, d)
            Embeddings; leading dimensions are independent episodes.
        labels : Tensor of shape (..., n)
            Classes, integers in 0..n_way-1.
        n_way : int
            Number of classes; some may have no support.
        weight : Tensor of shape (..., n), optional
            Sample weights, 1 by default; 0 means padding, whose content never matters.
        transformed : bool, default=False
            Whether the support is what `transform` has returned: many episodes of one set of images share that work.

        Returns
        -------
        Statistics
            A summary that adds.

        Raises
        ------
        ValueError
            If shapes disagree, or a label of a real row is outside 0..n_way-1.
        """
        support, labels, weight = mask_padding(support, labels, n_way, weight)
        if not transformed:
            self.sized(support.shape[-1], like=support)
            # Again after the transform, which may move the zero rows of padding.
            support = torch.where(weight.unsqueeze(-1) > 0, self.transform(support), 0)
        return self.collect(support, labels, n_way, weight)

    def answer(self, memory: Memory, queries: Tensor, *, transformed: bool = False) -> Tensor:
        """Transform `queries` (..., q, d), unless they are `transformed`, and return their logits (..., q, n_way).

        Raises
        ------
        ValueError
            If the queries are not as long as the keys.
        """
        queries = queries if transformed else self.transform(queries)
        d, expected = queries.shape[-1], memory.keys.shape[-1]
        if d != expected:
            raise ValueError(f"queries have {d} dimensions and keys {expected}; embed both with the same backbone")
        return self.score(memory, queries)

    @isolated()
    def forward(
        self, support: Tensor, labels: Tensor, queries: Tensor, n_way: int, weight: Tensor | None = None, **how: bool
    ) -> Tensor:
        """Learn from `support` (..., n, d) and return the logits (..., q, n_way) of `queries` (..., q, d).

        Keywords are those of `learn` and `answer`.

        Examples
        --------
        >>> from fewshot import PrototypicalLearner
        >>> learner = PrototypicalLearner()
        >>> support = torch.tensor([[0.0], [2.0], [10.0]])
        >>> learner(support, torch.tensor([0, 0, 1]), torch.tensor([[2.0]]), n_way=2)
        tensor([[ -1., -64.]])
        """
        return self.answer(self.memorize(self.learn(support, labels, n_way, weight, **how)), queries, **how)

    def extra_repr(self) -> str:
        """Return metric and temperature, for ``repr``."""
        return f"metric={self.metric!r}, temperature={self.temperature.item():.4g}"


def least_chance(logits: Tensor) -> float:
    """Return by how much a logit lies below the largest where its class has 1 % of an even chance."""
    return math.log(logits.shape[-1] / SMOOTHING)


@isolated(gradients=True)
def log_parameter(value: float) -> nn.Parameter:
    """Return the logarithm of a positive number that training adjusts."""
    return nn.Parameter(torch.tensor(math.log(value), dtype=torch.float32, device="cpu"))


def _behaviour(kind: type[Learner]) -> dict[str, Any]:
    """Return what a class defines or inherits, except its name and its constructor."""
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("__") and name != "name"}


def _is_near(one: Any, other: Any) -> bool:
    """Whether two arguments are the same; float32 has no more digits than that."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
