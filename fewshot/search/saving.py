"""A saved index: a folder with the keys of the base, the changes since, and FAISS's index as a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from fewshot.persistence.arrays import unicode_name
from fewshot.persistence.artifact import Part, Versions, load_artifact, write_artifact
from fewshot.persistence.content import is_number, is_whole, labels_from_json, labels_to_json
from fewshot.persistence.tensors import read_tensors, write_tensors
from fewshot.search.approximate import Approximate, Choice, faiss_module
from fewshot.search.faiss_file import check_faiss_file
from fewshot.search.packing import FACTOR, PRECISIONS, unpacked, width
from fewshot.search.similarity import METRICS, PART
from fewshot.search.snapshot import INDEXES, FaissSnapshot, take_snapshot
from fewshot.search.state import Base, State
from fewshot.utils.values import TOO_LARGE

KEYS, CHANGES, LISTS = "keys", "changes", "lists.faiss"
#: Files of more bytes are mapped instead of read; they must not be truncated or overwritten while they are searched.
MAPPED = 8 * 2**20
#: The kinds of index that take long to build, and are saved.
KEPT = ("ivf", "hnsw")


def save_index(
    state: State | None,
    content: Mapping[str, Any],
    folder: str | Path,
    known: Versions,
    kind: str = "index",
    more: Mapping[str, Part] | None = None,
) -> Versions:
    """Write a state, `content` and `more` files, not the keys of the base if the folder has them; see `write_artifact`.

    What is saved may be of another `kind` that has an index.
    """
    parts: dict[str, Part] = dict(more or {})
    caches: dict[str, Part] = {}
    content = dict(content)
    if state is not None:
        snapshot, digest = state.base.snapshot, state.base.digest
        parts[KEYS] = (digest, partial(write_tensors, tensors={"keys": snapshot.keys}))
        changes = {"raw": state.raw, "dead_base": state.dead_base, "dead_delta": state.dead_delta}
        content |= {"base": labels_to_json(state.base.labels), "delta": labels_to_json(state.labels)}
        if isinstance(snapshot, FaissSnapshot) and (built := snapshot.built) is not None and built.choice.kind in KEPT:
            content["cache"] = {"choice": vars(built.choice), "faiss": faiss_module().__version__}
            about = f"{digest} {snapshot.metric} {content['cache']}"
            caches[LISTS] = (hashlib.sha256(about.encode()).hexdigest(), built.write)
            changes |= snapshot.frame
        parts[CHANGES] = (None, partial(write_tensors, tensors=changes))
    return write_artifact(folder, kind, content, parts, caches, known)


def load_index(
    folder: str | Path, cache: bool, kind: str = "index", also: Callable[..., Any] = lambda *_: None
) -> tuple[dict[str, Any], State | None, Any]:
    """Return content and state that `save_index` wrote; no file of FAISS is opened unless `cache`.

    The third result is ``also(manifest, paths, state)``, which reads the other files.

    Raises
    ------
    ArtifactError
        If the folder holds nothing of this kind, or something that is damaged or invalid.
    """

    def build(manifest: dict[str, Any], paths: dict[str, Path]) -> tuple[dict[str, Any], State | None, Any]:
        manifest = {"keys": "full", **manifest}  # older versions knew no other precision
        _check_settings(manifest, paths)
        state = _rebuild(manifest, paths, cache) if KEYS in paths else None
        return manifest, state, also(manifest, paths, state)

    return load_artifact(folder, kind, build)


def _rebuild(manifest: dict[str, Any], paths: dict[str, Path], cache: bool) -> State:
    is_large = paths[KEYS].stat().st_size > MAPPED
    if is_large:
        with unicode_name(paths[KEYS]) as name:
            held = load_file(name)
    else:
        held = read_tensors(paths[KEYS])[0]
    changes, _ = read_tensors(paths[CHANGES])
    if held.keys() != {"keys"} or not changes.keys() >= {"raw", "dead_base", "dead_delta"}:
        raise ValueError(f"its tensors are {', '.join([*held, *changes]):.200}")
    labels, delta = labels_from_json(manifest["base"]), labels_from_json(manifest["delta"])
    _check_keys(held["keys"], labels, changes["dead_base"], manifest["keys"])
    _check_keys(changes["raw"], delta, changes["dead_delta"], manifest["keys"])
    if changes["raw"].shape[1] != held["keys"].shape[1]:
        raise ValueError("its keys have different lengths")
    if len(delta) and not len(labels):
        raise ValueError("it changes keys that it does not have")
    if len(labels) and len(delta) and _kind(labels) != _kind(delta):
        raise ValueError(f"its labels mix {labels.dtype} and {delta.dtype}")
    snapshot = take_snapshot(held["keys"], manifest["metric"], manifest["index"], manifest["recall"])
    if cache and LISTS in paths and isinstance(snapshot, FaissSnapshot):
        _adopt(snapshot, manifest.get("cache"), paths[LISTS], changes)
    state = State.of(Base(snapshot, labels)).with_keys(changes["raw"], delta)
    return state.with_dead(changes["dead_base"], changes["dead_delta"])


def _adopt(snapshot: FaissSnapshot, about: Any, path: Path, frame: dict[str, Tensor]) -> None:
    """Take over FAISS's index if it is of this version and of these keys; otherwise it is built again."""
    n, d, is_product = len(snapshot.keys), width(snapshot.keys), snapshot.metric == "dot"
    try:
        choice = _checked_choice(about, n)
        if about["faiss"] != faiss_module().__version__ or not _is_frame(frame, snapshot):
            return
        d = frame["axes"].shape[1] if "axes" in frame else d
        check = partial(check_faiss_file, kind=choice.kind, is_product=is_product, n=n, d=d, n_lists=choice.n_lists)
        snapshot.adopt(Approximate.open(path, choice, check, path.stat().st_size > MAPPED), frame)
    except (KeyError, TypeError, ValueError):
        return
    except RuntimeError:  # from FAISS
        if not path.exists():
            raise FileNotFoundError(path) from None


