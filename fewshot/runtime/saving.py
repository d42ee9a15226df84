"""An export as a folder: encoder, preprocessing, memory, and a manifest that is written last."""

from __future__ import annotations

import io
import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import MANIFEST, Part, Versions, read_artifact, write_artifact
from fewshot.persistence.content import is_number, of_file, parse_json
from fewshot.persistence.files import digest, read_regular
from fewshot.persistence.label_json import labels_from_json, labels_to_json
from fewshot.runtime.encoder import CURE
from fewshot.runtime.memory import DeviceMemory
from fewshot.runtime.method import DeviceMethod, check_temperature
from fewshot.runtime.model import Model
from fewshot.utils.parameters import check_number
from fewshot.utils.unreadable import check_on_error

#: Names of the data files; a part of each one's digest is put into its name on disk.
ENCODER, PREPROCESS, MEMORY = FILES = "encoder.onnx", "preprocess.json", "memory.npz"
#: What `write_artifact` says in a manifest by itself, and what describes the memory.
_NOT_FACTS = ("format", "version", "kind", "files", "caches", "digest", "classes", "n_support", "forgotten")


def write_folder(
    folder: str | Path,
    encoder: Path,
    preprocessing: Preprocessing,
    memory: DeviceMemory,
    facts: dict[str, Any],
    known: Versions | None = None,
) -> Versions:
    """Write an export, or replace the one that is there; see `RuntimeClassifier.save`.

    Parameters
    ----------
    folder : path
        Where to.
    encoder : path
        The ONNX file.
    preprocessing : Preprocessing
        How images are prepared for it.
    memory : DeviceMemory
        What was learned.
    facts : dict
        What else the manifest says.
    known : mapping, optional
        See `write_artifact`, also for what is returned.
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
    return write_artifact(folder, "export", content, parts, {}, known)


def read_folder(folder: str | Path) -> tuple[Path, Preprocessing, Model, dict[str, Any]]:
    """Return what `write_folder` was given, verified: the encoder, its preprocessing, what answers, and the facts.

    Raises
    ------
    ArtifactError
        If the folder is no export, is damaged, holds what none does, or was written by a newer version.
    """
    while True:
        with of_file(Path(folder) / MANIFEST, CURE):
            manifest, paths = read_artifact(folder, "export")
            encoder, preprocess, rows = (paths[name] for name in FILES)
            facts = {name: value for name, value in manifest.items() if name not in _NOT_FACTS}
            _check_facts(facts)
            method, classes = DeviceMethod.from_dict(facts["method"]), labels_from_json(manifest["classes"])
            if classes.tolist() != manifest["classes"]["values"]:
                raise ValueError(f"classes are not {classes.dtype}, as it says")
            n_support, forgotten = manifest["n_support"], dict(manifest.get("forgotten", []))
        try:
            with of_file(preprocess, CURE):
                preprocessing = Preprocessing.from_dict(parse_json(read_regular(preprocess, 1 << 20)))
            with of_file(rows, CURE):
                memory = DeviceMemory.from_arrays(_read_arrays(rows), classes, n_support, forgotten)
                _check_fit(memory, method)
        except FileNotFoundError:  # replaced between verifying and reading
            continue
        return encoder, preprocessing, Model(memory, method, facts), facts


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    data = read_regular(path, 1 << 40)
    if not is_zipfile(io.BytesIO(data)):  # numpy would advise to unpickle it
        raise ValueError("it holds no arrays")
    with ZipFile(io.BytesIO(data)) as file:
        members = file.infolist()
    # As numpy writes them: nothing that grows when it is read.
    if any(m.compress_type != ZIP_STORED for m in members) or sum(m.file_size for m in members) > len(data):
        raise ValueError("its arrays are compressed, which no export's are")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def _check_facts(facts: dict[str, Any]) -> None:
    """Refuse what no export says, and what is missing."""
    for name in ("fingerprint", "encoder"):
        if not isinstance(facts[name], str):
            raise ValueError(f"{name} is {facts[name]!r}; expected text")
    check_temperature(facts["temperature"])
    if facts["threshold"] is not None:
        check_number("threshold", facts["threshold"], -math.inf)
    check_on_error(facts["on_error"])
    label = facts["unknown_label"]
    if not (label is None or isinstance(label, (bool, str)) or is_number(label)):
        raise ValueError(f"unknown_label is {facts['unknown_label']!r}; expected one label")


def _check_fit(memory: DeviceMemory, method: DeviceMethod) -> None:
    """Refuse a memory that is not of this method."""
    if memory.is_summed != method.is_summed:
        raise ValueError(f"{method.name} does not keep {', '.join(memory.to_arrays())}")
    if method.center is not None and len(method.center) != memory.x.shape[1]:
        raise ValueError(f"its rows have {memory.x.shape[1]} numbers and the center {len(method.center)}")


def preprocessing_bytes(preprocessing: Preprocessing) -> bytes:
    """Return what is written of the preprocessing, which a fingerprint can be made of."""
    return json.dumps(preprocessing.to_dict(), sort_keys=True).encode()


def _copy(encoder: Path, expected: str, path: Path) -> None:
    if not encoder.exists():
        raise ArtifactError(f"{encoder}, which this classifier was loaded with, has gone; load it again, then save")
    shutil.copyfile(encoder, path)
    if digest(path) != expected:
        raise ArtifactError(f"{encoder} has changed since it was loaded; restore it from a copy, or export again")


def _write_memory(memory: DeviceMemory, path: Path) -> None:
    with path.open("wb") as file:  # given a path, numpy would put its own suffix behind
        np.savez(file, **memory.to_arrays())  # type: ignore[arg-type]
