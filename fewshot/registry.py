"""The registry of learners: one file in ``fewshot/learners``, or one entry point, and everyone finds it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeVar

from fewshot.errors import UnknownNameError

if TYPE_CHECKING:
    from fewshot.learners.base import Learner

L = TypeVar("L", bound="type[Learner]")

ENTRY_POINT_GROUP = "fewshot.learners"
_LEARNERS: dict[str, type[Learner]] = {}


def register_learner(name: str) -> Callable[[L], L]:
    """Class decorator that makes a `Learner` known under `name`.

    Parameters
    ----------
    name : str
        The name by which trainer, estimators, contract tests and command line find it.

    Raises
    ------
    ValueError
        If another class holds the name already.

    Examples
    --------
    >>> from fewshot import Learner, register_learner
    >>> @register_learner("my-method")
    ... class MyLearner(Learner):
    ...     ...
    """

    def register(cls: L) -> L:
        held = _LEARNERS.get(name)
        # The same class seen twice is a reloaded module (notebooks do that), not a clash.
        if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"the learner name {name!r} is taken by {held.__module__}.{held.__qualname__}; choose another"
            )
        _LEARNERS[name] = cls
        cls.name = name
        return cls

    return register


@cache
def _discover() -> None:
    """Import every module of ``fewshot.learners`` and every entry point of the group, once."""
    package = importlib.import_module("fewshot.learners")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"fewshot.learners.{module.name}")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        point.load()


def list_learners() -> list[str]:
    """Return the names of all learners: built in, from installed plug-ins, and registered by hand.

    Returns
    -------
    list of str
        Sorted names.

    Examples
    --------
    >>> from fewshot import list_learners
    >>> {"matching", "prototypical"} <= set(list_learners())
    True
    """
    _discover()
    return sorted(_LEARNERS)


def learner_class(name: str) -> type[Learner]:
    """Return the learner class registered as `name`.

    Raises
    ------
    UnknownNameError
        If there is none; the message proposes the nearest names.

    Examples
    --------
    >>> learner_class("prototypical").__name__
    'PrototypicalLearner'
    """
    _discover()
    try:
        return _LEARNERS[name]
    except KeyError:
        raise UnknownNameError("learner", name, _LEARNERS) from None
