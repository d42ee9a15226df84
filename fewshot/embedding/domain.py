"""A domain in closed form: the map that makes the embeddings of one kind of items easier to tell apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.embedding.scatter import Scatter, expected_accuracy, powered, shrunk
from fewshot.persistence.content import is_number, is_whole, json_object
from fewshot.persistence.files import check_file, replacing, sync
from fewshot.persistence.tensors import read_tensors, write_tensors
from fewshot.utils.text import counted

Array = NDArray[np.float64]
#: The shrinkages that leave-classes-out compares, the one for classes too few to leave out, and for unlabelled items.
SHRINKAGES, USUAL, UNLABELLED = (0.5, 0.75, 0.9, 0.97, 0.99), 0.9, 0.97
#: Fewer classes are not left out. A larger share of negative numbers means embeddings of both signs.
FEWEST_CLASSES, SIGNED = 4, 0.1
#: Bump when the format changes.
FORMAT = 1
_KEY = "domain"


@dataclass(frozen=True, eq=False, repr=False)
class Domain:
    """The map ``x -> W (f(x) - m)``, with f(x) the signed power of x, scaled to unit length.

    m is the mean of the class means of the domain, and ``W = ((1 - s) C / c + s I) ** -0.5`` whitens by the covariance
    C within its classes, where c is the mean of C's diagonal and s the shrinkage. So directions in which items of one
    class differ count less. Without labels, m and C are the mean and the covariance of all items.

    Parameters
    ----------
    mean : ndarray of shape (d,)
        m.
    matrix : ndarray of shape (d, d)
        W.
    power : float
        Exponent of the absolute values.
    shrinkage : float
        s, above 0, at most 1.
    embedder : str
        Fingerprint of the embedder, without a domain, whose embeddings it maps.
    n_classes, n_items : int
        What it was computed from; 0 classes if the items had no labels.
    accuracy : float, optional
        Estimated 5-way 1-shot accuracy on classes left out, if the shrinkage was chosen by it.

    References
    ----------
    T. Hastie, R. Tibshirani (1996). Discriminant Adaptive Nearest Neighbor Classification. IEEE TPAMI 18. A. O. Hatch,
    S. Kajarekar, A. Stolcke (2006). Within-class covariance normalization for SVM-based speaker recognition.
    Interspeech. O. Ledoit, M. Wolf (2004). A well-conditioned estimator for large-dimensional covariance matrices.
    Journal of Multivariate Analysis 88. Y. Hu, V. Gripon, S. Pateux (2021). arXiv:2006.03806; the power.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((60, 8))
    >>> domain = Domain.fit(x, np.repeat(["oak", "elm", "ash"], 20), embedder="leaves")
    >>> domain(x).shape, domain.shrinkage
    ((60, 8), 0.9)
    """

    mean: Array
    matrix: Array
    power: float
    shrinkage: float
    embedder: str
    n_classes: int = 0
    n_items: int = 0
    accuracy: float | None = None

    @classmethod
    def fit(
        cls,
        x: NDArray[Any],
        y: NDArray[Any] | None,
        *,
        embedder: str,
        shrinkage: float | None = None,
        power: float | None = None,
    ) -> Domain:
        """Compute the domain of embeddings.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Finite embeddings.
        y : ndarray of shape (n,), optional
            Their labels; classes with one item give no covariance. By default items are unlabelled.
        embedder : str
            Fingerprint of the embedder.
        shrinkage : float, optional
            From 0.001 to 1. By default the one of `SHRINKAGES` that tells items of left-out classes apart best.
        power : float, optional
            By default 0.5, the square root, and 1 if a tenth of the numbers or more are negative.

        Raises
        ------
        ValueError
            If shapes do not fit, numbers are not finite, all classes have one item, or a parameter is out of range.
        """
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or not x.size or not np.isfinite(x).all():
            raise ValueError(f"embeddings have shape {x.shape}; expected rows of finite numbers")
        if power is None:
            power = 1.0 if (x < 0).mean() >= SIGNED else 0.5
        rows = powered(x, check_share("power", power, 1e-3))
        labels = np.zeros(len(x), np.int64) if y is None else np.unique(y, return_inverse=True)[1].reshape(-1)
        scatter, accuracy = Scatter.of(rows, labels), None
        variances, vectors = np.linalg.eigh(scatter.covariance())
        if shrinkage is None:
            shrinkage = UNLABELLED if y is None else USUAL
            if len(scatter.counts) >= FEWEST_CLASSES:
                found = expected_accuracy(rows, labels, SHRINKAGES)
                shrinkage = max(SHRINKAGES, key=lambda one: (found[one], one))
                accuracy = found[shrinkage]
        spread = shrunk(variances, check_share("shrinkage", shrinkage, 1e-3), variances.mean())
        matrix = (vectors * spread**-0.5) @ vectors.T
        n_classes = 0 if y is None else len(scatter.counts)
        return cls(scatter.mean(), matrix, float(power), float(shrinkage), embedder, n_classes, len(x), accuracy)

    def __repr__(self) -> str:
        return (
            f"Domain({counted(self.n_classes, 'class')}, {counted(self.n_items, 'item')}, shrinkage {self.shrinkage:g})"
        )

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return embeddings (n, d), mapped; a row that is not finite becomes NaN.

        Raises
        ------
        ValueError
            If embeddings have another length than those of the domain.
        """
        if x.shape[-1] != len(self.mean):
            raise ValueError(
                f"embeddings have {x.shape[-1]} numbers, and the domain was adapted to {len(self.mean)}; adapt again"
            )
        bad = ~np.isfinite(x).all(-1)
        rows = powered(np.where(bad[:, None], 0, x).astype(np.float64), self.power)
        mapped = ((rows - self.mean) @ self.matrix.T).astype(np.float32)
        mapped[bad] = np.nan
        return mapped

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the map."""
        digest = hashlib.sha256(json.dumps([FORMAT, self.power, self.embedder]).encode())
        for part in (self.mean, self.matrix):
            digest.update(np.ascontiguousarray(part, "<f8").data)
        return digest.hexdigest()

    def extend(self, fingerprint: str) -> str:
        """Return the fingerprint of an embedder's embeddings once they are mapped."""
        return hashlib.sha256(f"{fingerprint} domain {self.fingerprint}".encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the domain to a file, or replace one, atomically."""
        with replacing(path) as partial:
            self.write(partial)
            sync(partial)

    def write(self, path: str | Path) -> None:
        """Write the domain in place."""
        names = ("power", "shrinkage", "embedder", "n_classes", "n_items", "accuracy")
        facts = {"format": FORMAT, **{name: getattr(self, name) for name in names}}
        tensors = {"mean": torch.from_numpy(self.mean), "matrix": torch.from_numpy(self.matrix)}
        write_tensors(path, tensors, {_KEY: json.dumps(facts)})

    @classmethod
    def load(cls, path: str | Path) -> Domain:
        """Read what `save` wrote. The file may come from a stranger: it holds numbers only, which are checked.

        Raises
        ------
        ValueError
            If it is not a domain, is damaged, or was written by a newer version.
        """
        check_file(path, "a domain, as fewshot adapt or Domain.save write it")
        tensors, metadata = read_tensors(path)
        if _KEY not in metadata or tensors.keys() != {"mean", "matrix"}:
            raise ValueError(f"{path} holds no domain; expected a file of fewshot adapt or Domain.save")
        facts = json_object(metadata[_KEY])
        if not is_whole(version := facts.pop("format", None), 1) or version > FORMAT:
            raise ValueError(f"{path} was written by a newer version of fewshot; upgrade, or adapt again")
        return cls(*_checked(path, tensors), **_checked_facts(path, facts))


def _checked(path: str | Path, tensors: dict[str, Any]) -> tuple[Array, Array]:
    mean, matrix = (tensors[name] for name in ("mean", "matrix"))
    is_whole_map = mean.ndim == 1 and len(mean) and matrix.shape == (len(mean), len(mean))
    if not is_whole_map or not all(t.dtype == torch.float64 and bool(torch.isfinite(t).all()) for t in (mean, matrix)):
        raise ValueError(f"{path} holds no mean (d,) and matrix (d, d) of finite float64 numbers; adapt again")
    return mean.numpy(), matrix.numpy()


def _checked_facts(path: str | Path, facts: dict[str, Any]) -> dict[str, Any]:
    checks = {
        "power": lambda v: is_number(v, 1e-3, 1),
        "shrinkage": lambda v: is_number(v, 1e-3, 1),
        "embedder": lambda v: isinstance(v, str),
        "n_classes": is_whole,
        "n_items": is_whole,
        "accuracy": lambda v: v is None or is_number(v, 0, 1),
    }
    if facts.keys() != checks.keys() or not all(check(facts[name]) for name, check in checks.items()):
        raise ValueError(f"{path} describes its domain with {facts!s:.100}; adapt again")
    return facts


def check_share(name: str, value: Any, least: float = 0) -> float:
    """Return a number if it is in `least`..1; raise ValueError otherwise."""
    if not is_number(value, least, 1):
        raise ValueError(f"{name} is {value!r}; expected a number from {least:g} to 1")
    return float(value)
