"""Errors as clients see them: a status, a code and one sentence; no stack trace leaves."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from sklearn.exceptions import NotFittedError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from fewshot.errors import (
    ArtifactError,
    FewshotError,
    ImageDecodeError,
    InUseError,
    MissingExtraError,
    OutOfMemoryError,
    ReadError,
    brief,
)
from fewshot.utils.text import as_unicode

#: Numbers of the system for a disk, or a share of it, that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Numbers of the system for files that the user of the service may not write.
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


#: What clients are told instead of the message for people at the machine.
_INSTEAD = {
    "empty": "nothing was learned yet; teach a class first",
    "in_use": "another program is changing the classifier; nothing was changed, so try again when it has finished",
}
#: A message about a parameter of Python, which clients do not have, and what they are told instead.
_NAMED_UNKNOWN = re.compile("^unknown_label=(.+) is a class; .*", re.DOTALL)
_NOT_UNKNOWN = r"\1 is the answer to images of no class, so no class can have this name; "
#: Cures that only Python has.
_CALIBRATE = "call calibrate(X, y) with held-out classes first"
_OF_PYTHON = re.compile(", or (call calibrate|give held_out)$")


class Problem(Exception):
    """What went wrong, for a client.

    Parameters
    ----------
    status : int
        Status of HTTP.
    code : str
        A word for programs.
    message : str
        One sentence for people.
    retry_after : int, optional
        Seconds after which to try again.

    Examples
    --------
    >>> Problem(404, "no_class", "there is no class 'ant'").body()
    {'error': {'code': 'no_class', 'message': "there is no class 'ant'"}}
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def body(self) -> dict[str, Any]:
        """Return what is sent."""
        return {"error": {"code": self.code, "message": self.message}}

    def response(self, headers: Mapping[str, str] | None = None) -> JSON:
        """Return the response."""
        own = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status in (408, 413):  # the rest of the body is not read
            own["Connection"] = "close"
        return JSON(self.body(), self.status, {**own, **(headers or {})})


class JSON(Response):
    """A response of JSON in ASCII, which any label fits in, also one that is not valid Unicode."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def busy(what: str) -> Problem:
    """Return the problem that there is more to do than the service takes."""
    return Problem(503, "busy", f"{what}; try again in a second", retry_after=1)


def without_parameter(message: str, cure: str = "choose another") -> str:
    """Return what clients are told instead of a message about a parameter of Python, with its cure for them.

    Examples
    --------
    >>> without_parameter("unknown_label='?' is a class; choose another", "rename the class")
    "'?' is the answer to images of no class, so no class can have this name; rename the class"
    """
    message = _NAMED_UNKNOWN.sub(_NOT_UNKNOWN + cure, message)
    message = message.replace(f"{_CALIBRATE}, or ", "").replace(_CALIBRATE, "run fewshot calibrate first")
    return _OF_PYTHON.sub("", message).replace("reject='balanced' needs", "the balanced rule needs")


def problem_of(error: BaseException) -> Problem:
    """Return the problem that explains an exception to a client; mistakes of the service are not explained."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ClientDisconnect):
        return Problem(400, "gone", "the client went before all of its request had come")
    if isinstance(error, OSError) and error.errno in _FULL:
        return Problem(507, "disk_full", "the disk is full, so nothing was changed; free some space and try again")
    if isinstance(error, (MemoryError, OutOfMemoryError)) or "can't allocate memory" in str(error):
        return Problem(503, "no_memory", "there is too little memory now; send fewer or smaller images", retry_after=5)
    for kind, status, code in (
        (ReadError, 503, "unreadable"),
        (ImageDecodeError, 422, "unreadable_image"),
        (InUseError, 503, "in_use"),
        (NotFittedError, 409, "empty"),
        (MissingExtraError, 501, "missing_package"),
        (ArtifactError, 409, "conflict"),
        (FewshotError, 422, "invalid"),
        (ValueError, 422, "invalid"),
        (TypeError, 422, "invalid"),
    ):
        if isinstance(error, kind) and _is_said_by_us(error):
            retry = 1 if status == 503 else None
            said = _INSTEAD.get(code) or without_parameter(str(error))
            return Problem(status, code, brief(as_unicode(said), 1000), retry)
    if isinstance(error, OSError):
        logging.getLogger("fewshot.serve").error("the system failed", exc_info=error)
        if error.errno in _REFUSED:  # waiting does not help
            why = f"the system refuses the service a file of its folder ({os.strerror(error.errno)})"
            cure = "let its user write there, or start it with --read-only"
            return Problem(503, "not_writable", f"{why}, so nothing was changed; {cure}")
        return Problem(503, "system", "the system could not read or write a file; see the log", retry_after=5)
    return Problem(500, "internal", "the service has made a mistake, which its log explains")


def without_place(text: str, folder: str) -> str:
    """Return text with the name of a folder instead of its path, which is none of a client's business.

    Examples
    --------
    >>> without_place("/srv/secret/birds is damaged", "/srv/secret/birds")
    'birds is damaged'
    """
    for place in (os.path.realpath(folder), os.path.abspath(folder)):
        text = text.replace(place, os.path.basename(place))
    return text


def _is_said_by_us(error: BaseException) -> bool:
    """Whether an error was raised by this package: the message of any other is no sentence for a client."""
    if isinstance(error, FewshotError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("fewshot.")
