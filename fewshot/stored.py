"""How tensors are written down: as safetensors, which hold no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
