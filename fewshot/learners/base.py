"""The learner contract: from a labelled support set to a memory, from a memory and queries to logits."""

from __future__ import annotations

import inspect
import json
import math
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.errors import UnknownNameError
from fewshot.memory import Memory, Statistics, read
from fewshot.registry import learner_class
from fewshot.similarity import METRICS, prepare_keys

#: Label of a query that is padding; the loss passes over it.
IGNORE = -100


class Learner(nn.Module):
    """A method of few-shot classification that takes no gradient step.

    A subclass fills in hooks: what of a support set is kept (`collect`), how that becomes labelled keys
    (`memorize`) and, where the defaults do not fit, `transform`, `score` and `loss`. Callers use `learn`, `answer`
    and the module itself, which check their input once. The same object is differentiated by the meta-trainer,
    called by the scikit-learn estimators, and read by the index.

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

    Raises
    ------
    ValueError
        If the metric is unknown or the temperature is below 1e-9.
    """

    name: ClassVar[str] = ""
    indexable: ClassVar[bool] = True
    transductive: ClassVar[bool] = False

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
        if isinstance(temperature, str) or not 1e-9 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature!r}; it divides the similarities, so give at least 1e-9")
        self.metric = metric
        self._fixed_temperature = float(temperature)
        start = torch.tensor(math.log(temperature)) if learn_temperature else None
        self.register_parameter("log_temperature", None if start is None else nn.Parameter(start))

    @property
    def temperature(self) -> Tensor:
        """The temperature, a scalar tensor; differentiable if it is learned."""
        if self.log_temperature is not None:
            return self.log_temperature.exp()
        return torch.tensor(self._fixed_temperature, dtype=torch.float64)

    @property
    def learn_temperature(self) -> bool:
        """Whether meta-training adjusts the temperature."""
        return self.log_temperature is not None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that build a learner like this one; weights are in its ``state_dict``.

        Each argument of the constructor is read from the attribute of its name.

        Raises
        ------
        TypeError
            If an argument is not kept under its name, or is nothing that JSON can hold.
        """
        params = {}
        for name in inspect.signature(type(self)).parameters:
            if not hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__} takes {name!r} but has no attribute of that name; keep it as self.{name}, "
                    "so that the learner can be saved"
                )
            value = getattr(self, name)
            params[name] = value.item() if isinstance(value, Tensor) else value
        try:
            json.dumps(params)
        except TypeError as error:
            raise TypeError(f"an argument of {type(self).__name__} cannot be saved as JSON: {error}") from None
        return params

    def is_like(self, other: Learner) -> bool:
        """Whether the two answer alike from the same statistics: of one class, with the same arguments."""
        near = abs(self.temperature.item() / other.temperature.item() - 1) <= 1e-6  # float32 has no more digits
        arguments: list[dict[str, Any]] = [{"metric": learner.metric} for learner in (self, other)]
        with suppress(TypeError):  # a learner that cannot be saved can still go on
            arguments = [{**learner.arguments(), "temperature": 0} for learner in (self, other)]
        return type(self) is type(other) and near and arguments[0] == arguments[1]

    # ---- hooks -------------------------------------------------------------------------------------------------

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

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits (..., q, n_way) of transformed `queries` (..., q, d)."""
        return self.read(prepare_keys(memory.keys, self.metric).similarity(queries), memory)

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Turn similarities to keys (..., q, m), or to candidates (q, k), into logits (..., q, n_way)."""
        return read(similarity / self.temperature.to(similarity.dtype), memory, candidates)

    def closeness(self, logits: Tensor, similarity: Tensor | None) -> Tensor:
        """Return the similarity (..., q) to the nearest key; where there are none, temperature times the top logit."""
        return logits.amax(-1) * self.temperature.to(logits) if similarity is None else similarity.amax(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean query loss of `logits` (..., q, n_way): the cross-entropy. Labels -100 are padding."""
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE)

    # ---- what callers use --------------------------------------------------------------------------------------

    def learn(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor | None = None) -> Statistics:
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

        Returns
        -------
        Statistics
            A summary that adds.

        Raises
        ------
        ValueError
            If shapes disagree, or a label of a row that is not padding is outside 0..n_way-1.
        """
        support, labels, weight = _mask_padding(support, labels, n_way, weight)
        # Again after the transform, which may move the zero rows of padding.
        support = torch.where(weight.unsqueeze(-1) > 0, self.transform(support), 0)
        return self.collect(support, labels, n_way, weight)

    def answer(self, memory: Memory, queries: Tensor) -> Tensor:
        """Transform `queries` (..., q, d) and return their logits (..., q, n_way).

        Raises
        ------
        ValueError
            If the queries are not as long as the keys.
        """
        queries = self.transform(queries)
        if self.indexable and queries.shape[-1] != memory.keys.shape[-1]:
            raise ValueError(
                f"queries have {queries.shape[-1]} dimensions and keys {memory.keys.shape[-1]}; "
                "embed both with the same backbone"
            )
        return self.score(memory, queries)

    def forward(
        self, support: Tensor, labels: Tensor, queries: Tensor, n_way: int, weight: Tensor | None = None
    ) -> Tensor:
        """Learn from `support` (..., n, d) and return the logits (..., q, n_way) of `queries` (..., q, d).

        Examples
        --------
        >>> from fewshot import PrototypicalLearner
        >>> learner = PrototypicalLearner()
        >>> support = torch.tensor([[0.0], [2.0], [10.0]])
        >>> learner(support, torch.tensor([0, 0, 1]), torch.tensor([[2.0]]), n_way=2)
        tensor([[ -1., -64.]])
        """
        return self.answer(self.memorize(self.learn(support, labels, n_way, weight)), queries)

    def extra_repr(self) -> str:
        """Return metric and temperature, for ``repr``."""
        return f"metric={self.metric!r}, temperature={self.temperature.item():.4g}"


def as_learner(learner: str | Learner) -> Learner:
    """Return the learner itself, or one built by its registered name with its defaults.

    Raises
    ------
    UnknownNameError
        If nothing is registered by that name.
    TypeError
        If it is neither, for example a class.
    """
    if isinstance(learner, str):
        return learner_class(learner)()
    if not isinstance(learner, Learner):
        raise TypeError(
            f"learner is {learner!r}; expected a registered name or a Learner, such as PrototypicalLearner()"
        )
    return learner


def _mask_padding(support: Tensor, labels: Tensor, n_way: int, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return support, labels and weight with padding made harmless: zero rows of class 0 with weight 0.

    Raises
    ------
    ValueError
        If shapes disagree, or a label of a real support row is outside 0..n_way-1.
    """
    if support.dim() < 2 or labels.shape != support.shape[:-1]:
        raise ValueError(
            f"support has shape {tuple(support.shape)} and labels {tuple(labels.shape)}; "
            "expected (..., n, d) and (..., n)"
        )
    if weight is None:
        weight = support.new_ones(labels.shape)
    elif weight.shape != labels.shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected that of labels, {tuple(labels.shape)}")
    elif not (weight >= 0).all():
        raise ValueError("a weight is negative or NaN; expected numbers of at least 0, 0 for padding")
    real = weight > 0
    labels = torch.where(real, labels, 0)
    low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if low < 0 or high >= n_way:
        raise ValueError(f"labels run from {low} to {high}; expected integers in 0..{n_way - 1}")
    return torch.where(real.unsqueeze(-1), support, 0), labels, torch.where(real, weight, 0).to(support.dtype)


def sum_by_class(values: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sum `values` (..., n, k) over the rows of each class -> (..., n_way, k).

    Rows are added in place, class by class: no one-hot matrix, so a million classes fit.
    """
    batch = labels.shape[:-1]
    n_episodes = batch.numel()
    offset = torch.arange(n_episodes, device=labels.device).unsqueeze(-1) * n_way
    flat = (labels.reshape(n_episodes, -1) + offset).flatten()
    rows = values.reshape(-1, values.shape[-1])
    sums = values.new_zeros((n_episodes * n_way, values.shape[-1])).index_add(0, flat, rows)
    return sums.reshape(*batch, n_way, values.shape[-1])
