"""Pickles that record the version of fewshot; scikit-learn stamps only its own estimators."""

from __future__ import annotations

import inspect
from typing import Any

from fewshot._version import __version__
from fewshot.utils.warning import warn


def with_new_parameters(cls: type, state: dict[str, Any]) -> dict[str, Any]:
    """Add to the state of an estimator the defaults of parameters that did not exist when it was pickled."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | state


class VersionedPickle:
    """Mixin of estimators that warns when a pickle of another version is read; list it first among the bases.

    Unpickling a file runs any code in it, whatever this class does: never unpickle a stranger's file. ``save`` writes
    no pickle.
    """

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, "_fewshot_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = with_new_parameters(type(self), state)
        version = state.pop("_fewshot_version", "unknown")
        if version != __version__:
            warn(
                f"this {type(self).__name__} was pickled by fewshot {version} and is read by {__version__}; "
                "it may fail or answer differently"
            )
        parent: Any = super()
        parent.__setstate__(state)
