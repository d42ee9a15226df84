"""The memory of a large model on disk: a base that is mapped when it is loaded, and the changes since.

A change says which classes are new or different, and which labels are gone; see `fewshot.images.parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load

from fewshot.classifiers.changes import after_classes, classes_since
from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.live import LiveModel
from fewshot.classifiers.summary import Summary
from fewshot.images import kept_rows
from fewshot.images.class_changes import BASE, change_to_arrays, changes_in, gone_in, name_of
from fewshot.images.parts import Parts, Segment
from fewshot.images.support import Support
from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics
from fewshot.persistence.arrays import map_arrays, write_streamed
from fewshot.persistence.artifact import Part, Versions
from fewshot.persistence.content import labels_from_arrays, labels_to_arrays
from fewshot.search.similarity import PART
from fewshot.utils.values import TOO_LARGE

#: From this many bytes of class sums on, a model is saved in segments. The base must not be overwritten while mapped.
LARGE = 8 * 2**20


@dataclass(frozen=True, eq=False)
class Segments(Parts):
    """What holds a model, or the rows of one: the base, changes in files, and changes in the manifest."""

    def extended(self, model: LiveModel) -> tuple[Segments, dict[str, Part]]:
        """Return the segments of a later model and their files, of which at most one has to be written."""

        def since(old: LiveModel) -> dict[str, NDArray[Any]] | None:
            if (change := classes_since(model, old)) is None:
                return None
            gone, part = change
            if not gone and not len(part.classes):
                return {}
            rows = part.n_support, part.statistics.count.numpy(), part.statistics.sums["x"].numpy()
            return change_to_arrays(gone, part.classes, *rows)

        base = Segment(model.bare(), _bytes_of(model))
        return self.with_state(base, since, partial(_write_base, model=model), BASE, name_of)

    @classmethod
    def read(cls, manifest: Mapping[str, Any], paths: Mapping[str, Path], learner: Learner) -> Self:
        """Return the segments in a manifest and its files, which are verified but not trusted.

        Raises
        ------
        ValueError
            If they do not hold a model of this learner.
        """
        if not learner.means_are_keys:
            raise ValueError(f"{learner.name} does not keep its memory in segments")
        base = _checked(map_arrays(paths[BASE]))
        model = LiveModel.of(learner, base.classes, base.n_support, base.statistics)
        held = [Segment(model, _bytes_of(model))]
        for raw, is_inline in changes_in(manifest, paths):
            arrays = load(raw)
            gone, part = labels_from_arrays(gone_in(arrays)).tolist(), _checked(arrays)
            if len(part.classes) and isinstance(part.classes[0], str) != isinstance(base.classes[0], str):
                raise ValueError("its labels mix text and numbers")
            model = after_classes(model, gone, part)
            held.append(Segment(model, len(raw), raw if is_inline else None))
        if [model.n_classes, model.n_rows] != [manifest["classes"]["n"], manifest["n_support"]] or not model.n_classes:
            raise ValueError(f"its memory has {model.n_classes} classes of {model.n_rows} items, unlike its manifest")
        return cls(tuple(held))

    @property
    def model(self) -> LiveModel:
        """The model that they hold, to be answered with."""
        return self.all[-1].model.bare()


@dataclass(frozen=True, eq=False)
class Held:
    """What folders hold that a model was loaded from or saved to, keyed by their full paths.

    Attributes
    ----------
    versions : dict of str to str
        The version.
    segments : dict of str to Segments
        The files of the memory, empty if it is one file.
    rows : dict of str to dict of str to Segments
        The files of the support, and of a memory that keeps it, by name.
    """

    versions: Versions = field(default_factory=dict)
    segments: Mapping[str, Segments] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Segments]] = field(default_factory=dict)

    def joined(self, later: Held) -> Held:
        """Return what both say; `later` counts where they differ."""
        return Held(
            {**self.versions, **later.versions}, {**self.segments, **later.segments}, {**self.rows, **later.rows}
        )


def is_large(model: FittedModel) -> bool:
    """Whether a model is saved in segments; the learner of one that knows more than class sums keeps its support."""
    return isinstance(model, LiveModel) and model.is_summed and _bytes_of(model) > LARGE


def _bytes_of(model: LiveModel) -> int:
    """Return the bytes of the class sums."""
    return 8 * model.n_classes * model.d


def _write_base(path: Path, model: LiveModel) -> None:
    labels, order = model.known.places.ordered()
    n_support, count = model.known.n_support.rows(order), model.known.count.rows(order)
    sums = (model.known.sums.rows(order[start : start + PART]) for start in range(0, len(order), PART))
    arrays: dict[str, Any] = {
        "sums": (np.float64, (model.n_classes, model.d), sums),
        "count": (np.float64, count.shape, [count]),
        "n_support": (np.int64, n_support.shape, [n_support]),
    }
    for name, value in labels_to_arrays(labels).items():
        arrays[name] = (value.dtype.type, value.shape, [value])
    write_streamed(path, arrays)


def check_sorted(classes: NDArray[Any]) -> None:
    """Raise ValueError unless labels are sorted, each once."""
    if len(classes) > 1 and not (classes[:-1] < classes[1:]).all():
        raise ValueError("its classes must be sorted labels without repeats")


def large_support_in_parts(kept: Segments, support: Support) -> tuple[Segments, dict[str, Part]] | None:
    """Return the segments of the support of a model, and their files; None if it is small."""
    return None if support.size <= LARGE else kept_rows.support_in_parts(kept, support)


def segments_of(states: list[tuple[Any, int, bytes | None]]) -> Segments:
    """Return the segments that were read."""
    return Segments(tuple(Segment(*one) for one in states))


def _checked(arrays: Mapping[str, NDArray[Any]]) -> Summary:
    """Return the classes in a file; raise ValueError unless their statistics are possible."""
    classes = labels_from_arrays(arrays)
    n_support, count, sums = (arrays[name] for name in ("n_support", "count", "sums"))
    n = len(classes)
    check_sorted(classes)
    if n_support.dtype != np.int64 or n_support.shape != (n,) or n_support.min(initial=0) < 0:
        raise ValueError(f"its n_support must be a count for each of {n} classes")
    if count.dtype != np.float64 or count.shape != (n,) or not np.allclose(count, n_support, rtol=1e-6, atol=1e-6):
        raise ValueError("its counts must be those of n_support")
    if sums.dtype != np.float64 or sums.ndim != 2 or len(sums) != n or not sums.shape[1]:
        raise ValueError(f"its sums are {sums.dtype} {sums.shape}; expected one for each of {n} classes")
    for rows in (slice(start, start + PART) for start in range(0, n, PART)):  # without a copy of all
        part, most = sums[rows], TOO_LARGE * np.maximum(count[rows], 1)
        is_small = part.max() <= TOO_LARGE and part.min() >= -TOO_LARGE  # NaN fails, too
        if not is_small and not (np.abs(part).max(1) <= most).all():
            raise ValueError("its sums are not finite, or overflow when squared")
    tensors = torch.from_numpy(count), {"x": torch.from_numpy(sums)}
    return Summary(classes, n_support, Statistics(n, *tensors))
