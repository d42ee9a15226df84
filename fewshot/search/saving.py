"""Segments as a folder: the keys of the base, what has changed since, and a cache of FAISS's."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import Part, Versions, read_artifact, stamp, write_artifact
from fewshot.persistence.content import is_number, is_whole, of_file
from fewshot.persistence.label_json import labels_from_json, labels_to_json
from fewshot.persistence.tensors import named_in_unicode, read_tensors, write_tensors
from fewshot.search.approximate import Approximate, Choice, faiss_module
from fewshot.search.lists import check_lists
from fewshot.search.similarity import METRICS
from fewshot.search.snapshot import INDEXES, PART, KeySnapshot
from fewshot.search.state import Base, State
from fewshot.search.writer import Segments
from fewshot.utils.checks import TOO_LARGE

KEYS, CHANGES, LISTS = "keys", "changes", "lists.faiss"
#: Bytes of keys beyond which the file is mapped; then it must not be cut off or written over while it is searched.
MAPPED = 8 * 2**20
#: What takes long to build.
KEPT = ("ivf", "hnsw")


def save(state: State | None, content: Mapping[str, Any], folder: str | Path, known: Versions) -> Versions:
    """Write what was there at one moment, and `content`; writers and readers may go on meanwhile.

    The keys of the base are only written where the folder has not got them. See `write_artifact` for what is known.
    """
    parts: dict[str, Part] = {}
    caches: dict[str, Part] = {}
    content = dict(content)
    if state is not None:
        keys, digest = state.base.keys, state.base.digest
        parts[KEYS] = (digest, partial(write_tensors, tensors={"keys": keys.keys}))
        changes = {"raw": state.raw, "dead_base": state.dead_base, "dead_delta": state.dead_delta}
        content |= {"base": labels_to_json(state.base.labels), "delta": labels_to_json(state.labels)}
        if (built := keys.built) is not None and built.choice.kind in KEPT:
            content["cache"] = {"choice": vars(built.choice), "faiss": faiss_module().__version__}
            about = f"{digest} {keys.metric} {content['cache']}"
            caches[LISTS] = (hashlib.sha256(about.encode()).hexdigest(), built.write)
            changes |= keys.frame
        parts[CHANGES] = (None, partial(write_tensors, tensors=changes))
    return write_artifact(folder, "index", content, parts, caches, known)


def load(folder: str | Path, cache: bool) -> tuple[dict[str, Any], Segments | None]:
    """Return what `save` wrote; where `cache` is false, no file of FAISS is opened.

    Raises
    ------
    ArtifactError
        If there is none, it is damaged, or holds what no index has, whoever wrote it.
    """
    while True:
        before = stamp(folder)
        manifest, paths = read_artifact(folder, "index")
        try:
            with of_file(folder, "restore it from a copy, or save again"):
                _check_settings(manifest, paths)
                return manifest, _rebuild(manifest, paths, cache) if KEYS in paths else None
        except (OSError, ArtifactError):
            if stamp(folder) == before and all(path.exists() for path in paths.values()):
                raise
            # Replaced between verifying and opening; where a file is really missing, verifying says so.


def _rebuild(manifest: dict[str, Any], paths: dict[str, Path], cache: bool) -> Segments:
    is_large = paths[KEYS].stat().st_size > MAPPED
    if is_large:
        with named_in_unicode(paths[KEYS]) as name:
            held = load_file(name)
    else:
        held = read_tensors(paths[KEYS])[0]
    changes, _ = read_tensors(paths[CHANGES])
    if held.keys() != {"keys"} or not changes.keys() >= {"raw", "dead_base", "dead_delta"}:
        raise ValueError(f"its tensors are {', '.join([*held, *changes]):.200}")
    labels, delta = labels_from_json(manifest["base"]), labels_from_json(manifest["delta"])
    _check_keys(held["keys"], labels, changes["dead_base"])
    _check_keys(changes["raw"], delta, changes["dead_delta"])
    if changes["raw"].shape[1] != held["keys"].shape[1]:
        raise ValueError("its keys are not all of one length")
    if len(labels) and len(delta) and _kind(labels) != _kind(delta):
        raise ValueError(f"its labels are of two kinds, {labels.dtype} and {delta.dtype}")
    snapshot = KeySnapshot(held["keys"], manifest["metric"], manifest["index"], manifest["recall"])
    if cache and LISTS in paths:
        _adopt(snapshot, manifest.get("cache"), paths[LISTS], changes)
    segments = Segments(Base(snapshot, labels))
    segments.restore(changes["raw"], delta, changes["dead_base"], changes["dead_delta"])
    return segments


def _adopt(snapshot: KeySnapshot, about: Any, path: Path, frame: dict[str, Tensor]) -> None:
    """Take what FAISS has built, where it is of this version and of these keys; else it is built again."""
    (n, d), is_product = snapshot.keys.shape, snapshot.metric == "dot"
    try:
        choice = _checked_choice(about, n)
        if about["faiss"] != faiss_module().__version__ or not _is_frame(frame, snapshot):
            return
        check = partial(check_lists, kind=choice.kind, is_product=is_product, n=n, d=d, n_lists=choice.n_lists)
        snapshot.adopt(Approximate.open(path, choice, check, path.stat().st_size > MAPPED), frame)
    except (KeyError, TypeError, ValueError):
        return
    except RuntimeError:  # of FAISS
        if not path.exists():
            raise FileNotFoundError(path) from None


def _checked_choice(about: Any, n: int) -> Choice:
    choice = Choice(**about["choice"])
    counts = is_whole(choice.n_lists, 0, n) and is_whole(choice.effort, 1, 1 << 20)
    if choice.kind not in KEPT or not counts or not is_number(choice.recall, 0, 1) or not is_number(choice.seconds, 0):
        raise ValueError("no choice that is kept")
    return choice


def _is_frame(frame: dict[str, Tensor], snapshot: KeySnapshot) -> bool:
    """Whether tensors can be the `KeySnapshot.frame` of some keys."""
    d, is_euclidean = snapshot.keys.shape[1], snapshot.metric == "sqeuclidean"
    return (
        ("offset" in frame) == is_euclidean
        and (not is_euclidean or _is_finite(frame["offset"], (1, d)))
        and _is_finite(frame["centre"], *([(d,)] if snapshot.metric == "cosine" else [(), (1,)]))
        and _is_finite(frame["scale"], ())
        and float(frame["scale"]) >= 1
    )


def _is_finite(x: Tensor, *shapes: tuple[int, ...]) -> bool:
    return x.is_floating_point() and tuple(x.shape) in shapes and bool((x.abs() <= TOO_LARGE).all())


def _check_settings(manifest: Mapping[str, Any], parts: Collection[str]) -> None:
    if len({"base" in manifest, "delta" in manifest, KEYS in parts, CHANGES in parts}) != 1:
        raise ValueError("it has keys without labels, or labels without keys")
    for name, ok in (
        ("metric", manifest["metric"] in METRICS),
        ("index", manifest["index"] in INDEXES),
        ("recall", is_number(manifest["recall"], 0, 1) and manifest["recall"] > 0),
        ("next", is_whole(manifest["next"], 0, 2**62)),
    ):
        if not ok:
            raise ValueError(f"its {name} is {manifest[name]!r:.60}")


def _check_keys(keys: Tensor, labels: NDArray[Any], dead: Tensor) -> None:
    """Refuse keys that are not finite numbers (n, d), each with a label and a mark whether it is dead."""
    if keys.dtype not in (torch.float32, torch.float64) or keys.ndim != 2:
        raise ValueError(f"its keys are {keys.dtype} {tuple(keys.shape)}; expected float32 or float64, (n, d)")
    if labels.shape != (len(keys),) or dead.shape != (len(keys),) or dead.dtype != torch.bool:
        raise ValueError(f"it has {len(keys)} keys, {len(labels)} labels and marks {dead.dtype} {tuple(dead.shape)}")
    if not all((part.abs() <= TOO_LARGE).all() for part in keys.split(PART)):
        raise ValueError(f"its keys must be finite, up to {TOO_LARGE:.0e}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("its labels must be finite")


def _kind(labels: NDArray[Any]) -> str:
    return {"U": "text", "O": "text", "b": "truth values"}.get(labels.dtype.kind, "numbers")
