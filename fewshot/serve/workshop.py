"""The classifier that is taught: one writer at a time, readers that never wait for it, and nothing lost.

A change works on a copy, is saved to the folder, and is published and acknowledged only then. Another process that
changes the folder is noticed by its manifest: readers see the new version, and a change is made to it, not to the one
before.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn.base import clone

from fewshot.embedding.embedder import Embedder
from fewshot.embedding.own import OwnEmbedder
from fewshot.errors import ArtifactError
from fewshot.images.history import go_back, read_steps
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.images.segments import Held
from fewshot.persistence.artifact import read_artifact, version_of, writing
from fewshot.persistence.files import check_writable
from fewshot.persistence.versions import EMPTY
from fewshot.serve.problems import Problem, without_place
from fewshot.serve.view import Stamp, View, folder_stamp, is_undone
from fewshot.utils.labels import unknown_mark

_log = logging.getLogger("fewshot.serve")
_KIND = "classifier"


class Workshop:
    """A classifier in a folder, taught by one and read by many.

    Parameters
    ----------
    folder : path
        The folder of a saved classifier, or of one to be.
    new : FewShotImageClassifier, optional
        The classifier to begin with if there is none.
    device : str, default="auto"
        Where to embed.
    read_only : bool, default=False
        Whether to refuse all changes.

    Raises
    ------
    ArtifactError
        If the folder holds no classifier and `new` is not given, or it is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        new: FewShotImageClassifier | None = None,
        device: str = "auto",
        read_only: bool = False,
    ) -> None:
        self.folder, self.device, self.read_only = str(folder), device, read_only
        #: One thread changes the classifier at a time, and one loads it.
        self._lock, self._loading = threading.RLock(), threading.Lock()
        self._is_changing = False
        #: Why the folder, as it is now, cannot be read; readers see the version before.
        self.trouble: str | None = None
        self._bad: Stamp = None
        if folder_stamp(self.folder) is None and new is not None:
            self._view = View(self.folder, new, EMPTY, None, _embedder_of(new, None))
        else:
            self._view = self._loaded(None)
        if not read_only:
            self._warn_of_refusal()

    def _warn_of_refusal(self) -> None:
        """Tell whoever runs the service now, and not the first client that teaches, that nothing can be taught."""
        try:
            check_writable(self.folder)
        except OSError as error:
            told = "the folder cannot be written, so nothing can be taught: let the user of the service write there, "
            _log.warning(told + "or start it with --read-only", extra={"reason": str(error)})

    # ---- reading ---------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """Return the present version; one that another process has written is loaded first."""
        if self.is_stale:
            with self._loading:
                if self.is_stale:
                    self._refresh()
        return self._view

    @property
    def published(self) -> View:
        """The present version, which may be older than the folder."""
        return self._view

    @property
    def is_stale(self) -> bool:
        """Whether another process has written a version that is to be loaded, or has undone the first one."""
        stamp = folder_stamp(self.folder)
        has_changed = stamp not in (self._view.stamp, self._bad) if stamp else self._is_undone
        return has_changed and not self._is_changing

    @property
    def _is_undone(self) -> bool:
        """Whether the present version is one that can be redone only; a folder that is gone may come back."""
        return not self._view.is_empty and is_undone(self.folder, self._view.version)

    def _refresh(self) -> View:
        """Load the folder if it has changed; keep the present version if it cannot be read."""
        stamp = folder_stamp(self.folder)
        if stamp is None:
            if self._is_undone:
                self._view, self.trouble, self._bad = self._emptied(), None, None
        elif stamp not in (self._view.stamp, self._bad):
            try:
                self._view, self.trouble, self._bad = self._loaded(self._view), None, None
            except ArtifactError as error:
                self.trouble, self._bad = without_place(str(error), self.folder), stamp
                _log.error("the folder cannot be read", extra={"reason": str(error)})
        return self._view

    def _loaded(self, before: View | None) -> View:
        """Return the version in the folder, with the network of the one before if it is the same."""
        while True:
            stamp = folder_stamp(self.folder)
            model = self._load(before)
            if stamp == folder_stamp(self.folder):
                return View(self.folder, model, str(version_of(self.folder)), stamp, _embedder_of(model, before))

    def _emptied(self) -> View:
        """Return the version before the first class was taught, with the same network."""
        return View(self.folder, clone(self._view.model), EMPTY, None, self._view.embedder)

    def _load(self, before: View | None) -> FewShotImageClassifier:
        if before is not None:
            try:
                return FewShotImageClassifier.load(self.folder, device=self.device, embedder=before.embedder)
            except ArtifactError:
                pass  # of another network, or damaged: loading it with its own says so
        return load_any(self.folder, self.device)

    # ---- changing --------------------------------------------------------------------------------------------------

    def change(
        self,
        note: str | Callable[[Any], str],
        act: Callable[[FewShotImageClassifier, View], Any],
        if_match: str | None = None,
    ) -> tuple[View, Any]:
        """Change a copy, save it, then publish it; return the new version and what `act` has returned.

        Parameters
        ----------
        note : str or callable
            What changes, for the history; a callable makes it of what `act` has returned.
        act : callable
            Changes the classifier it is given, a copy of that of the version it is given.
        if_match : str, optional
            The version that the change is meant for.

        Raises
        ------
        Problem
            If nothing can be changed, or the folder holds another version than `if_match`.
        OSError
            If it cannot be saved. Nothing has changed then.
        """
        with self._changing(if_match):
            model = copy.copy(self._view.model)
            found = act(model, self._view)
            if model.reject is not None:
                unknown_mark(model.unknown_label, model.classes_)
            self._save(model, note(found) if callable(note) else note)
            self._publish(model)
            return self._view, found

    def replace(self, model: FewShotImageClassifier, note: str, if_match: str | None = None) -> View:
        """Save and publish another classifier, such as an uploaded one."""
        with self._changing(if_match):
            self._save(model, note)
            self._view = self._loaded(self._view)  # from here, as the upload will be gone
            return self._view

    def _save(self, model: FewShotImageClassifier, note: str) -> None:
        if self._view.is_empty:  # undo leads back to that
            model._held = Held({os.path.realpath(self.folder): EMPTY})
        model.save(self.folder, note=note)

    def undo(self, if_match: str | None = None) -> View:
        """Go back to the version that the present one was made from."""
        return self._step("undo", if_match)

    def redo(self, if_match: str | None = None) -> View:
        """Go to the newest version that was made from the present one."""
        return self._step("redo", if_match)

    def _step(self, name: str, if_match: str | None) -> View:
        nothing = Problem(409, f"no_{name}", f"there is nothing to {name}")
        if not os.path.isdir(self.folder):  # else it would be created
            raise nothing
        with self._changing(if_match):
            number = getattr(read_steps(self.folder), name)
            if number is None:
                raise nothing
            is_first = go_back(self.folder, number).n_classes == 0
            self._view = self._emptied() if is_first else self._loaded(self._view)
            return self._view

    def _publish(self, model: FewShotImageClassifier) -> None:
        embedder = _embedder_of(model, self._view)
        self._view = View(self.folder, model, str(version_of(self.folder)), folder_stamp(self.folder), embedder)
        self.trouble = self._bad = None

    @contextmanager
    def _changing(self, if_match: str | None) -> Iterator[None]:
        """Hold the locks of the process and of the folder, with the version in the folder loaded."""
        if self.read_only:
            raise Problem(403, "read_only", "this service is read-only; start it without --read-only to change it")
        if not (self._view.is_empty or os.path.isdir(self.folder)):  # else it would be made, without its history
            message = (
                "the folder of the classifier is gone, so nothing was changed; put it back, or restart the service"
            )
            raise Problem(409, "gone", message)
        with self._lock, writing(self.folder, _KIND):
            with self._loading:
                view = self._refresh()
                self._is_changing = True  # what comes to the folder now is our own, and readers do not load it
            try:
                if self.trouble is not None:
                    message = f"the folder cannot be read, so nothing was changed: {self.trouble}"
                    raise Problem(409, "damaged", message)
                if if_match not in (None, "*", view.version):
                    message = "the classifier was changed meanwhile; look at it again and repeat the change"
                    raise Problem(409, "changed", message)
                yield
            finally:
                self._is_changing = False


def _embedder_of(model: FewShotImageClassifier, before: View | None) -> Embedder | OwnEmbedder:
    """Return what embeds for a classifier: that of the version before, if the network is the same."""
    own = model.embedder_ if model.__sklearn_is_fitted__() else model.make_embedder()
    if before is not None and before.embedder.fingerprint == own.fingerprint:
        return before.embedder
    quiet: Embedder | OwnEmbedder = clone(own).set_params(progress=False, on_error="skip")
    _ = quiet.fingerprint  # loads the network
    return quiet


def load_any(folder: str | Path, device: str) -> FewShotImageClassifier:
    """Load a classifier; one with a custom embedder takes embeddings from clients."""
    try:
        return FewShotImageClassifier.load(folder, device=device)
    except ArtifactError:
        name = read_artifact(folder, _KIND)[0].get("source", {}).get("given")
        if not isinstance(name, str):
            raise
    return FewShotImageClassifier.load(folder, device=device, embedder=OwnEmbedder(_as_given, name))


def _as_given(rows: Any) -> Any:
    """Return embeddings that were computed elsewhere."""
    return rows