def _checked_choice(about: Any, n: int) -> Choice:
    choice = Choice(**{**about["choice"], "efforts": tuple(map(tuple, about["choice"]["efforts"]))})
    if not choice.efforts or not all(len(x) == 3 and all(is_whole(y, 1, 1 << 20) for y in x) for x in choice.efforts):
        raise ValueError("not efforts that were tuned")
    counts = is_whole(choice.n_lists, 0, n) and is_whole(choice.effort, 1, 1 << 20)
    counts = counts and is_whole(choice.n_keys, 1, n) and is_whole(choice.glance, 0, choice.effort)
    counts = counts and is_number(choice.sure, -np.inf)
    if choice.kind not in KEPT or not counts or not is_number(choice.recall, 0, 1) or not is_number(choice.seconds, 0):
        raise ValueError("not a saved kind of index")
    return choice


def _is_frame(frame: dict[str, Tensor], snapshot: FaissSnapshot) -> bool:
    """Whether tensors can be the `FaissSnapshot.frame` of these keys."""
    d, is_euclidean = width(snapshot.keys), snapshot.metric == "sqeuclidean"
    return (
        ("axes" not in frame or (frame["axes"].ndim == 2 and _is_finite(frame["axes"], (d, frame["axes"].shape[1]))))
        and ("offset" in frame) == is_euclidean
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
        ("keys", manifest["keys"] in PRECISIONS),
        ("next", is_whole(manifest["next"], 0, 2**62)),
    ):
        if not ok:
            raise ValueError(f"its {name} is {manifest[name]!r:.60}")


def _check_keys(keys: Tensor, labels: NDArray[Any], dead: Tensor, precision: str) -> None:
    """Raise unless keys are finite numbers (n, d), each with a label and a mark whether it is dead."""
    expected = {"float16": (torch.float16,), "int8": (torch.int8,)}.get(precision, (torch.float32, torch.float64))
    if keys.dtype not in expected or keys.ndim != 2 or (precision == "int8" and keys.shape[1] < FACTOR):
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in expected)
        raise ValueError(f"its keys are {keys.dtype} {tuple(keys.shape)}; expected {names}, (n, d)")
    if labels.shape != (len(keys),) or dead.shape != (len(keys),) or dead.dtype != torch.bool:
        raise ValueError(f"it has {len(keys)} keys, {len(labels)} labels and {dead.dtype} marks {tuple(dead.shape)}")
    if not all((unpacked(part).abs() <= TOO_LARGE).all() for part in keys.split(PART)):
        raise ValueError(f"its keys must be finite, up to {TOO_LARGE:.0e}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("its labels must be finite")


def _kind(labels: NDArray[Any]) -> str:
    return {"U": "text", "O": "text", "b": "booleans"}.get(labels.dtype.kind, "numbers")
