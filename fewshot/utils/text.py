"""Make file names and labels, which may hold any characters, safe for a terminal or page."""

from __future__ import annotations

import difflib
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from fewshot.errors import brief

#: Joiners, which Persian words and emoji of several people need, and which do not affect the layout.
_JOINERS = "\u200c\u200d"


_NUMBER = re.compile(r"0*([0-9]+)")
#: Accents of Latin, Greek and Cyrillic letters; the marks of other scripts make other words.
_ACCENT = re.compile("[\u0300-\u036f]")


def natural_key(label: Any) -> Any:
    """Return what people would sort a label by: whatever the case of its letters, and its numbers as numbers.

    Labels that are not text are returned as they are.

    Examples
    --------
    >>> sorted(["img10", "Owl", "img2", "ant", "Ant"], key=natural_key)
    ['Ant', 'ant', 'img2', 'img10', 'Owl']
    """
    if not isinstance(label, str):
        return label
    return f"{_NUMBER.sub(_with_length, label.casefold())}\0{label}"


def fold(label: str) -> str:
    """Return a label without case, accents and the number of its blanks, to find labels that people take for one.

    A single letter keeps its accent: there, each is a class of characters.

    Examples
    --------
    >>> fold(" Grey  Heron"), fold("Orchidée"), fold("É")
    ('grey heron', 'orchidee', 'é')
    """
    folded = " ".join(unicodedata.normalize("NFC", label).casefold().split())
    return folded if len(folded) < 2 else _ACCENT.sub("", unicodedata.normalize("NFD", folded))


def _with_length(found: re.Match[str]) -> str:
    """Return a number after the count of its digits, so that it sorts as text."""
    return f"{len(found[1]):04}{found[1]}"


def as_unicode(value: Any) -> Any:
    r"""Return text with bytes that are not UTF-8 written as escapes; return other values unchanged.

    Python reads such bytes, in file names and arguments, as lone surrogates, which cannot be encoded.

    Examples
    --------
    >>> as_unicode("caf\udce9"), as_unicode(7)
    ('caf\\xe9', 7)
    """
    if not isinstance(value, str):
        return value
    try:
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # surrogates that encode no byte
        return value.encode(errors="backslashreplace").decode()


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "image"), counted(2, "class"), counted(0, "copy", "copies")
    ('1 image', '2 classes', '0 copies')
    """
    return f"{n} {noun if n == 1 else plural or noun + ('es' if noun.endswith('s') else 's')}"


def signed(value: float, digits: int = 1) -> str:
    """Return a change with its sign, which one that rounds to zero has not.

    Examples
    --------
    >>> signed(1.25, 2), signed(-0.04), signed(0.04), signed(-0.05, 2)
    ('+1.25', '0.0', '0.0', '-0.05')
    """
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def closest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about a word that is not known: which known one it may mean; empty if none is near.

    Examples
    --------
    >>> closest("lable", ["label", "probability"]), closest("x", ["label"])
    ('; did you mean label?', '')
    """
    close = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def listed(values: Sequence[Any], most: int = 10) -> str:
    """Return the first `most` values as text for a message.

    Examples
    --------
    >>> listed(["ant", "bee", "cat"], 2)
    "'ant', 'bee', ... (3 in all)"
    """
    shown = ", ".join(brief(repr(value)) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"


def printable(value: Any, keep: str = "") -> str:
    r"""Return text with backslash escapes for characters that a terminal would interpret or cannot show.

    These are control characters, escape sequences, line ends, marks that change the direction of writing, and bytes
    that are not UTF-8.

    Parameters
    ----------
    value : object
        Text, or a value to show as text.
    keep : str, default=""
        Characters to keep, such as line ends.

    Examples
    --------
    >>> printable("a\x1b[2J\n")
    'a\\x1b[2J\\x0a'
    """
    text = as_unicode(str(value))
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_harmless(c) else _written_out(c) for c in text)


def shortened(text: str, most: int = 500) -> str:
    """Return text without its middle if it has more than `most` characters.

    Examples
    --------
    >>> shortened("a" * 9 + "b" * 9, 10)
    'aaaaa ... bbbbb'
    """
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def wrapped(line: str, most: int) -> str:
    """Return a line in lines of `most` characters; below an indented one, they begin at its second column.

    Examples
    --------
    >>> print(wrapped("  fit   learn the classes", 20))
      fit   learn the
            classes
    """
    first = re.match(r" +\S+ +", line)
    below = " " * (first.end() if first else 0)
    return textwrap.fill(line, max(most, 2 * len(below)), subsequent_indent=below, break_long_words=False)
