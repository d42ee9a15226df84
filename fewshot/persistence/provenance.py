"""Everything needed to repeat a run: command, seed, versions, threads."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fewshot._version import __version__

#: Packages whose versions can change a figure.
PACKAGES = ("torch", "torchvision", "timm", "faiss-cpu", "scikit-learn", "numpy", "pandas", "Pillow", "matplotlib")


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the version of each package; None if it is not installed under that name."""
    return {name: _version(name) for name in packages}


def command_line() -> str:
    """Return the command of this process, quoted for a shell.

    Examples
    --------
    >>> isinstance(command_line(), str)
    True
    """
    program = Path(sys.argv[0]).name
    return shlex.join([*(["fewshot"] if program in ("fewshot", "__main__.py") else ["python", program]), *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # or installed under another name, as FAISS by conda
        return None


def _processor() -> str:
    """Return the name of the processor, empty if the system does not report it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor()


def manifest(command: str, seed: int, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything needed to repeat a run, as values that JSON can hold.

    Parameters
    ----------
    command : str
        The command that repeats the run.
    seed : int
        Its seed.
    packages : sequence of str, optional
        Further packages whose versions can change a figure.

    Examples
    --------
    >>> manifest("fewshot demo", 0)["seed"]
    0
    """
    import torch

    return {
        "command": command,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {"fewshot": __version__, **versions((*PACKAGES, *packages))},
    }
