"""Exceptions. Each message is one sentence: what is wrong, where, what was expected, the cure.

Most messages are written where they are raised. On the command line, `fewshot.cli.terminal` replaces parameters by
flags.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

#: The name that pip installs and setup.cfg declares. PyPI has a "few-shot", which it holds to be the same as "fewshot".
DISTRIBUTION = "fewshot-learn"
#: Longest text that a message repeats in full, in characters.
_SHOWN = 400


def brief(value: object, most: int = _SHOWN) -> str:
    """Return the text of a value for a message; of long text only the beginning, the length and the end.

    Parameters
    ----------
    value : object
        The value; pass ``repr(value)`` for quotes.
    most : int, default=400
        Longest text that is returned in full, in characters.

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


def pip_install(extra: str) -> str:
    """Return the command that installs an extra, quoted so that the shells of every system take it.

    Parameters
    ----------
    extra : str
        Its name in setup.cfg.

    Examples
    --------
    >>> print(pip_install("serve"))
    pip install "fewshot-learn[serve]"
    """
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def _name(image: object, index: int | None) -> str:
    return called(image) if index is None or hasattr(image, "place") else f"image {index}, {brief(image)}"


def called(image: object) -> str:
    """Return what messages call an image: of a path of a table (`TablePath`), its row too.

    Examples
    --------
    >>> called("cat.jpg")
    'cat.jpg'
    """
    place = getattr(image, "place", "")
    return f"{place}, {brief(image)}" if place else brief(image)


def _is_absent(reason: str) -> bool:
    return reason.startswith("no such file")


class FewshotError(Exception):
    """Base class of all exceptions of this package."""


class UnknownNameError(FewshotError, ValueError):
    """No learner, backbone or other option has this name.

    Parameters
    ----------
    kind : str
        What the name stands for, e.g. ``"learner"``.
    name : str
        The unknown name.
    known : iterable of str
        All valid names.
    message : str, optional
        Another sentence, for a name that the user has not given.

    Examples
    --------
    >>> print(UnknownNameError("learner", "prototypicl", ["matching", "prototypical"]))
    no learner is called 'prototypicl'; did you mean 'prototypical'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], message: str | None = None) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(str(name)[:_SHOWN], known, n=3, cutoff=0.5)
        if close:
            hint = "did you mean " + " or ".join(map(repr, close)) + "?"
        else:
            hint = "known are " + ", ".join(map(repr, known[:20])) + (", ..." if len(known) > 20 else "")
        super().__init__(message or f"no {kind} is called {brief(repr(name))}; {hint}")
        self.kind, self.name, self.known, self._message = kind, name, known, message

    @property
    def says_cure(self) -> bool:
        """Whether the message is another sentence, which has its own cure."""
        return self._message is not None

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str], str | None]]:
        return type(self), (self.kind, self.name, self.known, self._message)


class ImageDecodeError(FewshotError, ValueError):
    """An image cannot be decoded, or only by guessing.

    Parameters
    ----------
    source : object
        The path of the image, or a description.
    reason : str
        What is wrong with it.
    index : int, optional
        Its position among the images of the call.

    Examples
    --------
    >>> print(ImageDecodeError("cat.jpg", "the file is empty", 3))
    image 3, cat.jpg: the file is empty
    """

    def __init__(self, source: object, reason: str, index: int | None = None) -> None:
        where = getattr(source, "absence", "") if _is_absent(reason) else ""
        super().__init__(f"{_name(source, index)}: {reason}{where}")
        self.source, self.reason, self.index = source, reason, index

    @property
    def can_skip(self) -> bool:
        """Whether to go on without such images is a cure: not if most files of a table are missing."""
        return not (_is_absent(self.reason) and getattr(self.source, "is_misplaced", False))

    def __reduce__(self) -> tuple[type, tuple[object, str, int | None]]:
        return type(self), (self.source, self.reason, self.index)


class ReadError(FewshotError, OSError):
    """The system failed to read an image, which may be intact: work stops and can be repeated.

    Parameters
    ----------
    source : object
        The path of the image, or a description.
    reason : str
        The error message of the system.
    number : int, optional
        The error number of the system, see `errno`.
    index : int, optional
        The position of the image among those of the call.

    Examples
    --------
    >>> import errno
    >>> print(ReadError("cat.jpg", "Too many open files", errno.EMFILE))
    cat.jpg: Too many open files (the image may be intact); close files or raise the limit (ulimit -n), then try again
    """

    def __init__(self, source: object, reason: str, number: int | None = None, index: int | None = None) -> None:
        cure = (
            "close files or raise the limit (ulimit -n)"
            if number in (errno.EMFILE, errno.ENFILE)
            else "check the disk or the connection to it"
        )
        super().__init__(f"{_name(source, index)}: {reason} (the image may be intact); {cure}, then try again")
        self.source, self.reason, self.errno, self.index = source, reason, number, index

    def __reduce__(self) -> tuple[type, tuple[object, str, int | None, int | None]]:
        return type(self), (self.source, self.reason, self.errno, self.index)


class OutOfMemoryError(FewshotError, MemoryError):
    """Memory ran out while an image was decoded, which may be intact: work stops and can be repeated.

    Parameters
    ----------
    source : object
        The path of the image, or a description.
    index : int, optional
        Its position among the images of the call.
    reason : str, default="out of memory"
        What ran out.

    Examples
    --------
    >>> print(OutOfMemoryError("cat.jpg"))
    cat.jpg: out of memory (the image may be intact); decode fewer at a time (n_jobs=1) or free memory, then try again
    """

    def __init__(self, source: object, index: int | None = None, reason: str = "out of memory") -> None:
        cure = "decode fewer at a time (n_jobs=1) or free memory, then try again"
        super().__init__(f"{_name(source, index)}: {reason} (the image may be intact); {cure}")
        self.source, self.index, self.reason = source, index, reason

    def __reduce__(self) -> tuple[type, tuple[object, int | None, str]]:
        return type(self), (self.source, self.index, self.reason)


class ArtifactError(FewshotError):
    """A saved folder cannot be used: it is damaged, incomplete, newer than this version, or made for other weights."""


class NoArtifactError(ArtifactError, ValueError):
    """A folder that was named holds no artifact of the kind, or not the version asked for, or holds other files."""


class InUseError(FewshotError):
    """Another process or thread is writing to a folder and did not finish in time; nothing was written.

    Parameters
    ----------
    folder : path
        The locked folder.
    holder : str
        The process that holds the lock, as far as known.

    Examples
    --------
    >>> print(InUseError("model", "process 42 (fewshot add model)"))
    model is locked by process 42 (fewshot add model); nothing was written; try again when it has finished
    """

    def __init__(self, folder: object, holder: str) -> None:
        super().__init__(f"{folder} is locked by {holder}; nothing was written; try again when it has finished")
        self.folder, self.holder = folder, holder

    def __reduce__(self) -> tuple[type, tuple[object, str]]:
        return type(self), (self.folder, self.holder)


class DownloadError(FewshotError):
    """Weights or data could not be downloaded."""


class StoreError(FewshotError):
    """A store of embeddings cannot be reached or used, e.g. because it holds another embedder's vectors."""


