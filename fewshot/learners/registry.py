"""The registry of learners: files in ``fewshot/learners``, entry points and plug-ins."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from fewshot.errors import UnknownNameError, brief
from fewshot.learners.base import Learner
from fewshot.utils.carried import Carried

L = TypeVar("L", bound="type[Learner]")

ENTRY_POINT_GROUP = "fewshot.learners"
#: Environment variable with a path list of plug-in files and modules, so that child processes load them too.
PLUGINS = "FEWSHOT_PLUGINS"
_LEARNERS: dict[str, type[Learner]] = {}
_ALIASES: dict[str, str] = {}
_discovering, _discovered = threading.RLock(), False


def register_learner(name: str, *aliases: str) -> Callable[[L], L]:
    """Class decorator that registers a `Learner` under `name`.

    A pickled estimator that names a class of a script or notebook brings it along, so that ``n_jobs=2`` of scikit-learn
    finds it. Saved folders hold no code: register it again before one is loaded in another process.

    Parameters
    ----------
    name : str
        The name by which trainer, estimators, contract tests and command line find it, and which saved files hold.
    *aliases : str
        Other names that find it, such as the paper's.

    Raises
    ------
    ValueError
        If another class holds one of the names already.

    Examples
    --------
    >>> from fewshot import Learner, register_learner
    >>> @register_learner("my-method")
    ... class MyLearner(Learner):
    ...     ...
    """

    def register(cls: L) -> L:
        for one in (name, *aliases):
            held = _LEARNERS.get(_ALIASES.get(one, one))
            # The same class seen twice is a reloaded module (notebooks do that), not a clash.
            if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"the learner name {one!r} is taken by {held.__module__}.{held.__qualname__}; choose another"
                )
        _LEARNERS[name] = cls
        _ALIASES.update(dict.fromkeys(aliases, name))
        cls.name = name
        return cls

    return register


class CarriedLearner(Carried):
    """The name of a learner, pickled with its class and its other names if it is none of the library's."""

    def __init__(self, name: str) -> None:
        super().__init__(_ALIASES.get(name, name))

    @classmethod
    def of(cls, learner: object) -> CarriedLearner | None:
        """Return it for the name of a learner; None for a learner itself.

        Examples
        --------
        >>> CarriedLearner.of("matching").name
        'matching'
        """
        return cls(learner) if isinstance(learner, str) else None

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all learners that were imported."""
        return sorted(_LEARNERS)

    def find(self) -> Any:
        """Return the class and its other names; None if it is the library's own or unknown."""
        found = _LEARNERS.get(self.name)
        if found is None or found.__module__.startswith("fewshot."):
            return None
        return found, [other for other, meant in _ALIASES.items() if meant == self.name]

    def known(self) -> type[Learner] | None:
        """Return the class, once plug-ins are loaded."""
        _discover()
        return _LEARNERS.get(_ALIASES.get(self.name, self.name))

    def register(self, found: Any) -> None:
        """Register the class under its names."""
        cls, others = found
        register_learner(self.name, *others)(cls)


def _discover() -> None:
    """Import every module of ``fewshot.learners``, every entry point and every plug-in, once."""
    global _discovered
    with _discovering:
        if _discovered:
            return
        _discovered = True  # set first: an imported module may look up learners
        try:
            package = importlib.import_module("fewshot.learners")
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"fewshot.learners.{module.name}")
            for point in entry_points(group=ENTRY_POINT_GROUP):
                point.load()
            for plugin in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
                _load(plugin)
        except BaseException:
            _discovered = False
            raise


def add_plugin(plugin: str) -> None:
    """Load learners from a Python file or module, in this process and in its future child processes.

    A file may import others of its folder, as a script does.

    Raises
    ------
    ValueError
        If the file or module does not exist or cannot be imported.
    """
    path = os.path.abspath(plugin) if plugin.endswith(".py") else plugin
    _load(path)
    known = [name for name in os.environ.get(PLUGINS, "").split(os.pathsep) if name]
    os.environ[PLUGINS] = os.pathsep.join([*known, *([path] if path not in known else [])])


@cache
def _load(plugin: str) -> None:
    name = f"fewshot_plugin_{os.path.basename(plugin)[:-3]}" if plugin.endswith(".py") else plugin
    try:
        if name == plugin:
            importlib.import_module(plugin)
            return
        spec = importlib.util.spec_from_file_location(name, plugin)
        if spec is None or spec.loader is None:
            raise ImportError("it is not a Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        if (folder := os.path.dirname(plugin)) not in sys.path:  # last: what lies there hides nothing
            sys.path.append(folder)
        spec.loader.exec_module(module)
    except Exception as error:  # plug-in code may raise anything
        sys.modules.pop(name, None)
        raise ValueError(f"the plugin {plugin} cannot be loaded ({type(error).__name__}: {error})") from error


def list_learners() -> list[str]:
    """Return the names of all learners: built in, from installed plug-ins, and registered by hand.

    Most of the library's learners also answer to the name of their paper, which is not listed: ``protonet``,
    ``matching-networks``, ``relation-net``, ``r2d2`` (ridge), ``simple-cnaps`` (mahalanobis), ``tip-adapter``
    (key-value-cache), ``laplacianshot``, ``fce`` (matching-fce) and ``knn`` (k-nearest).

    Returns
    -------
    list of str
        Sorted names, without aliases.

    Examples
    --------
    >>> from fewshot import list_learners
    >>> {"matching", "prototypical"} <= set(list_learners())
    True
    """
    _discover()
    return sorted(_LEARNERS)


def learner_class(name: str) -> type[Learner]:
    """Return the learner class registered under `name`, which may be an alias.

    Raises
    ------
    UnknownNameError
        If no learner has that name; the message proposes similar names.

    Examples
    --------
    >>> learner_class("prototypical").__name__
    'PrototypicalLearner'
    """
    _discover()
    try:
        return _LEARNERS[_ALIASES.get(name, name)]
    except KeyError:
        raise UnknownNameError("learner", name, {*_LEARNERS, *_ALIASES}) from None


def as_learner(learner: str | Learner) -> Learner:
    """Return `learner` itself, or build the one registered under that name with its defaults.

    Raises
    ------
    UnknownNameError
        If no learner is registered under that name.
    TypeError
        If `learner` is neither a name nor a Learner, for example a class.
    """
    if isinstance(learner, str):
        return learner_class(learner)()
    if not isinstance(learner, Learner):
        raise TypeError(
            f"learner is {brief(repr(learner))}; expected a registered name or a Learner, such as "
            "PrototypicalLearner(); run_benchmark takes scikit-learn's too: {'learner': 'scikit-learn', 'classifier': "
            "'LogisticRegression'}"
        )
    if "metric" not in vars(learner):
        raise TypeError(
            f"__init__ of {type(learner).__name__} does not begin with super().__init__(metric, temperature); add it"
        )
    return learner


def ready_learner(learner: str | Learner) -> Learner:
    """Return a learner as `as_learner` does, and raise if it has to be trained first.

    Raises
    ------
    UnknownNameError, TypeError
        As for `as_learner`.
    ValueError
        If the learner is untrained.
    """
    found = as_learner(learner)
    if found.learned and found.d is None:
        raise ValueError(
            f"{found.name or type(found).__name__!r} has weights that are not trained yet; train it with "
            "MetaTrainer, or pass load_learner(checkpoint)"
        )
    return found
