"""What the commands print: any text on any terminal, and no work that fails because nobody can be told of it."""

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

    Where standard output does not take them (its disk is full) the work stands nevertheless: the last line goes to
    standard error, with the reason.
    """
    try:
        put("".join(f"{printable(line)}\n" for line in lines))
    except BrokenPipeError:  # the reader, such as head, has seen enough
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        complain(f"{lines[-1] if lines else ''} (standard output cannot be written: {reason})")


def put(text: str) -> None:
    """Print what was asked for, such as a table: characters that the terminal has not become backslashes.

    Raises
    ------
    OSError
        If standard output does not take it.
    """
    stream = sys.stdout
    if stream is None or getattr(stream, "closed", False):  # a service, or a program with windows
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
    """Print what went wrong on standard error, if there is one."""
    note(f"fewshot: {shortened(printable(in_flags(str(sentence))))}")


def note(line: object) -> None:
    """Print a line on standard error, if there is one."""
    if sys.stderr is not None:  # print would take standard output instead
        try:
            sys.stderr.write(_encodable(f"{printable(line)}\n", sys.stderr))
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            _discard(sys.stderr)


@contextmanager
def ready_streams() -> Iterator[None]:
    """Show warnings as sentences inside the block, and let no file take the number of a closed standard stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
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
    """Let what a stream still holds vanish: at its end Python would try again, and fail."""
    with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())
