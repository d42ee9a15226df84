"""How tensors and labels are written down: as safetensors and JSON, which hold no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path, whole = Path(path), {name: value.contiguous() for name, value in tensors.items()}
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(whole, path, dict(metadata) if metadata else None)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    path.chmod(mode)  # safetensors replaces the file by one that only its owner may read


def labels_to_json(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels as JSON can hold them, with their type.

    Raises
    ------
    ValueError
        If it cannot.
    """
    if labels.dtype.kind not in "biufUO":
        raise ValueError(f"labels are {labels.dtype}, which JSON cannot hold; use text or integers to save")
    return {"dtype": labels.dtype.str, "values": labels.tolist()}


def labels_from_json(saved: Mapping[str, Any]) -> NDArray[Any]:
    """Return the labels that `labels_to_json` wrote."""
    return np.array(saved["values"], dtype=np.dtype(saved["dtype"]))
