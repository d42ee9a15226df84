"""Segments as a folder: the keys of the base, which are mapped and not read, what has changed since, and a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from fewshot.approximate import Approximate, Choice, faiss_module
from fewshot.artifact import Part, read_artifact, stamp, write_artifact
from fewshot.labels import labels_from_json, labels_to_json
from fewshot.segments.state import Base, State
from fewshot.segments.writer import Segments
from fewshot.snapshot import KeySnapshot
from fewshot.stored import write_tensors

KEYS, CHANGES, LISTS = "keys", "changes", "lists.faiss"
#: What takes long to build.
KEPT = ("ivf", "hnsw")


def save(state: State | None, content: Mapping[str, Any], folder: str | Path) -> None:
    """Write what was there at one moment, and `content`; writers and readers may go on meanwhile.

    The keys of the base are only written where the folder has not got them.
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
    write_artifact(folder, "index", content, parts, caches)


def load(folder: str | Path, cache: bool) -> tuple[dict[str, Any], Segments | None]:
    """Return what `save` wrote; where `cache` is false, no file of FAISS is opened."""
    while True:
        before = stamp(folder)
        manifest, paths = read_artifact(folder, "index")
        try:
            return manifest, _rebuild(manifest, paths, cache) if KEYS in paths else None
        except (OSError, RuntimeError, ValueError):  # safetensors raises RuntimeError for a file gone
            if stamp(folder) == before and all(path.exists() for path in paths.values()):
                raise
            # Replaced between verifying and opening; where a file is really missing, verifying says so.


def _rebuild(manifest: dict[str, Any], paths: dict[str, Path], cache: bool) -> Segments:
    keys, changes = load_file(paths[KEYS])["keys"], load_file(paths[CHANGES])
    snapshot = KeySnapshot(keys, manifest["metric"], manifest["index"], manifest["recall"])
    about = manifest.get("cache", {})
    if cache and LISTS in paths and about["faiss"] == faiss_module().__version__:
        try:
            snapshot.adopt(Approximate.open(paths[LISTS], Choice(**about["choice"])), changes)
        except RuntimeError:  # of FAISS
            if not paths[LISTS].exists():
                raise FileNotFoundError(paths[LISTS]) from None
    segments = Segments(Base(snapshot, labels_from_json(manifest["base"])))
    segments.restore(changes["raw"], labels_from_json(manifest["delta"]), changes["dead_base"], changes["dead_delta"])
    return segments
