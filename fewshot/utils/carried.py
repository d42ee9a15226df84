"""Names that travel with what is pickled.

Another process, such as a worker of joblib, does not know what was registered by hand in this one. So what holds such a
name is pickled with what the name stands for, and that is registered where the pickle is read. Folders that ``save``
writes hold nothing of this.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import sys
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

_log = logging.getLogger(__name__)
#: Key of the state of an object with what its names stand for.
_KEY = "_carried"
#: Code that another version has compiled cannot be read.
_THIS_PYTHON = sys.version_info[:2]


class Carried(ABC):
    """A name, pickled with what it stands for; a subclass says in which registry.

    What is known by hand in the reading process is never replaced, but what a pickle has brought is by a newer one:
    the workers of a notebook outlive its cells.
    """

    #: What pickles have brought, by registry and name: its digest, and what was registered.
    _arrived: ClassVar[dict[tuple[type, str], tuple[str, Any]]] = {}

    _kinds: ClassVar[list[type[Carried]]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Carried._kinds.append(cls)

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    @abstractmethod
    def names(cls) -> list[str]:
        """Return all names in the registry, without other names for the same."""

    @abstractmethod
    def find(self) -> Any:
        """Return what was registered by hand under the name, to be pickled; None if nothing was."""

    @abstractmethod
    def known(self) -> Any:
        """Return what the name stands for in this process, or its plug-ins; None if it is unknown."""

    @abstractmethod
    def register(self, found: Any) -> None:
        """Register what `find` has returned in another process."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # the process is the same

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (type(self), self.name, _packed(self), _THIS_PYTHON)

    def arrive(self, data: bytes) -> None:
        """Register what was packed, unless the name is known by hand."""
        key, digest, known = (type(self), self.name), hashlib.sha256(data).hexdigest(), self.known()
        before, brought = self._arrived.get(key, ("", None))
        if known is not None and (known is not brought or digest == before):
            return
        found = pickle.loads(data)  # of the pickle that is being read, which could run anything itself
        if known is None and (known := self.known()) is not None:  # its module has registered it
            return
        self.register(found)
        self._arrived[key] = digest, self.known()


def carrying(state: dict[str, Any], *names: Carried | None) -> dict[str, Any]:
    """Return the state of an object, for ``__getstate__``, with its names; None are left out, and built-in ones."""
    some = [one for one in names if one is not None and one.find() is not None]
    return {**state, _KEY: (*state.get(_KEY, ()), *some)} if some else state


def unloaded(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state, for ``__setstate__``, without the names, which are registered by now."""
    return {key: value for key, value in state.items() if key != _KEY}


def all_carried() -> bytes:
    """Return all names that were registered by hand, with what they stand for, for `know` in another process."""
    found = [kind(name) for kind in Carried._kinds for name in kind.names()]
    return pickle.dumps([one for one in found if one.find() is not None])


def know(data: bytes) -> None:
    """Register what `all_carried` has packed in the process that started this one."""
    pickle.loads(data)


def _packed(carried: Carried) -> bytes | None:
    """Return what a name stands for as bytes, code of ``__main__`` and of functions included; None if that fails."""
    from joblib import wrap_non_picklable_objects

    if (found := carried.find()) is None:
        return None
    try:
        return pickle.dumps(wrap_non_picklable_objects(found, keep_wrapper=False))
    except Exception as error:  # what it holds may raise anything
        _log.info("what is registered as %s cannot be pickled, so its name alone is: %s", carried.name, error)
        return None


def _arrive(kind: type[Carried], name: str, data: bytes | None, version: tuple[int, int]) -> Carried:
    carried = kind(name)
    if data is None or version != _THIS_PYTHON:
        return carried
    try:
        carried.arrive(data)
    except Exception as error:  # of a module that is missing here, say; the name may be found in another way later
        _log.info("what is registered as %s came with a pickle and cannot be read: %s", name, error)
    return carried
