"""Something large that is saved in parts: a base file, and the changes since, of which a save writes at most one.

A change replaces earlier changes that are no larger, so that there are few. Small ones are in the manifest, others in
files. Once a change would be an eighth of the base, there is a new base. Without torch.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray
from safetensors.numpy import save

from fewshot.persistence.artifact import Part

#: A change is smaller than the base divided by this; changes of at most INLINE bytes are in the manifest, since a file
#: takes as long to write as all else together.
BASE_SHARE, INLINE = 8, 2**15


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of the memory, or of the support: the state after it, its size, and its bytes if it is in the manifest."""

    model: Any
    size: int
    inline: bytes | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """What holds a state: the base, changes in files, and changes in the manifest."""

    all: tuple[Segment, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()  # a copy writes all files again

    @property
    def inline(self) -> list[str]:
        """The changes in the manifest."""
        return [b64encode(one.inline).decode() for one in self.all if one.inline is not None]

    def with_state(
        self,
        base: Segment,
        since: Callable[[Any], Mapping[str, NDArray[Any]] | None],
        write: Callable[[Path], object],
        name: str,
        named: Callable[[int], str],
    ) -> tuple[Self, dict[str, Part]]:
        """Return the segments of a later state and their files, of which at most one has to be written.

        Parameters
        ----------
        base : Segment
            The whole state.
        since : callable
            Returns the change since an earlier state, as arrays: none if there is no change, None if it is not known.
        write : callable
            Writes the whole state to a path.
        name : str
            Name of the file of the base.
        named : callable
            Returns the name of a file of changes by its number, from 1.
        """
        held = list(self.all)
        while held:
            if (change := since(held[-1].model)) is None:
                break
            if not change:
                return type(self)(tuple(held)), _files(held, name, named)
            raw = save(dict(change))
            new = Segment(base.model, len(raw), raw if len(raw) <= INLINE else None)
            if len(held) == 1 and new.size * BASE_SHARE > held[0].size:
                break
            # Files come before what is in the manifest.
            if len(held) == 1 or (held[-1].size > new.size and (held[-1].inline is None or new.inline is not None)):
                files = _files([*held, new], name, named)
                if new.inline is None:
                    files[named(len(files) - 1)] = (None, partial(_write_change, raw=raw))
                return type(self)((*held, new)), files
            held.pop()
        return type(self)((base,)), {name: (None, write)}


def _write_change(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def _files(segments: list[Segment], name: str, named: Callable[[int], str]) -> dict[str, Part]:
    """Return the files of segments, all of which are there."""
    n = sum(one.inline is None for one in segments)
    return dict.fromkeys([name, *map(named, range(1, n))])
