"""Validation of a saved model: the folder is untrusted, so everything in it is checked before use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.calibration import Calibration
from fewshot.embedding.backbones import cached_file
from fewshot.embedding.backbones.limits import MOST_SIDE, is_plain_name
from fewshot.embedding.sources import OFFLINE_WEIGHTS
from fewshot.errors import ArtifactError
from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics
from fewshot.persistence.content import is_number, is_whole, labels_from_json
from fewshot.search.snapshot import INDEXES
from fewshot.utils.isolation import isolated
from fewshot.utils.values import ON_ERROR, TOO_LARGE

#: Key in the manifest for an embedder that only the user can build.
GIVEN = "given"
#: Fields of `Statistics` that hold tensors by name.
_FIELDS = ("sums", "totals", "support")
#: The largest sum of weights.
_MOST_WEIGHT = 1e120


def _is_label(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str)) or is_number(value)


def _is_threshold(value: Any) -> bool:
    return value is None or value == "auto" or _is_score(value)


def _is_score(value: Any) -> bool:
    """Whether a value is a similarity: infinite, or in the range of float32."""
    return (isinstance(value, float) and abs(value) == math.inf) or is_number(value, -3e38, 3e38)


def _is_rate(value: Any) -> bool:
    return is_number(value, 0, 1 + 1e-9)


#: The saved parameters, each with its check; the others follow from the data files.
PARAMS = {
    "on_error": lambda value: value in ON_ERROR,
    "reject": _is_threshold,
    "unknown_label": _is_label,
    "index": lambda value: value in INDEXES,
    "keep_support": lambda value: isinstance(value, bool),
    "progress": lambda value: isinstance(value, bool),
}


def read_params(said: Any) -> dict[str, Any]:
    """Check the saved parameters of a model.

    Raises
    ------
    ValueError
        If one is unknown, missing or invalid.
    """
    params = {"reject": None, **said}  # format 1 did not have it
    if params.keys() != PARAMS.keys():
        raise ValueError(f"its parameters are {list(params)!s:.200}; expected {', '.join(PARAMS)}")
    for name, check in PARAMS.items():
        if not check(params[name]):
            raise ValueError(f"its parameter {name} is {params[name]!r:.60}")
    return params


def read_source(said: Any, given: bool) -> dict[str, Any]:
    """Check the parameters that locate a network outside the folder.

    Parameters
    ----------
    said : dict
        From the manifest.
    given : bool
        Whether the user has passed the embedder, so that nothing has to be located.

    Raises
    ------
    ValueError
        If it is anything but the name of a timm network and where its weights come from.
    ArtifactError
        If the weights are not on this machine, since loading downloads nothing, or the user must pass the embedder.
    """
    if isinstance(said, dict) and said.keys() == {GIVEN}:
        if not given:
            raise ArtifactError(
                f"the model was fitted with a custom embedder, {said[GIVEN]!r:.60}; pass it to load with embedder="
            )
        return {}
    always, own = {"backbone", "weights", "pretrained", "img_size"}, {"bits", "max_pixels"}
    if not isinstance(said, dict) or said.keys() - own != always:
        raise ValueError(f"its source is {said!r:.100}; expected backbone, weights, pretrained and img_size")
    name, size = said["backbone"], said["img_size"]
    if (
        not is_plain_name(name)
        or said["weights"] not in (None, OFFLINE_WEIGHTS)
        or not isinstance(said["pretrained"], bool)
        or not (size is None or is_whole(size, 1, MOST_SIDE))
        or not is_whole(said.get("bits", 8), 8, 16)
        or not is_whole(said.get("max_pixels", 1), 1, 1 << 40)
    ):
        raise ValueError(f"its source is {said!r:.200}; expected a timm network and the source of its weights")
    if said["pretrained"] and not given and cached_file(name) is None:
        raise ArtifactError(
            f"the weights of {name!r} are not on this machine, and loading a model downloads nothing; download them "
            f"once with Embedder({name!r}, pretrained=True).network, then load it again"
        )
    return said


def read_classes(said: Any, n_support: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted labels and the number of support items of each class.

    Raises
    ------
    ValueError
        If labels are unsorted or repeated, or a count is missing or negative.
    """
    classes = labels_from_json(said)
    names = classes.tolist()
    is_nan = classes.dtype.kind == "f" and bool(np.isnan(classes).any())
    if not names or is_nan or any(one >= other for one, other in pairwise(names)):
        raise ValueError("its classes must be sorted labels without repeats")
    if not isinstance(n_support, list) or len(n_support) != len(names) or not all(map(is_whole, n_support)):
        raise ValueError(f"its n_support must be a count for each of {len(names)} classes")
    return classes, np.array(n_support, dtype=np.int64)


def statistics_to_tensors(statistics: Statistics) -> dict[str, Tensor]:
    """Convert statistics to named tensors."""
    tensors = {f"{part}.{name}": value for part in _FIELDS for name, value in getattr(statistics, part).items()}
    return {"count": statistics.count, **tensors}


