"""The classes of a version in the order in which people look for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fewshot.utils.text import natural_key


@dataclass(frozen=True)
class Ordered:
    """Names of classes as text, what they are sorted by, and the number of examples of each.

    Attributes
    ----------
    names, keys, counts
        Of each class, sorted by key.
    """

    names: list[str]
    keys: list[Any]
    counts: list[int]

    @classmethod
    def of(cls, labels: Sequence[Any], counts: Sequence[int]) -> Ordered:
        """Sort classes, given by their labels."""
        keys = list(map(natural_key, labels))
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return cls([str(labels[i]) for i in order], [keys[i] for i in order], [counts[i] for i in order])

    @cached_property
    def folded(self) -> list[str]:
        """Names, to search in whatever the case of letters."""
        return [name.casefold() for name in self.names]
