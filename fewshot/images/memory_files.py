"""The memory of a saved model in files: those that are written, as small as its kind allows, and what is read.

Class sums of a large model are in `segments`, rows of one that changes class by class in `row_segments`, the rows of
any other in `kept_rows`; what is small is one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.kinds import model_type
from fewshot.classifiers.live import LiveModel
from fewshot.images import segments
from fewshot.images.class_changes import is_segmented
from fewshot.images.kept_rows import MEMORY, MemoryRows, classes_from, classes_to_json, is_kept_in_parts, read_memory
from fewshot.images.row_segments import keeps_many_rows, read_rows, rows_in_segments
from fewshot.images.segments import Segments, is_large, segments_of
from fewshot.images.statistics_file import read_statistics, statistics_to_tensors
from fewshot.learners.base import Learner
from fewshot.persistence.artifact import Part
from fewshot.persistence.manifest import FORMAT
from fewshot.persistence.tensors import read_tensors, write_tensors


@dataclass(frozen=True, eq=False)
class MemoryFiles:
    """The memory of a model as it is written.

    Attributes
    ----------
    content : dict
        What the manifest says of it.
    parts : dict of str to Part
        The files that hold it, but for those of `rows`.
    sums : Segments
        The segments of its class sums, if it is saved so.
    rows : (Segments, dict of str to Part) or None
        The segments of its rows and their files, if it is saved so.
    """

    content: dict[str, Any]
    parts: dict[str, Part] = field(default_factory=dict)
    sums: Segments = field(default_factory=Segments)
    rows: tuple[Segments, dict[str, Part]] | None = None

    @classmethod
    def of(cls, model: FittedModel, sums: Segments, rows: Segments) -> MemoryFiles:
        """Return what has to be written of a model, given the segments that its folder holds."""
        if isinstance(model, LiveModel) and is_large(model):
            now, parts = sums.extended(model)
            return cls({"format": FORMAT, **_counts(model), "changes": now.inline}, parts, now)
        if keeps_many_rows(model):
            return cls(_counts(model), rows=rows_in_segments(rows, model))
        found = _in_parts(rows, model)
        content: dict[str, Any] = classes_to_json(model.classes, model.n_support, found is not None)
        if found is not None:
            return cls(content, rows=found)
        return cls(content, {MEMORY: (None, partial(write_tensors, tensors=statistics_to_tensors(model.statistics)))})


def _counts(model: FittedModel) -> dict[str, Any]:
    return {"classes": {"n": model.n_classes}, "n_support": model.n_rows}


def _in_parts(kept: Segments, model: FittedModel) -> tuple[Segments, dict[str, Part]] | None:
    """Return the segments of the support that a learner keeps, and their files; None if it is small, or has weights."""
    if (found := model.kept_support) is None or (found.weight != 1).any():
        return None
    rows = MemoryRows(found.blocks, found.codes, model.classes, found.rows)
    if rows.size <= segments.LARGE or not np.array_equal(rows.counts(model.n_classes), model.n_support):
        return None
    if any(isinstance(one.model, LiveModel) for one in kept.all):
        kept = Segments()
    kept = Segments(tuple(replace(one, model=one.model.bare()) for one in kept.all))  # without what was read
    return rows.in_parts(kept, rows.classes, rows.bare())


def read_learned(
    manifest: dict[str, Any], paths: Mapping[str, Path], learner: Learner
) -> tuple[FittedModel, Segments, dict[str, Segments]]:
    """Return what was learned, and the files that hold it and its rows; nothing of them is trusted.

    Raises
    ------
    ValueError
        If they do not hold a model of this learner.
    """
    if is_segmented(manifest):
        sums = Segments.read(manifest, paths, learner)
        return sums.model, sums, {}
    has_parts = is_kept_in_parts(manifest, MEMORY)
    is_counted = has_parts and "values" not in manifest["classes"]
    if is_counted and (live := read_rows(manifest, paths, learner)) is not None:
        return live.model, Segments(), {MEMORY: live}
    rows, last = dict[str, Segments](), None
    if has_parts:
        states, last = read_memory(manifest, paths)
        rows[MEMORY] = segments_of(states)
    classes, n_support = classes_from(manifest, last)
    if last is not None:
        tensors = {name: torch.from_numpy(x) for name, x in last.to_memory(classes).items()}
    else:
        tensors = read_tensors(paths[MEMORY])[0]
    statistics = read_statistics(tensors, learner, n_support)
    model = model_type(learner, len(classes), int(n_support.sum())).of(learner, classes, n_support, statistics)
    if not torch.isfinite(model.memory.keys).all():
        raise ValueError("its memory gives keys that are not finite")
    return model, Segments(), rows
