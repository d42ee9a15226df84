"""Grids that come with the package, by name: ``fewshot bench quick``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fewshot.errors import UnknownNameError


def ready_grids() -> list[str]:
    """Return the names of the grids that come with the package.

    Examples
    --------
    >>> "quick" in ready_grids()
    True
    """
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def text_of_grid(path: str | Path) -> str | None:
    """Return the text of a grid of the package; None if `path` is a file, or looks like the path of one.

    Raises
    ------
    UnknownNameError
        If it looks like a name, and no grid has it.
    """
    name = str(path)
    if Path(name).name != name or Path(name).suffix or Path(name).exists():
        return None
    if name not in ready_grids():
        raise UnknownNameError("grid", name, ready_grids())
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def _folder() -> resources.abc.Traversable:
    return resources.files("fewshot.benchmark") / "grids"