class ServiceError(FewshotError):
    """A service of ``fewshot serve`` cannot be reached, or refuses a request.

    Parameters
    ----------
    sentence : str
        What is wrong, and with which service.
    code : str, optional
        The service's word for it.
    message : str, optional
        The sentence of the service itself.

    Examples
    --------
    >>> print(ServiceError("http://127.0.0.1:8000 wants a token", "token"))
    http://127.0.0.1:8000 wants a token
    """

    def __init__(self, sentence: str, code: str = "", message: str = "") -> None:
        super().__init__(sentence)
        self.code, self.message = code, message or sentence

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (str(self), self.code, self.message)


class TooSmallError(FewshotError, ValueError):
    """A data set, or a group in it, has too few classes or rows for the requested episodes."""


class LeakError(FewshotError, ValueError):
    """Test data was used for training or selection, or is both support and query."""


class TrainingError(FewshotError, RuntimeError):
    """Meta-training cannot continue, e.g. because the loss is no longer finite."""


class MissingExtraError(FewshotError, ImportError):
    """An optional package is missing, or two packages are incompatible."""


def missing(sentence: str, extra: str) -> MissingExtraError:
    """Return the error that packages of an extra are missing, with the command that installs them.

    Parameters
    ----------
    sentence : str
        What is missing.
    extra : str
        The extra with it.

    Examples
    --------
    >>> print(missing("uvicorn is missing", "serve"))
    uvicorn is missing; run: pip install "fewshot-learn[serve]"
    """
    return MissingExtraError(f"{sentence}; run: {pip_install(extra)}")


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; the episode was finished and the state saved.

    Parameters
    ----------
    signum : int
        The signal number; a process that it terminates exits with ``128 + signum``.
    message : str
        Where training stopped, and how to resume it.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.signum, str(self))
