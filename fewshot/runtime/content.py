"""What files hold may have been written by anyone: an error says which file cannot be used, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewshot.errors import ArtifactError


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Name the file where what it holds leads to an error.

    Raises
    ------
    ArtifactError
        Instead of any other error but those of the system.

    Examples
    --------
    >>> with of_file(Path("preprocess.json")):
    ...     {}["width"]
    Traceback (most recent call last):
    fewshot.errors.ArtifactError: preprocess.json cannot be used: 'width' is missing; export it again
    """
    try:
        yield
    except (ArtifactError, OSError):
        raise
    except Exception as error:  # those of zip, JSON and onnxruntime share no other class
        reason = (
            f"{error} is missing" if isinstance(error, KeyError) else next(iter(str(error).splitlines()), repr(error))
        )
        raise ArtifactError(f"{path} cannot be used: {reason}; export it again") from error
