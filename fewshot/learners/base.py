"""The learner contract: support set to memory, memory and queries to logits."""

from __future__ import annotations

import copy
import inspect
import json
import math
from contextlib import suppress
from functools import cache, partial
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.learners.left_out import LeftOutRows, in_parts
from fewshot.learners.memory import Memory, Statistics, check_tensors, mask_padding, read
from fewshot.search.similarity import METRICS, Metric, normalize, prepare_keys
from fewshot.utils.discriminant import LabelledRows
from fewshot.utils.isolation import isolated, seeded
from fewshot.utils.means import middle, suitable_temperature
from fewshot.utils.values import check_name

T = TypeVar("T")
#: Label of padded queries; the loss ignores them.
IGNORE = -100
#: Probability mass spread evenly over all classes where a logarithm needs it.
SMOOTHING = 0.01
#: Arguments unknown to earlier versions, which are saved only if they are set.
LATER = ("centered", "balanced")


@cache
def _parameter_names(kind: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)


def parameter_names(kind: Any) -> tuple[str, ...]:
    """Return the names of the constructor arguments of a class, which are looked up once."""
    return _parameter_names(kind)


class Learner(nn.Module):
    """A few-shot classification method that takes no gradient step.

    Subclasses fill in hooks: `collect` summarises a support set, `memorize` turns the summary into labelled keys, and
    `transform`, `score` and `loss` have defaults that fit most methods. Callers use `learn`, `answer` and the module
    itself, which check their input once. The meta-trainer, the scikit-learn estimators and the index share the object.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity between queries and keys; higher is closer.
    temperature : float or None, default=1.0
        Logits are similarity / temperature. None, for learners `by_distance`, means that of `suitable_temperature`,
        which the support determines in closed form.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature (in log space, starting from `temperature`).

    Attributes
    ----------
    name : str
        The name in the registry.
    indexable : bool
        Whether the nearest keys decide the answer, so that an index may propose them.
    transductive : bool
        Whether an answer depends on the other queries.
    iterates : bool
        Whether the learner descends a loss on each support set, which tables mark.
    learned : bool
        Whether the learner has trainable weights that `MetaTrainer` must train first.
    ordered : bool
        Whether the order of the support matters.
    local : bool
        Whether embeddings are maps of features, whose places are compared; see `LocalLearner`.
    by_distance : bool
        Whether logits are similarities of embeddings, so that the temperature must suit the scale of the embeddings.
    centered : bool
        Whether the mean of the class means is subtracted from embeddings, which are scaled to unit length before if the
        metric is the cosine. A parameter of some learners.
    scales_columns : bool
        Whether the learner scales embeddings by their covariance, so that columns may be of different sizes.
    balanced : bool
        Whether a class counts as a class however many images it has. Otherwise a class with many more images than
        the others gets too many answers. A parameter of some learners, which then weight each class equally.
    supposes_balance : bool
        Whether the queries are supposed to be of all classes equally, which tables say: some transductive learners.
    d : int or None
        Embedding length of the weights of a `learned` learner; None until it is known.

    Raises
    ------
    ValueError
        If the metric is unknown, or the temperature is below 1e-9, or None where it must be given.
    """

    name: ClassVar[str] = ""
    indexable: ClassVar[bool] = True
    transductive: ClassVar[bool] = False
    iterates: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    ordered: ClassVar[bool] = False
    local: ClassVar[bool] = False
    by_distance: ClassVar[bool] = False
    scales_columns: ClassVar[bool] = False

    centered: bool = False
    balanced: bool = False
    supposes_balance: bool = False
    d: int | None = None
    log_temperature: nn.Parameter | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "score" in cls.__dict__ and cls.indexable:
            raise TypeError(f"{cls.__name__} overrides score, which an index would bypass; set indexable = False")

    def __init__(
        self, metric: Metric = "sqeuclidean", temperature: float | None = 1.0, learn_temperature: bool = False
    ) -> None:
        super().__init__()
        self.metric = check_name("metric", metric, METRICS)
        if temperature is None:
            if learn_temperature or not self.by_distance:
                raise ValueError("temperature is None, so the support determines it; here, give a number")
        elif isinstance(temperature, str) or not 1e-9 <= temperature < math.inf:
            raise ValueError(f"temperature is {temperature!r}; it divides the similarities, so give at least 1e-9")
        self._fixed_temperature = None if temperature is None else float(temperature)
        learned = log_parameter(temperature) if learn_temperature and temperature is not None else None
        self.register_parameter("log_temperature", learned)

    @property
    def temperature(self) -> Tensor:
        """The temperature, a scalar tensor, 1 if the support determines it; differentiable if it is learned."""
        if self.log_temperature is not None:
            return self.log_temperature.exp()
        given = 1.0 if self._fixed_temperature is None else self._fixed_temperature
        return torch.tensor(given, dtype=torch.float64, device="cpu")

    @property
    def fits_temperature(self) -> bool:
        """Whether the support determines the temperature."""
        return self._fixed_temperature is None

    def temperature_of(self, memory: Memory) -> Tensor:
        """Return the temperature (...) at which a memory is read."""
        found = memory.extras.get("temperature")
        return self.temperature if found is None else found

    @property
    def means_are_keys(self) -> bool:
        """Whether the key of a class is the mean of its support, minus the mean of all of these if `centered`."""
        return False

    @property
    def keys_by_class(self) -> bool:
        """Whether the keys of a class follow from its own support, which is kept, and `read` needs no more than them.

        So learning a class changes no other. A learner that says so has its keys changed class by class.
        """
        return False

    @property
    def rows_are_keys(self) -> bool:
        """Whether the keys of a class are the rows of its support; see `keys_by_class`."""
        return self.keys_by_class and type(self).memorize is SupportLearner.memorize

    @property
    def n_read(self) -> int | None:
        """How many of the nearest keys decide an answer, if each has a weight of 1; None if all do."""
        return None

    @property
    def item_metric(self) -> Metric:
        """The similarity of two transformed embeddings, such as a query and an item of the support."""
        return self.metric

    def items(self, x: Tensor) -> Tensor:
        """Return embeddings (n, d) as rows that are compared by `item_metric`: by default as `transform` does."""
        return self.transform(x)

    @property
    def learn_temperature(self) -> bool:
        """Whether meta-training adjusts the temperature."""
        return self.log_temperature is not None

    @property
    def description(self) -> str:
        """Name, metric and temperature in words, such as "prototypical, sqeuclidean, temperature 1"."""
        name = self.name or type(self).__name__
        of = "of the support" if self._fixed_temperature is None else f"{self.temperature.item():.4g}"
        return f"{name}, {self.metric}, temperature {of}"

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this learner; its ``state_dict`` holds the weights.

        Raises
        ------
        TypeError
            If a constructor argument has no attribute of the same name, or JSON cannot hold its value.
        """
        params = self.get_params()
        for name in set(parameter_names(type(self))) - params.keys():
            raise TypeError(
                f"{type(self).__name__} takes {name!r} but has no attribute of that name; store it as self.{name}, "
                "so that the learner can be saved"
            )
        try:
            json.dumps(params)
        except TypeError as error:
            raise TypeError(f"an argument of {type(self).__name__} cannot be saved as JSON: {error}") from None
        return {name: value for name, value in params.items() if name not in LATER or value}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor arguments, which scikit-learn reaches as ``learner__temperature``."""
        values = {n: getattr(self, n) for n in parameter_names(type(self)) if hasattr(self, n)}
        if "temperature" in values and self._fixed_temperature is None:
            values["temperature"] = None
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}

    def initial_value(self, name: str) -> Any:
        """Return an argument that training adjusts as it was given, such as the temperature; None if nothing keeps it.

        Examples
        --------
        >>> from fewshot import PrototypicalLearner
        >>> PrototypicalLearner(temperature=0.2, learn_temperature=True).initial_value("temperature")
        0.2
        """
        return getattr(self, f"_fixed_{name}", None)

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments in place, as `GridSearchCV` over ``learner__temperature`` does.

        Raises
        ------
        ValueError
            If an argument is unknown, a value is out of range, or the learner has weights that were trained with the
            present arguments. The learner is then unchanged.

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
            raise ValueError(f"the weights of this {name} were trained with its parameters; create a new one instead")
        if params:
            fresh = type(self)(**{**arguments, **params}).train(self.training)
            self.__dict__.clear()
            self.__dict__.update(fresh.__dict__)
        return self

    def __sklearn_clone__(self) -> Self:
        return copy.deepcopy(self)  # keeps the weights, which rebuilding from the arguments would lose

    def is_like(self, other: Learner) -> bool:
        """Return whether both learners give the same answers from the same statistics, regardless of class name."""
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
        """Create the weights of a `learned` learner for embeddings of length `d`, unless they exist.

        They are created with the dtype and device of `like`.

        Raises
        ------
        ValueError
            If the weights exist and fit embeddings of another length.
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
                "with the backbone it was trained with"
            )
        return self

    # ---- hooks -------------------------------------------------------------------------------------------------

    def build(self, d: int) -> None:
        """Create the weights that depend on the embedding length `d`; `sized` calls this once.

        A learner with weights sets ``learned = True``, and its constructor calls ``self.sized(d)`` if `d` is given.
        """

    def transform(self, x: Tensor) -> Tensor:
        """Map embeddings (..., n, d) item by item, with parameters that do not depend on the support set."""
        return normalize(x) if self.centered and self.metric == "cosine" else x

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Summarise a support set that `learn` has checked; padding is zero rows of class 0 with weight 0.

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
        raise NotImplementedError(f"{type(self).__name__} has no collect(); define it")

    def leave_out(
        self, x: Tensor, labels: Tensor, n_way: int, every: bool = False, *, transformed: bool = False
    ) -> LeftOutRows:
        """Answer rows of a support set as if it had never held them, about 1000 or `every` one; see `in_parts`."""
        return in_parts(partial(self, transformed=transformed), x, labels, n_way, every)

    def without_choosing(self) -> Learner:
        """Return a learner of nearly the same answers that takes usual values for what it would choose by itself."""
        return self

    def memorize(self, statistics: Statistics) -> Memory:
        """Turn statistics into a memory of labelled keys."""
        raise NotImplementedError(f"{type(self).__name__} has no memorize(); define it")

    def prepared(self, statistics: Statistics) -> tuple[Statistics, dict[str, Tensor]]:
        """Return what `memorize` makes keys of, and the extras of its memory.

        `balanced`, `centered` and the temperature of the support change what is read, not what is kept.
        """
        extras = {}
        if self.balanced:
            statistics = statistics.evened()
        if self.centered:
            extras["center"] = middle(statistics.means, statistics.count, torch)
            statistics = statistics.moved(-extras["center"])
        if self._fixed_temperature is None:
            extras["temperature"] = suitable_temperature(statistics.means, statistics.count, self.metric, torch)
        return statistics, extras

    def kept_rows(self, statistics: Statistics) -> Tensor | None:
        """Return the rows (k,) of kept support that a growing classifier retains; None, the default, means all."""
        return None

    def settle(self, statistics: Statistics) -> Statistics:
        """Return what a growing classifier retains of its statistics, which have no leading dimensions."""
        return statistics if (rows := self.kept_rows(statistics)) is None else statistics.take(rows)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits (..., q, n_way) of transformed `queries` (..., q, d)."""
        return self.read(prepare_keys(memory.keys, self.metric).similarity(memory.centred(queries)), memory)

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Turn similarities to all keys (..., q, m), or to candidates (q, k), into logits (..., q, n_way)."""
        temperature = self.temperature_of(memory).to(similarity.dtype)[..., None, None]
        return read(similarity / temperature, memory, candidates)

    def margins(self, logits: Tensor) -> Tensor:
        """Return logits (..., n_way) whose infinite entries are replaced by values below the query's finite ones."""
        finite = torch.isfinite(logits)
        least = torch.where(finite, logits, torch.inf).amin(-1, keepdim=True)
        least = torch.where(torch.isfinite(least), least, 0)
        # nextafter, because rounding would swallow the gap between large logits.
        below = torch.minimum(least - chance_gap(logits), torch.nextafter(least, least - torch.inf))
        return torch.where(finite, logits, below)

    def closeness(self, logits: Tensor, similarity: Tensor | None) -> Tensor:
        """Return the similarity (..., q) to the nearest key, else temperature times the top logit."""
        return logits.amax(-1) * self.temperature.to(logits) if similarity is None else similarity.amax(-1)

    def familiar_rows(self, statistics: Statistics) -> LabelledRows | None:
        """Return the support that tells how familiar a query is; by default None, and `closeness` tells.

        Rows are transformed and of unit length, in float64, without a gradient; see `fewshot.utils.familiarity`.
        """
        return None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of `logits` (..., q, n_way); queries labelled -100 are padding."""
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE)

    # ---- what callers use --------------------------------------------------------------------------------------

    def learn(
        self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor | None = None, *, transformed: bool = False
    ) -> Statistics:
        """Check, transform and summarise a support set.

        Parameters
        ----------
        support : Tensor of shape (..., n, d)
            Embeddings; leading dimensions are independent episodes.
        labels : Tensor of shape (..., n)
            Classes, integers in 0..n_way-1.
        n_way : int
            Number of classes; some may have no support.
        weight : Tensor of shape (..., n), optional
            Sample weights, 1 by default; 0 means padding, whose content is ignored.
        transformed : bool, default=False
            Whether `support` has been through `transform` already, which many episodes of the same images can share.

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
            # Padding is zeroed again, because the transform may move zero rows.
            support = torch.where(weight.unsqueeze(-1) > 0, self._transformed(support), 0)
        return self.expected(Statistics, self.collect(support, labels, n_way, weight), "collect")

    def expected(self, kind: type[T], found: Any, hook: str) -> T:
        """Return what a hook has returned; raise TypeError if that is of another kind."""
        if not isinstance(found, kind):
            raise TypeError(
                f"{hook}() of {type(self).__name__} returned a {type(found).__name__}; expected a {kind.__name__}"
            )
        return found

    def answer(self, memory: Memory, queries: Tensor, *, transformed: bool = False) -> Tensor:
        """Transform `queries` (..., q, d), unless they are `transformed`, and return their logits (..., q, n_way).

        Raises
        ------
        ValueError
            If queries and keys differ in length or device, or a hook returns another shape than the contract says.
        TypeError
            If `memory` is no `Memory`, or the queries are no tensor.
        """
        if not isinstance(memory, Memory):
            raise TypeError(
                f"memory is a {type(memory).__name__}; expected what memorize() returns, such as "
                "Memory.of_prototypes(keys, statistics.count)"
            )
        check_tensors(queries=queries)
        if queries.dim() < 2:
            raise ValueError(f"queries have shape {tuple(queries.shape)}; expected (..., q, d): queries[None] for one")
        queries = queries if transformed else self._transformed(queries)
        d, expected = queries.shape[-1], memory.keys.shape[-1]
        if d != expected:
            raise ValueError(f"queries have {d} dimensions and keys {expected}; embed both with the same backbone")
        if queries.device != memory.keys.device:
            raise ValueError(f"queries are on {queries.device} and keys on {memory.keys.device}; move one of the two")
        return self.checked(self.score(memory, queries), queries.shape[-2], memory.n_way)

    def checked(self, logits: Tensor, n_queries: int, n_way: int) -> Tensor:
        """Return the logits of `score`; raise ValueError if their shape does not end with (n_queries, n_way)."""
        logits = self.expected(Tensor, logits, "score")
        if logits.shape[-2:] != (n_queries, n_way):
            raise ValueError(
                f"score() of {type(self).__name__} returned shape {tuple(logits.shape)}; expected logits "
                f"(..., q, n_way), here (..., {n_queries}, {n_way})"
            )
        return logits

    def without_nan(self, logits: Tensor) -> Tensor:
        """Return the logits; raise ValueError if one is NaN, which is no answer."""
        if logits.isnan().any():
            raise ValueError(
                f"{self.description} gave logits of NaN, which are no answer; expected numbers, or -inf for a class "
                "without support"
            )
        return logits

    def _transformed(self, x: Tensor) -> Tensor:
        found = self.transform(x)
        if found.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"transform() of {type(self).__name__} returned shape {tuple(found.shape)} for {tuple(x.shape)}; "
                "expected one row for each row"
            )
        return found

    @isolated()
    def forward(
        self, support: Tensor, labels: Tensor, queries: Tensor, n_way: int, weight: Tensor | None = None, **how: bool
    ) -> Tensor:
        """Learn from `support` (..., n, d) and return the logits (..., q, n_way) of `queries` (..., q, d).

        Keyword arguments go to `learn` and `answer`.

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
        shown = None if self._fixed_temperature is None else f"{self.temperature.item():.4g}"
        return f"metric={self.metric!r}, temperature={shown}"


class SumLearner(Learner):
    """A learner that keeps class sums and counts; its keys are the class means."""

    @property
    def means_are_keys(self) -> bool:
        """Whether the key of a class is the mean of its support, minus the mean of all of these if `centered`."""
        return self.indexable and type(self).memorize is SumLearner.memorize

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep class sums and counts."""
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean."""
        statistics, extras = self.prepared(statistics)
        return Memory.of_prototypes(statistics.means, statistics.count).having(extras)


class SupportLearner(Learner):
    """A learner that keeps the support; its keys are the support embeddings, with their sample weights."""

    @property
    def keys_by_class(self) -> bool:
        """Whether the keys of a class follow from its own support; see `Learner.keys_by_class`."""
        return self._keeps_hooks_of(SupportLearner)

    def _keeps_hooks_of(self, kind: type[Learner]) -> bool:
        """Whether keys are made and read as `kind` makes and reads them, and no class has a part in those of others."""
        hooks = ("collect", "prepared", "memorize", "kept_rows", "settle", "read")
        own = all(getattr(type(self), hook) is getattr(kind, hook) for hook in hooks)
        return own and self.indexable and not (self.centered or self.balanced)

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per support embedding."""
        statistics, extras = self.prepared(statistics)
        return Memory.of_support(statistics.support, statistics.n_way).having(extras)


def chance_gap(logits: Tensor) -> float:
    """Return how far below the largest logit a class has 1 % of an even chance."""
    return math.log(logits.shape[-1] / SMOOTHING)


@isolated(gradients=True)
def log_parameter(value: float) -> nn.Parameter:
    """Return a trainable parameter that holds the logarithm of `value`."""
    return nn.Parameter(torch.tensor(math.log(value), dtype=torch.float32, device="cpu"))


def _behaviour(kind: type[Learner]) -> dict[str, Any]:
    """Return what a class defines or inherits, except its name and its constructor."""
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("__") and name != "name"}


def _is_near(one: Any, other: Any) -> bool:
    """Compare two arguments, floats to the precision of float32."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
