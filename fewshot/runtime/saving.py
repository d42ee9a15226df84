"""An export as a folder: encoder, preprocessing, memory, and a manifest that is written last."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.artifact import Part, read_artifact, write_artifact
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ArtifactError
from fewshot.files import digest
from fewshot.labels import labels_from_json, labels_to_json
from fewshot.runtime.memory import Memory

#: Names of the data files; a part of each one's digest is put into its name on disk.
ENCODER, PREPROCESS, MEMORY = "encoder.onnx", "preprocess.json", "memory.npz"
#: What `write_artifact` says in a manifest by itself, and what describes the memory.
_NOT_FACTS = ("format", "version", "kind", "files", "caches", "digest", "classes", "n_support", "forgotten")


def write(
    folder: str | Path, encoder: Path, preprocessing: Preprocessing, memory: Memory, facts: dict[str, Any]
) -> None:
    """Write an export, or replace the one that is there; see `RuntimeClassifier.save`.

    Parameters
    ----------
    folder : path
        Where to.
    encoder : path
        The ONNX file.
    preprocessing : Preprocessing
        How images are prepared for it.
    memory : Memory
        What was learned.
    facts : dict
        What else the manifest says.
    """
    content = {
        **facts,
        "classes": labels_to_json(memory.classes),
        "n_support": memory.n_support.tolist(),
        "forgotten": list(map(list, memory.forgotten.items())),
    }
    parts: dict[str, Part] = {
        ENCODER: (facts["encoder"], partial(_copy, encoder, facts["encoder"])),
        PREPROCESS: (None, lambda path: path.write_bytes(preprocessing_bytes(preprocessing))),
        MEMORY: (None, partial(_write_memory, memory)),
    }
    write_artifact(folder, "export", content, parts, caches={})


def read(folder: str | Path) -> tuple[Path, Preprocessing, Memory, dict[str, Any]]:
    """Return what `write` was given, verified.

    Raises
    ------
    ArtifactError
        If the folder is no export, is damaged, or was written by a newer version.
    """
    while True:
        manifest, paths = read_artifact(folder, "export")
        try:
            preprocessing = Preprocessing.from_dict(json.loads(paths[PREPROCESS].read_bytes()))
            with np.load(paths[MEMORY], allow_pickle=False) as arrays:
                classes, forgotten = labels_from_json(manifest["classes"]), dict(manifest.get("forgotten", []))
                memory = Memory.from_arrays(dict(arrays), classes, manifest["n_support"], forgotten)
        except FileNotFoundError:  # replaced between verifying and reading
            continue
        facts = {name: value for name, value in manifest.items() if name not in _NOT_FACTS}
        return paths[ENCODER], preprocessing, memory, facts


def preprocessing_bytes(preprocessing: Preprocessing) -> bytes:
    """Return what is written of the preprocessing, which a fingerprint can be made of."""
    return json.dumps(preprocessing.to_dict(), sort_keys=True).encode()


def _copy(encoder: Path, expected: str, path: Path) -> None:
    if not encoder.exists():
        raise ArtifactError(f"{encoder}, which this classifier was loaded with, has gone; load it again, then save")
    shutil.copyfile(encoder, path)
    if digest(path) != expected:
        raise ArtifactError(f"{encoder} has changed since it was loaded; restore it from a copy, or export again")


def _write_memory(memory: Memory, path: Path) -> None:
    with path.open("wb") as file:  # given a path, numpy would put its own suffix behind
        np.savez(file, **memory.to_arrays())  # type: ignore[arg-type]
