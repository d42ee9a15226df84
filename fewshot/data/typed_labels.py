"""Labels of tables, as people have typed them: without stray blanks, in one Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from fewshot.utils.labels import as_labels
from fewshot.utils.text import fold
from fewshot.utils.warning import warn


def clean_label(text: str) -> str:
    r"""Return a label that a person has typed, without the blanks and in the Unicode form that look the same.

    Examples
    --------
    >>> len(clean_label("Flu\u0308sse "))
    6
    """
    return unicodedata.normalize("NFC", text.strip())


def clean_labels(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the labels (n,) of a table called `name`, of which text is cleaned.

    Warns
    -----
    UserWarning
        If two labels differ only in case, inner blanks or accents.

    Examples
    --------
    >>> import numpy as np
    >>> clean_labels(np.array(["owl", "owl ", "jay"]), "the table").tolist()
    ['owl', 'owl', 'jay']
    """
    if labels.dtype.kind not in "UO":  # objects may be anything that sorts
        return labels
    cleaned = [clean_label(label) if isinstance(label, str) else label for label in labels.tolist()]
    words = [label for label in dict.fromkeys(cleaned) if isinstance(label, str) and len(label) > 1]
    for twin, label in look_alikes(words):  # single letters are characters, of which each case is a class
        alike = f"the labels {twin!r} and {label!r} in {name} differ only in case, blanks or accents"
        warn(f"{alike}; they remain two classes")
    return as_labels(cleaned, any_type=True)


def look_alikes(labels: list[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of labels that differ only in case, blanks or accents.

    Examples
    --------
    >>> list(look_alikes(["owl", "Owl", "jay"]))
    [('owl', 'Owl')]
    """
    seen: dict[str, str] = {}
    for label in labels:
        twin = seen.setdefault(fold(label), label)
        if twin != label:
            yield twin, label
