"""Tensors on disk: safetensors files, which hold no code, with a digest of their content."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from fewshot.persistence.files import open_regular, read_regular
from fewshot.utils.text import as_unicode

#: Metadata key of the SHA-256 of the tensors and the other metadata.
DIGEST = "sha256"
#: Size of the length of the header, which comes first in the file.
_PREFIX = 8


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and their digest to a safetensors file; equal content gives equal files.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path, whole = Path(path), {name: value.contiguous() for name, value in tensors.items()}
    notes = dict(metadata or {})
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(whole, path, {**notes, DIGEST: tensors_digest(whole, notes)})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    path.chmod(mode)  # safetensors creates a new file that only its owner may read
    with path.open("r+b") as file:
        _sort_metadata(file)


def read_tensors(path: str | Path, *, follow: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file into memory, check its digest, and return its tensors and metadata.

    Nothing stays mapped, so the file may be changed or truncated afterwards. Files of other libraries, and of older
    versions of this one, have no digest and are not checked.

    Parameters
    ----------
    path : path
        The file.
    follow : bool, default=True
        Whether it may be a symbolic link.

    Raises
    ------
    ValueError
        If it is not a complete safetensors file, or its digest does not match.
    OSError
        If it is not a regular file, or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/x.safetensors"
    >>> write_tensors(path, {"x": torch.ones(2)}, {"made": "here"})
    >>> read_tensors(path)
    ({'x': tensor([1., 1.])}, {'made': 'here'})
    """
    data = read_regular(path, sys.maxsize, follow=follow)
    try:
        tensors = load(data)
        size = int.from_bytes(data[:_PREFIX], "little")
        notes: dict[str, str] = json.loads(data[_PREFIX : _PREFIX + size]).get("__metadata__") or {}
    # Readers report damage by almost any exception, including RecursionError and MemoryError.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a complete file of weights or tensors (safetensors): {reason:.200}") from error
    expected = notes.pop(DIGEST, None)
    if expected is not None and expected != tensors_digest(tensors, notes):
        raise ValueError(f"{path} is damaged: its SHA-256 does not match; restore it from a copy, or write it again")
    return tensors, notes


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file without reading its tensors or checking its digest.

    Raises
    ------
    ValueError
        If it is not a safetensors file.
    """
    try:
        open_regular(path, follow=True).close()  # safetensors would wait for a pipe
        with unicode_name(path) as name, safe_open(name, framework="pt") as opened:
            notes: dict[str, str] = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete file of weights: {error}") from error
    notes.pop(DIGEST, None)
    return notes


@contextmanager
def unicode_name(path: str | Path) -> Iterator[str]:
    """Yield a name by which safetensors can open a file: it accepts only UTF-8 paths."""
    name = os.fspath(path)
    if name == as_unicode(name):
        yield name
        return
    with open(name, "rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def tensors_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of named tensors and metadata.

    Examples
    --------
    >>> tensors_digest({"x": torch.ones(2)}, {}) == tensors_digest({"x": torch.ones(2)}, {"made": "here"})
    False
    """
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"\n{json.dumps(name)} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():  # an empty one may have a stride of 0
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _sort_metadata(file: BinaryIO) -> None:
    """Sort the metadata, which safetensors writes in an order that changes from run to run."""
    size = int.from_bytes(file.read(_PREFIX), "little")
    header = json.loads(file.read(size))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    if len(ordered) <= size:  # otherwise Python writes an escape differently, and the file is left unsorted
        file.seek(_PREFIX)
        file.write(ordered.ljust(size))
