"""Tensors on disk: safetensors files, which hold no code, with a digest of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save_file
from torch import Tensor

from fewshot.persistence.arrays import read_sealed, sealed_digest, write_sealed


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and their digest to a safetensors file; equal content gives equal files.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    whole = {name: value.contiguous() for name, value in tensors.items()}
    write_sealed(path, whole, dict(metadata or {}), tensors_digest, save_file)


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
    return read_sealed(path, load, tensors_digest, follow)


def tensors_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of named tensors and metadata.

    Examples
    --------
    >>> tensors_digest({"x": torch.ones(2)}, {}) == tensors_digest({"x": torch.ones(2)}, {"made": "here"})
    False
    """
    parts = ((name, str(x.dtype), tuple(x.shape), _bytes(x)) for name, x in sorted(tensors.items()))
    return sealed_digest(parts, metadata)


def _bytes(value: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor; an empty one may have a stride of 0."""
    flat = value.detach().cpu().contiguous().flatten()
    return (flat.view(torch.uint8) if len(flat) else torch.empty(0, dtype=torch.uint8, device="cpu")).numpy()
