"""Printing: any text on any terminal, and no work that fails because its message cannot be printed."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fewshot.cli.flags import in_flags
from fewshot.utils.text import printable, shortened


def say(*lines: object) -> None:
    """Print lines about work that is done or under way.

    If standard output fails, for example because the disk is full, the work is still done: the last line goes to
    standard error, with the reason.
    """
    try:
        put("".join(f"{printable(line)}\n" for line in lines))
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        complain(f"{lines[-1] if lines else ''} (standard output cannot be written: {reason})")


def put(text: str) -> None:
    """Print requested output, such as a table; characters that the terminal lacks become backslash escapes.

    Raises
    ------
    OSError
        If standard output fails.
    """
    stream = sys.stdout
    if stream is None or getattr(stream, "closed", False):  # e.g. a service without a console
        return
    if _is_terminal(stream):
        text = printable(text, keep="\n\t")
    try:
        stream.write(_encodable(text, stream))
        stream.flush()
    except OSError as error:
        _discard(stream)
        raise type(error)(error.errno, error.strerror, "standard output") from None


def complain(sentence: object) -> None:
    """Print an error message on standard error, if there is one."""
    note(f"fewshot: {shortened(printable(in_flags(str(sentence))))}")


def note(line: object) -> None:
    """Print a line on standard error, if there is one."""
    if sys.stderr is not None:  # print() would use standard output instead
        try:
            sys.stderr.write(_encodable(f"{printable(line)}\n", sys.stderr))
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            _discard(sys.stderr)


def quoted(label: Any) -> str:
    """Return a label, quoted for a sentence."""
    return f"'{shortened(printable(label), 100)}'" if isinstance(label, str) else repr(label)


def n_classes(n: int) -> str:
    """Return ``n class(es)`` with the right plural."""
    return f"{n} class" if n == 1 else f"{n} classes"


def n_images(n: int) -> str:
    """Return ``n image(s)`` with the right plural."""
    return f"{n} image" if n == 1 else f"{n} images"


@contextmanager
def ready_streams() -> Iterator[None]:
    """Inside the block, show warnings as sentences, and keep the descriptors of closed standard streams occupied."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    before = warnings.formatwarning, sys.stderr
    warnings.formatwarning = _as_sentence
    if getattr(sys.stderr, "closed", False):
        sys.stderr = None  # a warning would end the command
    try:
        yield
    finally:
        warnings.formatwarning, sys.stderr = before


def _as_sentence(message: Warning | str, *where: Any, **more: Any) -> str:
    return f"fewshot: {printable(in_flags(str(message)))}\n"


def _encodable(text: str, stream: Any) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _discard(stream: Any) -> None:
    """Discard what a stream still buffers: Python would try to write it again at exit, and fail."""
    with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())
