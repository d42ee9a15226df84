"""The code that a learner or network of somebody's own consists of, to notice when it has changed."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any


def own_code(things: Iterable[object]) -> str:
    """Return a digest of the code that defines some classes, functions or objects, and of what it imports.

    The code of installed packages does not count: the digest of what they define is empty text.

    Parameters
    ----------
    things : iterable
        Classes, functions, or objects, which stand for their class. What a notebook defines counts by its bytecode,
        anything else by its file.

    Examples
    --------
    >>> import torch
    >>> own_code([torch.nn.ReLU, torch.relu, max])
    ''
    """
    found = {part for one in _defined(things) for part in _parts(one)}
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest() if found else ""


def _defined(things: Iterable[object]) -> set[Any]:
    """Return the classes, with those they inherit from, and functions that define things."""
    found: set[Any] = set()
    for thing in things:
        while isinstance(thing, functools.partial):
            thing = thing.func
        if inspect.isroutine(thing):
            found.add(inspect.unwrap(getattr(thing, "__func__", thing)))
        else:
            found |= {*inspect.getmro(thing if isinstance(thing, type) else type(thing))}
    return found


def _parts(one: Any) -> Iterator[str]:
    """Yield digests of the files that a class or function consists of, or of its bytecode if it has no file."""
    module = getattr(one, "__module__", None) or ""
    if module.partition(".")[0] in {*sys.stdlib_module_names, __name__.partition(".")[0]} - {"__main__"}:
        return
    path = ""
    with suppress(TypeError, OSError):  # of a built-in, or a class of a notebook
        path = inspect.getfile(one)
    if os.path.isfile(path):
        if not _is_installed(path):
            package = getattr(sys.modules.get(module), "__package__", None)
            yield from (hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in own_files(path, package))
    elif path or module == "__main__":
        functions = [one] if isinstance(one, FunctionType) else vars(one).values() if isinstance(one, type) else ()
        for function in functions:
            code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
            if isinstance(code, CodeType):
                yield hashlib.sha256(repr(_plain(code)).encode()).hexdigest()


def _plain(code: CodeType) -> tuple[object, ...]:
    """Return bytecode without the places where it lies in a file or in memory."""
    constants = [
        _plain(one) if isinstance(one, CodeType) else sorted(map(repr, one)) if isinstance(one, frozenset) else one
        for one in code.co_consts
    ]
    return code.co_name, code.co_code, code.co_names, constants


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
    if _is_installed(origin or f"{folders[0] if folders else ''}{os.sep}"):
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


def _is_installed(path: str) -> bool:
    """Whether a file is of an installed package, be it for all, for one user, or in a folder on ``PYTHONPATH``."""
    return path.startswith(_of_python()) or not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)


@cache
def _of_python() -> tuple[str, ...]:
    """Return the folders of Python and of its packages."""
    paths = sysconfig.get_paths()
    return tuple({os.path.join(paths[name], "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
