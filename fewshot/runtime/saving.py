"""The folder of an export: encoder, preprocessing, memory, and a manifest that is written last."""

from __future__ import annotations

import io
import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, is_zipfile

import numpy as np
from numpy.typing import NDArray

from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import Part, Versions, write_artifact
from fewshot.persistence.content import errors_of_file, is_number, json_object, labels_from_json, labels_to_json
from fewshot.persistence.files import digest, read_regular
from fewshot.persistence.manifest import MANIFEST
from fewshot.runtime.background import DeviceBackground
from fewshot.runtime.encoder import CURE
from fewshot.runtime.memory import DeviceMemory
from fewshot.runtime.method import DeviceMethod, check_temperature
from fewshot.runtime.model import DeviceModel
from fewshot.utils.values import ON_ERROR, check_name, check_number

#: Names of the data files; on disk, part of the digest is added to each name.
ENCODER, PREPROCESS, MEMORY = FILES = "encoder.onnx", "preprocess.json", "memory.npz"
#: The data file of exports that judge by familiarity.
BACKGROUND = "background.npz"
#: Entries of the manifest that `write_artifact` adds or that describe the memory.
_NOT_FACTS = ("format", "version", "kind", "files", "caches", "digest", "saved", "classes", "n_support", "forgotten")


def write_folder(
    folder: str | Path,
    encoder: Path,
    preprocessing: Preprocessing,
    memory: DeviceMemory,
    background: DeviceBackground | None,
    facts: dict[str, Any],
    known: Versions | None = None,
    note: str | None = None,
) -> Versions:
    """Write an export, or replace an existing one; see `RuntimeClassifier.save`.

    Parameters
    ----------
    folder : path
        The folder.
    encoder : path
        The ONNX file.
    preprocessing : Preprocessing
        How images become its input.
    memory : DeviceMemory
        What was learned.
    background : DeviceBackground or None
        What tells how familiar an image is.
    facts : dict
        The other entries of the manifest.
    known, note : optional
        As for `write_artifact`, which also explains the result.
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
        MEMORY: (None, partial(_write_arrays, memory.to_arrays())),
    }
    if background is not None:
        parts[BACKGROUND] = (None, partial(_write_arrays, vars(background)))
    return write_artifact(folder, "export", content, parts, {}, known, note)


def read_folder(
    folder: str | Path, manifest: dict[str, Any], paths: dict[str, Path]
) -> tuple[Path, Preprocessing, DeviceModel, dict[str, Any]]:
    """Check an export: return the path of the encoder, its preprocessing, the model, and the facts.

    Raises
    ------
    ArtifactError
        If the content is damaged or inconsistent.
    """
    with errors_of_file(Path(folder) / MANIFEST, CURE):
        encoder, preprocess, rows = (paths[name] for name in FILES)
        facts = {name: value for name, value in manifest.items() if name not in _NOT_FACTS}
        _check_facts(facts)
        method, classes = DeviceMethod.from_dict(facts["method"]), labels_from_json(manifest["classes"])
        if classes.tolist() != manifest["classes"]["values"]:
            raise ValueError(f"classes are not {classes.dtype}, as declared")
        n_support, forgotten = manifest["n_support"], dict(manifest.get("forgotten", []))
    with errors_of_file(preprocess, CURE):
        preprocessing = Preprocessing.from_dict(json_object(read_regular(preprocess, 1 << 20)))
    with errors_of_file(rows, CURE):
        memory = DeviceMemory.from_arrays(_read_arrays(rows), classes, n_support, forgotten)
        _check_fit(memory, method)
    background = None
    if isinstance(facts["threshold"], dict):
        with errors_of_file(paths.get(BACKGROUND, Path(folder) / BACKGROUND), CURE):
            background = DeviceBackground.from_arrays(_read_arrays(paths[BACKGROUND]), memory.x.shape[1])
            background.familiarity(memory, method)
    return encoder, preprocessing, DeviceModel(memory, method, facts, background), facts


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    data = read_regular(path, 1 << 40)
    if not is_zipfile(io.BytesIO(data)):  # or numpy would advise to unpickle it
        raise ValueError("it holds no arrays")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:  # reads each when asked
        members = arrays.zip.infolist()
        # numpy does not compress, so nothing here may grow when it is read.
        if any(m.compress_type != ZIP_STORED for m in members) or sum(m.file_size for m in members) > len(data):
            raise ValueError("its arrays are compressed, unlike those of any export")
        return dict(arrays)


def _check_facts(facts: dict[str, Any]) -> None:
    """Raise if a fact is missing or invalid."""
    for name in ("fingerprint", "encoder"):
        if not isinstance(facts[name], str):
            raise ValueError(f"{name} is {facts[name]!r}; expected text")
    check_temperature(facts["temperature"])
    if isinstance(threshold := facts["threshold"], dict) and threshold.keys() == {"familiarity"}:
        threshold = threshold["familiarity"]
    if threshold is not None:
        check_number("threshold", threshold, -math.inf)
    check_name("on_error", facts["on_error"], ON_ERROR)
    label = facts["unknown_label"]
    if not (label is None or isinstance(label, (bool, str)) or is_number(label)):
        raise ValueError(f"unknown_label is {facts['unknown_label']!r}; expected one label")


def _check_fit(memory: DeviceMemory, method: DeviceMethod) -> None:
    """Raise unless the method could have made the memory."""
    if memory.is_summed != method.is_summed:
        raise ValueError(f"{method.name} does not keep {', '.join(memory.to_arrays())}")
    if method.center is not None and len(method.center) != memory.x.shape[1]:
        raise ValueError(f"its rows have {memory.x.shape[1]} numbers and the center {len(method.center)}")


def preprocessing_bytes(preprocessing: Preprocessing) -> bytes:
    """Return the content of the preprocessing file, also part of the fingerprint."""
    return json.dumps(preprocessing.to_dict(), sort_keys=True).encode()


def _copy(encoder: Path, expected: str, path: Path) -> None:
    if not encoder.exists():
        raise ArtifactError(f"{encoder}, which this classifier was loaded with, is missing; load it again, then save")
    shutil.copyfile(encoder, path)
    if digest(path) != expected:
        raise ArtifactError(f"{encoder} has changed since it was loaded; restore it from a copy, or export again")


def _write_arrays(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    with path.open("wb") as file:  # given a path, numpy would append a suffix
        np.savez(file, **arrays)  # type: ignore[arg-type]
