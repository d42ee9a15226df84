"""The rows of a large model that changes class by class: a base that is mapped, and the changes since.

The files are those of `kept_rows`, which applies changes to arrays. Here they are found without a look at what has not
changed, and applied to the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load

from fewshot.classifiers.changes import after_rows, rows_since
from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.kinds import model_type
from fewshot.classifiers.live import LiveModel
from fewshot.classifiers.rows import RowChange
from fewshot.images import segments
from fewshot.images.kept_rows import (
    MEMORY,
    OF,
    added_in,
    are_among,
    changes_of,
    gone_rows,
    labels_named,
    labels_under,
    part_name,
    renamed_in,
    rows_to_arrays,
)
from fewshot.images.parts import Segment
from fewshot.images.segments import Segments, check_sorted
from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics
from fewshot.persistence.arrays import map_arrays, write_streamed
from fewshot.persistence.artifact import Part
from fewshot.search.similarity import PART
from fewshot.utils.values import TOO_LARGE


def keeps_many_rows(model: FittedModel) -> TypeGuard[LiveModel]:
    """Whether the rows that a model keeps are saved in segments of their own."""
    if not isinstance(model, LiveModel) or model.is_summed or _bytes_of(model) <= segments.LARGE:
        return False
    kind, n_support = model.some_classes.dtype, model.known.n_support
    n_taught = sum(int(np.count_nonzero(block)) for block in n_support.blocks)
    return model.support.is_even and n_taught == model.n_classes and (kind.kind == "U" or kind == np.int64)


def rows_in_segments(held: Segments, model: LiveModel) -> tuple[Segments, dict[str, Part]]:
    """Return the segments of the rows of a later model and their files, of which at most one has to be written."""

    def since(old: Any) -> dict[str, NDArray[Any]] | None:
        is_like = isinstance(old, LiveModel) and not old.is_summed
        return _to_arrays(change) if is_like and (change := rows_since(model, old)) is not None else None

    base = Segment(model.bare(), _bytes_of(model))
    return held.with_state(base, since, partial(_write_base, model=model), MEMORY, partial(part_name, MEMORY))


def read_rows(manifest: Mapping[str, Any], paths: Mapping[str, Path], learner: Learner) -> Segments | None:
    """Return the segments of rows that a learner keeps; None if its model does not change class by class.

    Raises
    ------
    ValueError
        If they do not hold a model of this learner.
    """
    arrays = map_arrays(paths[MEMORY])
    classes, x, labels = labels_under(OF, arrays), arrays["support.x"], arrays["support.labels"]
    kind = model_type(learner, len(classes), len(labels))
    if not issubclass(kind, LiveModel) or learner.means_are_keys:
        return None
    _check(x, labels, classes)
    counts = np.bincount(labels, minlength=len(classes))
    if not (there := counts > 0).all():  # a class without support was listed when the base was written
        classes, labels, counts = classes[there], (np.cumsum(there) - 1)[labels], counts[there]
    rows = {"x": torch.from_numpy(x), "labels": torch.from_numpy(labels)}
    support = {**rows, "weight": torch.ones(len(x), dtype=torch.float64, device="cpu")}
    statistics = Statistics(len(classes), torch.from_numpy(counts).double(), support=support)
    model = kind.of(learner, classes, counts, statistics)
    found = [Segment(model, x.nbytes)]
    for raw, is_inline in changes_of(manifest, paths, MEMORY):
        model = after_rows(model, _from_arrays(load(raw), model))
        found.append(Segment(model, len(raw), raw if is_inline else None))
    if [model.n_classes, model.n_rows] != [manifest["classes"]["n"], manifest["n_support"]] or not model.n_classes:
        raise ValueError(f"its rows are {model.n_rows} of {model.n_classes} classes, unlike its manifest")
    return Segments(tuple(found))


def _bytes_of(model: LiveModel) -> int:
    return 8 * model.n_rows * model.d


def _write_base(path: Path, model: LiveModel) -> None:
    present, x = model.support.present(), model.support.x
    codes = model.known.ordered_places()[model.support.number.rows(present)]
    parts = (x.rows(present[start : start + PART]) for start in range(0, len(present), PART))
    arrays: dict[str, Any] = {
        "support.x": (np.float64, (len(present), model.d), parts),
        "support.labels": (np.int64, codes.shape, [codes]),
    }
    for name, value in labels_named(OF, model.known.places.ordered()[0]).items():
        arrays[name] = (value.dtype.type, value.shape, [value])
    write_streamed(path, arrays)


def _to_arrays(change: RowChange) -> dict[str, NDArray[Any]]:
    """Return a change as `kept_rows` does, empty if there is none."""
    if not len(change.gone) and not change.old and not len(change.of):
        return {}
    old, new = (np.array(labels, object) for labels in (change.old, change.new))
    added = {"x": change.x, "labels": change.labels} if len(change.of) else {}
    return rows_to_arrays(change.gone, old, new, added, change.of)


def _from_arrays(change: Mapping[str, NDArray[Any]], model: LiveModel) -> RowChange:
    """Return a change of the rows of a model; raise ValueError unless it is possible."""
    gone, (old, new) = gone_rows(change, model.n_rows), renamed_in(change)
    x, labels, of = np.empty((0, model.d)), np.empty(0, np.int64), model.some_classes[:0]
    if "x" in change:
        x, (of, labels) = change["x"], added_in(change)
        _check(x, labels, of, model.d)
    if len({isinstance(label, str) for label in (*new, *of.tolist(), *model.some_classes.tolist())}) > 1:
        raise ValueError("its labels mix text and numbers")
    return RowChange(gone, old, new, x, labels, of)


def _check(x: NDArray[Any], labels: NDArray[np.int64], of: NDArray[Any], d: int | None = None) -> None:
    """Raise ValueError unless rows are possible, and each has a class of these labels."""
    if labels.dtype != np.int64 or labels.shape != x.shape[:1] or not are_among(labels, len(of)):
        raise ValueError(f"its support must be of {len(of)} classes")
    check_sorted(of)
    if d and np.bincount(labels, minlength=len(of)).min(initial=1) < 1:
        raise ValueError("its support lacks rows of some of its classes")
    if x.dtype != np.float64 or x.ndim != 2 or x.shape[1] != (d or x.shape[1]) or not x.shape[1]:
        raise ValueError(f"its support is {x.dtype} {x.shape}; expected rows of {d or 'some'} numbers")
    for part in (x[start : start + PART] for start in range(0, len(x), PART)):
        if not (part.max() <= TOO_LARGE and part.min() >= -TOO_LARGE):  # NaN fails, too
            raise ValueError("its support is not finite, or overflows when squared")
