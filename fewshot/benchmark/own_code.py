"""The files of code that a learner of somebody's own consists of, to notice when one of them has changed."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import cache


def own_files(path: str, package: str | None = None) -> list[str]:
    """Return a Python file and those that it imports, directly or not, sorted, without those of installed packages.

    What it imports by a name that is computed, and data that it reads, are not found.

    Parameters
    ----------
    path : str
        The file.
    package : str, optional
        The package of its module, in which relative imports start.

    Examples
    --------
    >>> import tempfile
    >>> place = os.path.join(tempfile.mkdtemp(), "mine.py")
    >>> _ = open(place, "w").write("import torch, json")
    >>> own_files(place) == [place]
    True
    """
    found, todo = {os.path.realpath(path): path}, [(path, package)]
    while todo:
        for name in _imported(*todo.pop()):
            for file, own_package in _files_of(name):
                if os.path.realpath(file) not in found:
                    found[os.path.realpath(file)] = file
                    todo.append((file, own_package))
    return sorted(found.values())


def _imported(path: str, package: str | None) -> Iterator[str]:
    """Yield the names of modules that a file imports anywhere, and of what may be one."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            with suppress(ImportError):  # relative, and there is no package
                base = importlib.util.resolve_name(base, package)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _files_of(name: str) -> Iterator[tuple[str, str]]:
    """Yield the files of a module and of the packages that it is in, each with the package in which its imports start.

    Nothing is imported for that. There are none if it is installed.
    """
    top, *parts = name.split(".")
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return
    spec = None
    with suppress(ImportError, ValueError):  # a module without a spec
        spec = importlib.util.find_spec(top)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    origin = None if spec is None else spec.origin  # there is none of a folder without __init__.py
    if (origin or f"{folders[0] if folders else ''}{os.sep}").startswith(_installed()):
        return
    if origin is not None and origin.endswith(".py"):
        yield origin, top if folders else ""
    place, package = folders[0] if folders else "", top
    for part in parts if folders else ():
        place, outer, package = os.path.join(place, part), package, f"{package}.{part}"
        file = next((f for f in (f"{place}.py", os.path.join(place, "__init__.py")) if os.path.isfile(f)), None)
        if file is None:  # something in a module
            return
        yield file, package if file.endswith("__init__.py") else outer


@cache
def _installed() -> tuple[str, ...]:
    """Return the folders of installed packages."""
    paths = sysconfig.get_paths()
    return tuple({os.path.join(paths[name], "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
