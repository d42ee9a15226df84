"""The memory of a large model on disk: a base that is mapped when it is loaded, and the changes since.

A change says which classes are new or different, and which labels are gone. It replaces earlier changes that are no
larger, so that there are few. Small ones are in the manifest, others in files. Once a change would be an eighth of the
base, there is a new base.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.live import LiveModel
from fewshot.classifiers.summary import Summary
from fewshot.images.kept_rows import MEMORY, OF, SUPPORT, MemoryRows, labels_named, part_name, support_since
from fewshot.images.stored import BASE, change_to_arrays, changes_in, gone_in, name_of
from fewshot.images.support import Support
from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics
from fewshot.persistence.arrays import map_arrays, write_arrays, write_streamed
from fewshot.persistence.artifact import Part, Versions
from fewshot.persistence.content import labels_from_arrays, labels_to_arrays
from fewshot.search.similarity import PART
from fewshot.utils.values import TOO_LARGE

#: From this many bytes of class sums on, a model is saved in segments. The base must not be overwritten while mapped.
LARGE = 8 * 2**20
#: A change is smaller than the base divided by this; changes of at most INLINE bytes are in the manifest, since a file
#: takes as long to write as all else together.
BASE_SHARE, INLINE = 8, 2**15


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of the memory, or of the support: the state after it, its size, and its bytes if it is in the manifest."""

    model: Any
    size: int
    inline: bytes | None = None


@dataclass(frozen=True, eq=False)
class Segments:
    """What holds a state: the base, changes in files, and changes in the manifest."""

    all: tuple[Segment, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Segments, ()  # a copy writes all files again

    @property
    def inline(self) -> list[str]:
        """The changes in the manifest."""
        return [b64encode(one.inline).decode() for one in self.all if one.inline is not None]

    def extended(self, model: LiveModel) -> tuple[Segments, dict[str, Part]]:
        """Return the segments of a later model and their files, of which at most one has to be written."""

        def since(old: LiveModel) -> dict[str, NDArray[Any]] | None:
            if (change := model.since(old)) is None:
                return None
            gone, part = change
            if not gone and not len(part.classes):
                return {}
            rows = part.n_support, part.statistics.count.numpy(), part.statistics.sums["x"].numpy()
            return change_to_arrays(gone, part.classes, *rows)

        base = Segment(model.bare(), _bytes_of(model))
        return self.with_state(base, since, partial(_write_base, model=model), BASE, name_of)

    def with_state(
        self,
        base: Segment,
        since: Callable[[Any], Mapping[str, NDArray[Any]] | None],
        write: Callable[[Path], object],
        name: str,
        named: Callable[[int], str],
    ) -> tuple[Segments, dict[str, Part]]:
        """Return the segments of a later state and their files, of which at most one has to be written.

        Parameters
        ----------
        base : Segment
            The whole state.
        since : callable
            Returns the change since an earlier state, as arrays: none if there is no change, None if it is not known.
        write : callable
            Writes the whole state to a path.
        name : str
            Name of the file of the base.
        named : callable
            Returns the name of a file of changes by its number, from 1.
        """
        held = list(self.all)
        while held:
            if (change := since(held[-1].model)) is None:
                break
            if not change:
                return Segments(tuple(held)), _files(held, name, named)
            raw = save(dict(change))
            new = Segment(base.model, len(raw), raw if len(raw) <= INLINE else None)
            if len(held) == 1 and new.size * BASE_SHARE > held[0].size:
                break
            # Files come before what is in the manifest.
            if len(held) == 1 or (held[-1].size > new.size and (held[-1].inline is None or new.inline is not None)):
                files = _files([*held, new], name, named)
                if new.inline is None:
                    files[named(len(files) - 1)] = (None, partial(_write_change, raw=raw))
                return Segments((*held, new)), files
            held.pop()
        return Segments((base,)), {name: (None, write)}

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
            model = model.after(gone, part)
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
    labels, n_support, count, sums = model.rows()
    arrays: dict[str, Any] = {
        "sums": (np.float64, (model.n_classes, model.d), sums),
        "count": (np.float64, count.shape, [count]),
        "n_support": (np.int64, n_support.shape, [n_support]),
    }
    for name, value in labels_to_arrays(labels).items():
        arrays[name] = (value.dtype.type, value.shape, [value])
    write_streamed(path, arrays)


def _write_change(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def _files(segments: list[Segment], name: str, named: Callable[[int], str]) -> dict[str, Part]:
    """Return the files of segments, all of which are there."""
    n = sum(one.inline is None for one in segments)
    return dict.fromkeys([name, *map(named, range(1, n))])


def memory_in_parts(kept: Segments, model: FittedModel) -> tuple[Segments, dict[str, Part]] | None:
    """Return the segments of the support that a learner keeps, and their files; None if it is small, or has weights."""
    if (found := model.kept_support) is None or (found.weight != 1).any():
        return None
    rows = MemoryRows(found.blocks, found.codes, model.classes, found.rows, found.is_shared)
    if rows.size <= LARGE or not np.array_equal(rows.counts(model.n_classes), model.n_support):
        return None
    kept = Segments(tuple(replace(one, model=one.model.bare()) for one in kept.all))  # without what was read
    rows.digested(kept.all[-1].model if kept.all else None)
    write = partial(_write_whole, arrays=lambda: rows.to_memory(rows.classes) | labels_named(OF, rows.classes))
    return kept.with_state(Segment(rows.bare(), rows.size), rows.since, write, MEMORY, partial(part_name, MEMORY))


def support_in_parts(kept: Segments, support: Support) -> tuple[Segments, dict[str, Part]] | None:
    """Return the segments of the support of a model, and their files; None if it is small."""
    if (size := support.size) <= LARGE:
        return None

    def whole() -> dict[str, NDArray[Any]]:
        of = np.unique(support.labels)
        return support.to_arrays(of) | labels_named(OF, of)

    since = partial(support_since, support)
    write = partial(_write_whole, arrays=whole)
    return kept.with_state(Segment(support.bare(), size), since, write, SUPPORT, partial(part_name, SUPPORT))


def segments_of(states: list[tuple[Any, int, bytes | None]]) -> Segments:
    """Return the segments that were read."""
    return Segments(tuple(Segment(*one) for one in states))


def _write_whole(path: Path, arrays: Callable[[], Mapping[str, NDArray[Any]]]) -> None:
    write_arrays(path, arrays())


def _checked(arrays: Mapping[str, NDArray[Any]]) -> Summary:
    """Return the classes in a file; raise ValueError unless their statistics are possible."""
    classes = labels_from_arrays(arrays)
    n_support, count, sums = (arrays[name] for name in ("n_support", "count", "sums"))
    n = len(classes)
    if len(classes) > 1 and not (classes[:-1] < classes[1:]).all():
        raise ValueError("its classes must be sorted labels without repeats")
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
