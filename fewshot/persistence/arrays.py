"""Arrays on disk: safetensors files, which hold no code, with a digest of their content. Without torch.

`fewshot.persistence.tensors` writes and reads the same files as tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save_file

from fewshot.persistence.content import is_whole, json_object
from fewshot.persistence.files import open_regular, read_regular
from fewshot.utils.heap import refuse_full_disk, refuse_too_large
from fewshot.utils.text import as_unicode

T = TypeVar("T")
#: Type and shape of an array, and its parts.
Streamed = tuple[type, tuple[int, ...], Iterable[NDArray[Any]]]
#: Metadata key of the SHA-256 of the arrays and the other metadata.
DIGEST = "sha256"
#: Names of dtypes in a file.
_DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32, "U8": np.uint8, "BOOL": np.bool_}
#: Size of the length of the header, which comes first in the file.
PREFIX = 8


def write_arrays(
    path: str | Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays and their digest to a safetensors file; the same bytes as `write_tensors` of equal tensors.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    whole = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    write_sealed(path, whole, dict(metadata or {}), arrays_digest, save_file)


def read_arrays(path: str | Path, *, follow: bool = True) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file into memory, check its digest, and return its arrays and metadata; see `read_tensors`.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/x.safetensors"
    >>> write_arrays(path, {"x": np.ones(2)}, {"made": "here"})
    >>> read_arrays(path)
    ({'x': array([1., 1.])}, {'made': 'here'})
    """
    return read_sealed(path, load, arrays_digest, follow)


def write_streamed(path: str | Path, arrays: Mapping[str, Streamed]) -> None:
    """Write a safetensors file without a digest, a part of each array at a time, so that it is not copied in memory.

    Parameters
    ----------
    path : path
        The file.
    arrays : mapping of str to (dtype, shape, parts)
        The parts of each array along its first axis. Those with the widest numbers come first, so that all are aligned.

    Raises
    ------
    OSError
        If the file cannot be written, or would not fit on the disk.
    """
    header, end = {}, 0
    for name, (dtype, shape, _) in arrays.items():
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        known = next(key for key, one in _DTYPES.items() if one is dtype)
        header[name] = {"dtype": known, "shape": list(shape), "data_offsets": [start, end]}
    refuse_full_disk(path, end)
    raw = json.dumps(header).encode()
    raw = raw.ljust(-(-len(raw) // 64) * 64 - PREFIX + 64)  # so that all numbers are aligned
    with Path(path).open("wb") as file:
        file.write(len(raw).to_bytes(PREFIX, "little") + raw)
        for dtype, _, parts in arrays.values():
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data)


def map_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Map the arrays of a safetensors file, whose digest is not checked; what is written to them stays in this process.

    The file must not be truncated or overwritten while they are used.

    Raises
    ------
    ValueError
        If it is not a complete file of arrays.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/x.safetensors"
    >>> write_streamed(path, {"x": (np.float64, (3, 1), [np.ones((2, 1)), np.zeros((1, 1))])})
    >>> map_arrays(path)["x"].tolist()
    [[1.0], [1.0], [0.0]]
    """
    with open_regular(path) as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    begin = PREFIX + int.from_bytes(data[:PREFIX], "little")
    found = {}
    for name, about in json_object(data[PREFIX:begin]).items():
        if name != "__metadata__":
            dtype, shape, (start, end) = _DTYPES[about["dtype"]], about["shape"], about["data_offsets"]
            n = math.prod(shape)
            if (
                not all(is_whole(number) for number in (*shape, start, end))
                or end - start != n * np.dtype(dtype).itemsize
            ):
                raise ValueError(f"{name} has the shape {shape!s:.60} and other bytes")
            found[name] = np.frombuffer(data, dtype, n, begin + start).reshape(shape)
    return found


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file without reading its tensors or checking its digest.

    Raises
    ------
    ValueError
        If it is not a safetensors file.
    """
    try:
        open_regular(path, follow=True).close()  # safetensors would wait for a pipe
        with unicode_name(path) as name, safe_open(name, framework="np") as opened:
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


def arrays_digest(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of named arrays and metadata, the same as `tensors_digest` of equal tensors."""
    parts = ((name, f"torch.{x.dtype}", x.shape, np.ascontiguousarray(x)) for name, x in sorted(arrays.items()))
    return sealed_digest(parts, metadata)


def sealed_digest(parts: Iterable[tuple[str, str, tuple[int, ...], NDArray[Any]]], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of metadata and of parts, each with its name, dtype, shape and bytes."""
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, dtype, shape, content in parts:
        found.update(f"\n{json.dumps(name)} {dtype} {tuple(shape)}\n".encode())
        if content.size:
            found.update(content.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def write_sealed(
    path: str | Path, content: T, notes: dict[str, str], digest: Callable[[T, dict[str, str]], str], save: Any
) -> None:
    """Write a file by ``save(content, path, metadata)`` of safetensors, with a digest and sorted metadata."""
    path = Path(path)
    path.touch()
    mode = path.stat().st_mode
    try:
        save(content, path, {**notes, DIGEST: digest(content, notes)})
    except SafetensorError as error:
        number = re.search(r"(?:os error |Os { code: )(\d+)", str(error))  # such as that of a full disk; newer, older
        if number is not None:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise OSError(f"{path} cannot be written: {error}") from error
    path.chmod(mode)  # safetensors creates a new file that only its owner may read
    with path.open("r+b") as file:
        _sort_metadata(file)


def read_sealed(
    path: str | Path, parse: Callable[[bytes], T], digest: Callable[[T, dict[str, str]], str], follow: bool
) -> tuple[T, dict[str, str]]:
    """Return the content of a file that `write_sealed` wrote, and its metadata, after checking its digest.

    Raises
    ------
    ValueError
        If it is not a complete safetensors file, or its digest does not match.
    OSError
        If it is not a regular file, or cannot be read.
    TooLargeError
        If it does not fit in memory.
    """
    with suppress(OSError):
        refuse_too_large(2.0 * os.stat(path).st_size, f"the file {path} and its arrays", "read it where more is free")
    data = read_regular(path, sys.maxsize, follow=follow)
    try:
        content = parse(data)
        size = int.from_bytes(data[:PREFIX], "little")
        notes: dict[str, str] = json.loads(data[PREFIX : PREFIX + size]).get("__metadata__") or {}
    # Readers report damage by almost any exception, including RecursionError and MemoryError.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a complete file of weights or tensors (safetensors): {reason:.200}") from error
    expected = notes.pop(DIGEST, None)
    if expected is not None and expected != digest(content, notes):
        raise ValueError(f"{path} is damaged: its SHA-256 does not match; restore it from a copy, or write it again")
    return content, notes


def _sort_metadata(file: BinaryIO) -> None:
    """Sort the metadata, which safetensors writes in an order that changes from run to run."""
    size = int.from_bytes(file.read(PREFIX), "little")
    header = json.loads(file.read(size))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    if len(ordered) <= size:  # otherwise Python writes an escape differently, and the file is left unsorted
        file.seek(PREFIX)
        file.write(ordered.ljust(size))
