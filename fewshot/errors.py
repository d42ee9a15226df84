"""The exceptions of the package: one sentence each, naming what, where, what was expected and the cure."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

#: Characters that a message repeats of what it was given.
_SHOWN = 400


def brief(value: object, most: int = _SHOWN) -> str:
    """Return the text of a value for a message: all of it, or its beginning, its length and its end.

    Parameters
    ----------
    value : object
        What a message repeats; pass ``repr(value)`` where quotes are wanted.
    most : int, default=400
        Characters that are repeated at most.

    Examples
    --------
    >>> brief("cat.jpg")
    'cat.jpg'
    >>> len(brief("x" * 100_000)) < 500
    True
    """
    text = str(value)
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]}... ({len(text)} characters) ...{text[-(most // 4) :]}"


class FewshotError(Exception):
    """Base class of every error that is raised by this package alone."""


class UnknownNameError(FewshotError, ValueError):
    """A learner, backbone or other registered thing was asked for by a name nobody registered.

    Parameters
    ----------
    kind : str
        What was looked for, e.g. ``"learner"``.
    name : str
        The name that was not found.
    known : iterable of str
        The names that would have been found.

    Examples
    --------
    >>> print(UnknownNameError("learner", "prototypicl", ["matching", "prototypical"]))
    no learner is called 'prototypicl'; did you mean 'prototypical'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(str(name)[:_SHOWN], known, n=3, cutoff=0.5)
        if close:
            hint = "did you mean " + " or ".join(map(repr, close)) + "?"
        else:
            hint = "known are " + ", ".join(map(repr, known[:20])) + (", ..." if len(known) > 20 else "")
        super().__init__(f"no {kind} is called {brief(repr(name))}; {hint}")
        self.kind, self.name, self.known = kind, name, known

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.known)


class ImageDecodeError(FewshotError, ValueError):
    """An image cannot be read, or not without guessing.

    Parameters
    ----------
    source : object
        The path, or what else the image was given as.
    reason : str
        What is wrong with it.
    index : int, optional
        Its place among the images of a call.

    Examples
    --------
    >>> print(ImageDecodeError("cat.jpg", "the file is empty", 3))
    image 3, cat.jpg: the file is empty
    """

    def __init__(self, source: object, reason: str, index: int | None = None) -> None:
        where = "" if index is None else f"image {index}, "
        super().__init__(f"{where}{brief(source)}: {reason}")
        self.source, self.reason, self.index = source, reason, index

    def __reduce__(self) -> tuple[type, tuple[object, str, int | None]]:
        return type(self), (self.source, self.reason, self.index)


class ReadError(FewshotError, OSError):
    """The system failed while an image was read, which says nothing of the image: work stops and can be repeated.

    Parameters
    ----------
    source : object
        The path, or what else the image was given as.
    reason : str
        What the system says.
    number : int, optional
        Its error number, see `errno`.
    index : int, optional
        The place of the image among those of a call.

    Examples
    --------
    >>> import errno
    >>> print(ReadError("cat.jpg", "Too many open files", errno.EMFILE))
    cat.jpg: Too many open files, which says nothing of the image; close files or raise the limit (ulimit -n), then
    run it again
    """

    def __init__(self, source: object, reason: str, number: int | None = None, index: int | None = None) -> None:
        where = "" if index is None else f"image {index}, "
        cure = (
            "close files or raise the limit (ulimit -n)"
            if number in (errno.EMFILE, errno.ENFILE)
            else "check the disk or the connection to it"
        )
        super().__init__(
            f"{where}{brief(source)}: {reason}, which says nothing of the image; {cure}, then run it again"
        )
        self.source, self.reason, self.errno, self.index = source, reason, number, index

    def __reduce__(self) -> tuple[type, tuple[object, str, int | None, int | None]]:
        return type(self), (self.source, self.reason, self.errno, self.index)


class OutOfMemoryError(FewshotError, MemoryError):
    """There was too little memory to decode an image, which says nothing of the image: work stops and can be repeated.

    Parameters
    ----------
    source : object
        The path, or what else the image was given as.
    index : int, optional
        Its place among the images of a call.
    reason : str, default="out of memory"
        What was missing.

    Examples
    --------
    >>> print(OutOfMemoryError("cat.jpg"))
    cat.jpg: out of memory, which says nothing of the image; decode fewer at a time (n_jobs=1) or free memory, then
    run it again
    """

    def __init__(self, source: object, index: int | None = None, reason: str = "out of memory") -> None:
        where = "" if index is None else f"image {index}, "
        cure = "decode fewer at a time (n_jobs=1) or free memory, then run it again"
        super().__init__(f"{where}{brief(source)}: {reason}, which says nothing of the image; {cure}")
        self.source, self.index, self.reason = source, index, reason

    def __reduce__(self) -> tuple[type, tuple[object, int | None, str]]:
        return type(self), (self.source, self.index, self.reason)


class ArtifactError(FewshotError):
    """A saved classifier cannot be used: it is damaged, incomplete, newer than this version, or of other weights."""


class InUseError(FewshotError):
    """A folder is being written by somebody else, who did not finish in time; nothing was written.

    Parameters
    ----------
    folder : path
        Which.
    holder : str
        Who writes there, as far as it is known.

    Examples
    --------
    >>> print(InUseError("model", "process 42 (fewshot add model)"))
    model is locked by process 42 (fewshot add model); nothing was written: try again when that has ended
    """

    def __init__(self, folder: object, holder: str) -> None:
        super().__init__(f"{folder} is locked by {holder}; nothing was written: try again when that has ended")
        self.folder, self.holder = folder, holder

    def __reduce__(self) -> tuple[type, tuple[object, str]]:
        return type(self), (self.folder, self.holder)


class DownloadError(FewshotError):
    """Weights or data could not be fetched from where they are published."""


class StoreError(FewshotError):
    """A store of embeddings cannot be reached or used, e.g. since it holds another embedder's vectors."""


class TooSmallError(FewshotError, ValueError):
    """A data set, or a group of it, has too few classes or rows for the episodes that were asked for."""


class LeakError(FewshotError, ValueError):
    """What is to be measured on was trained on, or chosen by, or is both support and query."""


class TrainingError(FewshotError, RuntimeError):
    """Meta-training cannot go on, for example because the loss is no longer finite."""


class MissingExtraError(FewshotError, ImportError):
    """A package that only an extra installs is missing, or two packages do not fit together."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; the episode was finished and the state saved.

    Parameters
    ----------
    signum : int
        The signal; a process that ends for it exits with 128 more.
    message : str
        Where training stopped, and how it goes on.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.signum, str(self))
