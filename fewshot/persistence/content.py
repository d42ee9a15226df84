"""Check the content of files that anyone may have written: JSON within bounds, and errors that name the file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewshot.errors import ArtifactError, DownloadError, MissingExtraError

#: Most numbers in a list of a file, and most characters of a word.
MOST_NUMBERS, MOST_CHARACTERS = 1 << 20, 64


def json_object(raw: bytes | str) -> dict[str, Any]:
    """Return the JSON object in the content of a file.

    Raises
    ------
    ValueError
        If it holds anything else, or is nested deeper than Python can read.

    Examples
    --------
    >>> json_object("[" * 100_000)
    Traceback (most recent call last):
    ValueError: its JSON is nested too deeply
    """
    try:
        found = json.loads(raw)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__} instead of a JSON object")
    return found


@contextmanager
def errors_of_file(path: str | Path, cure: str) -> Iterator[None]:
    """Turn errors about the content of a file into `ArtifactError`, which names the file and the cure.

    Raises
    ------
    ArtifactError
        Instead of any error except those of the system and of missing packages or downloads.

    Examples
    --------
    >>> with errors_of_file("preprocess.json", "export it again"):
    ...     {}["width"]
    Traceback (most recent call last):
    fewshot.errors.ArtifactError: preprocess.json cannot be used: 'width' is missing; export it again
    """
    try:
        yield
    except (ArtifactError, MissingExtraError, DownloadError, OSError):
        raise
    except Exception as error:  # JSON, zip, torch, onnxruntime and Python have no other class in common
        text = f"{error} is missing" if isinstance(error, KeyError) else str(error) or repr(error)
        reason = "".join(c if c.isprintable() else " " for c in text.strip().partition("\n")[0])
        raise ArtifactError(f"{path} cannot be used: {reason:.400}; {cure}") from error


def is_whole(value: object, least: int = 0, most: int = 2**53) -> bool:
    """Whether a JSON value is a whole number in a range; True and False are not.

    Examples
    --------
    >>> is_whole(3), is_whole(True), is_whole(-1), is_whole(1.0)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a JSON value is a finite number in a range."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max and least <= value <= most  # type: ignore[arg-type, operator]


def is_word(value: object) -> bool:
    """Whether a JSON value is a short text that cannot be an address or a path.

    Examples
    --------
    >>> is_word("sqeuclidean"), is_word("../x"), is_word("hf-hub:x"), is_word("a" * 100)
    (True, False, False, False)
    """
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS and value.replace("-", "_").isidentifier()