def read_statistics(tensors: Mapping[str, Tensor], learner: Learner, n_support: NDArray[np.int64]) -> Statistics:
    """Convert back from `statistics_to_tensors`, checking that the learner could have produced them.

    Raises
    ------
    ValueError
        If a tensor is missing, unexpected, of the wrong type or shape, not finite, or out of range.
    """
    n_way, x = len(n_support), tensors.get("support.x", tensors.get("sums.x"))
    if x is None or x.ndim != 2 or not x.shape[1]:
        raise ValueError("its memory holds neither class sums nor support of two dimensions")
    _check_like(tensors, statistics_to_tensors(_example(learner, x.shape[1])), n_way)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _FIELDS}
    for name, value in tensors.items():
        part, _, key = name.partition(".")
        if key:
            parts[part][key] = value
    statistics = Statistics(n_way, tensors["count"], **parts)
    if not ((statistics.count >= 0) & (statistics.count <= _MOST_WEIGHT)).all() or not (statistics.count > 0).any():
        raise ValueError("its counts must be at least 0, and above 0 for some class")
    if not np.allclose(statistics.count.numpy(), n_support, rtol=1e-6, atol=1e-6):
        raise ValueError("its counts must be those of n_support")
    if support := statistics.support:
        labels, weight = support["labels"], support["weight"]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_way:
            raise ValueError(f"its support must be of the {n_way} classes")
        sums = torch.zeros_like(statistics.count).index_add(0, labels, weight)
        if (weight < 0).any() or not torch.allclose(sums, statistics.count, rtol=1e-6, atol=1e-6):
            raise ValueError("its counts must be the sums of the weights of its support")
    largest = max(float(value.abs().max()) for value in (statistics.means, *parts["support"].values()) if value.numel())
    if largest > max(TOO_LARGE, _MOST_WEIGHT if parts["support"] else 0):
        raise ValueError(f"its numbers reach {largest:.3g}, which overflows when squared")
    return statistics


def _example(learner: Learner, d: int) -> Statistics:
    """Return what a learner keeps of a single embedding, as a template."""
    x, labels = torch.zeros((1, d), dtype=torch.float64, device="cpu"), torch.zeros(1, dtype=torch.int64, device="cpu")
    with isolated(gradients=False):
        return learner.learn(x, labels, 1)


def _check_like(tensors: Mapping[str, Tensor], example: Mapping[str, Tensor], n_way: int) -> None:
    """Raise unless tensors match the template up to the numbers of classes and rows."""
    if tensors.keys() != example.keys():
        raise ValueError(
            f"its memory is not that of its learner: {', '.join(sorted(tensors.keys() ^ example.keys())):.200}"
        )
    labels = tensors.get("support.labels")
    rows = {"count": n_way, "sums": n_way, "support": len(labels) if labels is not None and labels.ndim else 0}
    for name, value in example.items():
        found, part = tensors[name], name.partition(".")[0]
        shape = (rows[part], *value.shape[1:]) if part in rows else tuple(value.shape)
        if found.shape != shape or found.dtype != value.dtype:
            raise ValueError(
                f"{name} in its memory is {found.dtype} {tuple(found.shape)}; expected {value.dtype} {shape}"
            )
        if not torch.isfinite(found).all():
            raise ValueError(f"{name} in its memory is not finite")


def read_calibration(said: Any) -> Calibration | None:
    """Convert back from `Calibration.to_dict`, with checks.

    Raises
    ------
    ValueError, TypeError
        If a value is missing, unexpected, not finite, or out of range.
    """
    if said is None:
        return None
    found = Calibration(**said)
    bins, curve, n_points = found.reliability, found.curve, len(found.curve["threshold"])
    rates = [found.false_accept_rate, found.false_reject_rate, found.ece_before, found.ece_after, found.auroc]
    of_bins = [bins[when] for when in ("before", "after")]
    checks = [
        is_number(found.temperature, 1e-9, 1e9) and is_number(found.threshold, -3e38, 3e38),
        all(map(_is_rate, [*rates, found.fpr_at_95, *bins["upper"], *curve["false_accept"], *curve["false_reject"]])),
        # With few classes the interval may be unknown, hence NaN.
        len(found.false_accept_interval) == 2
        and all(_is_rate(v) or (isinstance(v, float) and v != v) for v in found.false_accept_interval),
        all(v == math.inf or is_number(v, 0) for v in (found.nll_before, found.nll_after)),
        all(one.keys() == {"n", "confidence", "accuracy"} for one in of_bins),
        all(len(column) == len(bins["upper"]) for one in of_bins for column in one.values()),
        all(map(is_whole, (v for one in of_bins for v in one["n"]))),
        # An empty bin has None for both.
        all(v is None or _is_rate(v) for one in of_bins for v in (*one["confidence"], *one["accuracy"])),
        curve.keys() == {"threshold", "false_accept", "false_reject"} and all(map(_is_score, curve["threshold"])),
        all(len(column) == n_points for column in curve.values()),
        all(map(is_whole, found.protocol.values())),
    ]
    if not all(checks):
        raise ValueError("its calibration has values that are not numbers or out of range")
    return found
