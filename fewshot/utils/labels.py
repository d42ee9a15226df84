"""Check and convert labels, which are of one type and never missing, and the label of queries of no known class."""

from __future__ import annotations

import enum
import os
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import brief
from fewshot.utils.containers import is_missing, own_index, to_array
from fewshot.utils.warning import warn

#: Most characters of a label.
LONGEST = 10_000
#: Longer labels are stored as objects: each element of an array of text is as wide as the longest.
WIDEST = 256
#: Most characters of padding in an array of text.
WASTE = 2**24

_EXACT = {bool: "boolean", int: "integer", float: "float", str: "string"}
_KINDS = {"b": "boolean", "i": "integer", "u": "integer", "f": "float", "U": "string", "S": "bytes"}


def plain_label(label: Any) -> Any:
    """Return one label as a plain Python value; a label of an unknown type is returned unmodified.

    Members of an enumeration of text or integers become the text or integer that they equal.

    Examples
    --------
    >>> import enum
    >>> plain_label(enum.StrEnum("Kind", {"SPIRAL": "Sp"}).SPIRAL), plain_label(np.int8(3))
    ('Sp', 3)
    """
    if type(label) in _EXACT:
        return label
    # With the methods of the base classes: a subclass may override them.
    if isinstance(label, str):
        return str.__str__(label)
    if isinstance(label, int):
        return int.__int__(label)
    if isinstance(label, float):
        return float.__float__(label)
    if isinstance(label, np.generic):
        numbers = {"b": bool, "i": int, "u": int, "f": float}
        return numbers[label.dtype.kind](label) if label.dtype.kind in numbers else label
    if getattr(label, "ndim", None) == 0 and hasattr(label, "item"):  # an array or tensor of one element
        return label.item()
    return label.as_py() if hasattr(label, "as_py") else label


def as_labels(
    y: Any,
    *,
    name: str = "Input y",
    known: NDArray[Any] | None = None,
    any_type: bool = False,
    warning: type[Warning] = UserWarning,
) -> NDArray[Any]:
    """Return labels as a 1-D array of booleans, integers, floats or text, never coerced from one to another.

    Text becomes an array of text of fixed width, or an array of objects if fixed width would lose a NUL at the end or
    waste memory on long labels.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1), or iterable of n labels
        Labels, in any container with an order: lists, arrays, series and columns of any library, tensors, generators.
        A 2-D column is accepted with a warning.
    name : str, default="Input y"
        Name of the labels in messages.
    known : ndarray, optional
        Known labels, whose type the new ones must have.
    any_type : bool, default=False
        Whether to also accept fractions and sortable objects of other types.
    warning : type of Warning, default=UserWarning
        Category of the warning about a column.

    Raises
    ------
    TypeError
        If labels have several types, or are bytes.
    ValueError
        If a label is missing, not categorical, too long or too large, or the rows do not have one label each.

    Examples
    --------
    >>> as_labels(label for label in ["ant", "bee"])
    array(['ant', 'bee'], dtype='<U3')
    """
    found = y
    if type(y) is not np.ndarray or y.dtype.kind == "V":
        try:
            found = to_array(y, as_list=True)
        except TypeError as error:
            raise ValueError(f"{name} is not a list of labels: {error} with one label for each row") from None
    found = _one_dimensional(found, name, warning)
    labels: NDArray[Any] | list[Any]
    if isinstance(found, np.ndarray) and found.dtype.kind in "biufUSMmc":
        labels, kinds = _checked_array(found, name, y), {_KINDS.get(found.dtype.kind, found.dtype.type.__name__)}
    else:
        labels, kinds = _plain(list(found), name, y)
    before = ""
    if known is not None and known.size and len(labels):
        first, of_known = _plain(list(known.reshape(-1)[:1]), name)
        before = f" (the known ones, such as {brief(repr(first[0]))}, are {min(of_known)})"
        kinds = kinds | of_known
    _refuse_mixed(kinds, before)
    array = labels if isinstance(labels, np.ndarray) else _to_array(labels, kinds, name)
    if not any_type:
        _refuse_no_classes(array, kinds)
    elif array.dtype.kind == "O" and kinds != {"string"}:
        _refuse_unsorted(array, name)
    if known is not None and known.dtype.kind in "iu" and array.dtype.kind == "f":
        return _integers(list(map(int, array.tolist())), name)  # as floats, large integers would lose digits
    return array


def label_of_text(text: str, classes: NDArray[Any]) -> Any:
    """Convert text, such as an argument of a command, to the type of the labels, and to the Unicode form of its class.

    Raises
    ------
    ValueError
        If it cannot be one.

    Examples
    --------
    >>> label_of_text("7", np.array([1, 2])), label_of_text("7", np.array(["a"]))
    (7, '7')
    """
    kind = classes.dtype.kind
    if kind in "iu":
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"the label {text!r} is not a whole number, but the classes are numbers") from None
    if kind == "b":
        if text not in ("True", "False"):
            raise ValueError(f"the label {text!r} is neither True nor False, but the classes are")
        return text == "True"
    if kind == "f":
        return float(text)
    if text.isascii():
        return text
    known = set(classes.tolist())
    return next((form for form in unicode_forms(text) if form in known), text)


def unicode_forms(text: str) -> list[str]:
    """Return a text, and its composed and decomposed Unicode forms: macOS has names of files in the latter.

    Examples
    --------
    >>> list(map(len, unicode_forms("café"))), unicode_forms("tea")
    ([4, 5], ['tea'])
    """
    if text.isascii():
        return [text]
    return list(dict.fromkeys([text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]))


def in_known_forms(
    labels: NDArray[Any], known_among: Callable[[Iterable[Any]], Iterable[Any]]
) -> tuple[NDArray[Any], dict[str, str]]:
    """Return labels (n,), those that are a class in another Unicode form as that class; and what was changed.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Labels.
    known_among : callable
        Returns those of some labels that are classes.

    Examples
    --------
    >>> composed, decomposed = unicode_forms("café")
    >>> in_known_forms(np.array([composed, "tea"]), {decomposed, "tea"}.intersection)[0][0] == decomposed
    True
    """
    if labels.dtype.kind not in "UO":
        return labels, {}
    accented = [label for label in set(labels.tolist()) if isinstance(label, str) and not label.isascii()]
    known = set(known_among([form for label in accented for form in unicode_forms(label)])) if accented else set()
    forms = {label: next((form for form in unicode_forms(label) if form in known), label) for label in accented}
    changed = {label: form for label, form in forms.items() if label != form}
    if not changed:
        return labels, {}
    return as_labels([changed.get(label, label) for label in labels.tolist()]), changed


def check_length(label: Any, what: str) -> Any:
    """Return a label; raise ValueError if it is too long."""
    if isinstance(label, str) and len(label) > LONGEST:
        raise ValueError(
            f"{what} has {len(label)} characters ({label[:20]!r}...); a label may have {LONGEST}, so shorten it"
        )
    return label


def refuse_file(text: str, classes: NDArray[Any]) -> None:
    """Raise ValueError if what was typed as a new label is a file: the first image, where the label was forgotten."""
    if os.path.splitext(text)[1] and os.path.isfile(text) and text not in classes.tolist():
        raise ValueError(
            f"{text} is a file, but the name of the class comes before the images; expected: add DIR LABEL IMAGES"
        )


def warn_if_look_alike(classes: NDArray[Any]) -> None:
    """Warn if two labels differ only in their Unicode form; they stay two classes."""
    labels, seen = classes.tolist(), dict[str, str]()
    if classes.dtype.kind not in "UO" or not all(isinstance(c, str) for c in labels) or all(map(str.isascii, labels)):
        return
    for label in labels:
        twin = seen.setdefault(unicodedata.normalize("NFC", label), label)
        if twin != label:
            warn(
                f"the labels {twin!r} ({twin!a}) and {label!r} ({label!a}) are one text in two Unicode forms; "
                "they stay two classes (unicodedata.normalize unifies them)"
            )
            return


def other_forms(classes: NDArray[Any]) -> list[str]:
    """Return the composed and decomposed Unicode forms of text labels that are not among them.

    Examples
    --------
    >>> [len(form) for form in other_forms(np.array(["café", "tea"]))]
    [5]
    """
    if classes.dtype.kind not in "UO" or not all(isinstance(label, str) for label in classes):
        return []
    accented = [label for label in classes.tolist() if not label.isascii()]
    return sorted({form for label in accented for form in unicode_forms(label)}.difference(accented))


def _one_dimensional(y: NDArray[Any] | list[Any], name: str, warning: type[Warning]) -> NDArray[Any] | list[Any]:
    """Return the labels of a column, with a warning; return 1-D labels unmodified."""
    if isinstance(y, np.ndarray):
        shape, is_column = y.shape, y.ndim == 2 and y.shape[1] == 1
        column: Any = y[:, 0] if is_column else y
    else:
        # A list of lists is a column if each of them has one label.
        sizes: set[int | None] = set() if set(map(type, y)) <= set(_EXACT) else {_size(row) for row in y}
        is_column = sizes == {1}
        shape = (len(y), *sorted(size for size in sizes if size is not None))
        column = [to_array(row)[0] for row in y] if is_column else y
    if is_column:
        warn(
            "A column-vector y was passed when a 1d array was expected; its only column was used as the labels, so "
            "pass y.ravel() or that column",
            warning,
        )
    elif len(shape) != 1:
        raise ValueError(f"{name} should be a 1d array of one label for each row, got an array of shape {shape}")
    return column


def _size(row: Any) -> int | None:
    """Return the number of elements of a row; None for a single label."""
    if isinstance(row, (list, tuple)) or getattr(row, "ndim", 0) == 1:
        return len(row)
    return None


def _checked_array(labels: NDArray[Any], name: str, y: Any) -> NDArray[Any]:
    """Check the labels in an array of one numpy type, and convert them if needed."""
    kind = labels.dtype.kind
    if kind in "Mm" and (missing := np.flatnonzero(np.isnat(labels))).size:
        _refuse_missing("NaT", missing[0], name, y)
    if kind == "f" and (missing := np.flatnonzero(~np.isfinite(labels))).size:
        _refuse_missing("NaN or infinity", missing[0], name, y)
    if kind == "U" and labels.dtype.itemsize > 4 * WIDEST:
        return _text(labels.tolist(), name)
    if kind == "f" and labels.dtype.itemsize > 8:
        return labels.astype(np.float64)
    if labels.dtype == np.uint64:
        # Joining unsigned and signed 64-bit integers gives floats, which lose digits.
        return _integers(labels.tolist(), name)
    return labels if labels.dtype.isnative else labels.astype(labels.dtype.newbyteorder("="))


def _plain(labels: list[Any], name: str, y: Any = None) -> tuple[list[Any], set[str]]:
    """Return labels as plain Python values, and their kinds; raise if one is missing."""
    if not set(map(type, labels)) <= set(_EXACT):
        labels = [plain_label(label) for label in labels]
    types = set(map(type, labels))
    if types - {bool, int, str}:
        for i, label in enumerate(labels):
            if is_missing(label):
                _refuse_missing("NaN" if isinstance(label, float) else repr(label), i, name, y)
            if isinstance(label, enum.Enum):
                raise ValueError(
                    f"Unknown label type: {label!r} at index {i} is a member of an enumeration that is neither text "
                    "nor integer; give its value (label.value)"
                )
    kinds = {_EXACT.get(kind) or ("bytes" if issubclass(kind, bytes) else kind.__name__) for kind in types}
    if float in types and (infinite := [i for i, x in enumerate(labels) if x in (float("inf"), float("-inf"))]):
        _refuse_missing("infinity", infinite[0], name, y)
    if kinds == {"integer", "float"} and all(label == int(label) for label in labels):
        labels, kinds = list(map(int, labels)), {"integer"}  # 1.0 is 1, and large integers keep their digits
    return labels, kinds


def _to_array(labels: list[Any], kinds: set[str], name: str) -> NDArray[Any]:
    types = {type(label) for label in labels}
    if types <= {str} and labels:
        return _text(labels, name)
    if types == {int}:
        return _integers(labels, name)
    if types and types <= {int, float, bool}:
        return np.array(labels, dtype=np.bool_ if types == {bool} else np.float64)
    if not labels or all(isinstance(label, np.generic) for label in labels):
        return np.array(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def _text(labels: list[str], name: str) -> NDArray[Any]:
    lengths = list(map(len, labels))
    longest = max(lengths, default=0)
    if longest > LONGEST:
        place = lengths.index(longest)
        check_length(labels[place], f"the label at index {place} of {name.removeprefix('Input ')}")
    wasted = longest * len(labels) - sum(lengths)
    if longest > WIDEST or wasted > WASTE or any(label.endswith("\0") for label in labels):
        return np.array(labels, dtype=object)  # numpy's text drops a NUL at the end of a label
    return np.array(labels, dtype=np.str_)


def _integers(labels: list[int], name: str) -> NDArray[np.int64]:
    try:
        return np.array(labels, dtype=np.int64)
    except OverflowError:
        index = next(i for i, label in enumerate(labels) if not -(2**63) <= label < 2**63)
        raise ValueError(
            f"{name} has an integer at index {index} that does not fit 64 bits (signed); cast the labels to strings"
        ) from None


def _refuse_missing(shown: str, row: int, name: str, y: Any) -> NoReturn:
    own = own_index(y, row)
    raise ValueError(
        f"{name} contains {shown} at {'row' if own else 'index'} {row}{own}; give every row a label, or leave out "
        "those without"
    )


def _refuse_mixed(kinds: set[str], before: str = "") -> None:
    if "bytes" in kinds:
        raise TypeError("labels are bytes; decode them to strings first (label.decode())")
    # Integral floats and integers name the same classes: 1.0 == 1.
    merged = {"integer" if kind == "float" else kind for kind in kinds}
    if len(merged) > 1:
        raise TypeError(
            f"labels mix the types {' and '.join(sorted(kinds))}{before}; numpy would turn one silently into the "
            "other, so convert them all to one type"
        )


def _refuse_no_classes(array: NDArray[Any], kinds: set[str]) -> None:
    """Raise for fractions and objects, which name no classes."""
    if array.dtype.kind == "f" and np.any(array != np.floor(array)):
        raise ValueError(
            "Unknown label type: continuous. Labels are classes; cast them to integers or strings "
            "(y.astype(int) or y.astype(str))"
        )
    if array.dtype.kind not in "biufUMm" and kinds != {"string"}:
        raise ValueError(
            f"Unknown label type: {' and '.join(sorted(kinds))}. Labels are classes; cast them to integers or strings"
        )


def _refuse_unsorted(array: NDArray[Any], name: str) -> None:
    try:
        sorted(set(array.tolist()))
    except TypeError as error:
        raise TypeError(f"{name} cannot be sorted ({error}); make the labels one type, e.g. all strings") from None


# ---- the label of queries that belong to no known class --------------------------------------------------------------


def unknown_mark(unknown_label: Any, classes: NDArray[Any]) -> Any:
    """Return the label of unknown queries: `unknown_label`, or by default ``"unknown"`` or -1, of the classes' type.

    Raises
    ------
    ValueError
        If classes of this type have no default, or the label is a class.

    Examples
    --------
    >>> unknown_mark(None, np.array(["ant", "bee"]))
    'unknown'
    """
    mark = plain_label(unknown_label)
    if mark is None:
        if classes.dtype.kind in "iu":
            mark = -1
        elif isinstance(classes[0], str):
            mark = "unknown"
        else:
            raise ValueError(f"no default unknown_label for labels of type {classes.dtype}; set one")
    if _is_class(mark, classes):
        raise ValueError(
            f"unknown_label={mark!r} is a class; choose another, or rename the class: an answer must tell the two apart"
        )
    return mark


def check_unknown(unknown_label: Any, classes: NDArray[Any], before: NDArray[Any] | None = None) -> None:
    """Raise for a change of classes that would make answers ambiguous between a class and "unknown".

    Parameters
    ----------
    unknown_label : object
        As for `unknown_mark`.
    classes : ndarray
        The classes after the change.
    before : ndarray, optional
        The classes before it. If no `unknown_label` is set and they were ambiguous already, nothing is raised.

    Raises
    ------
    ValueError
        As `unknown_mark`.
    """
    if before is not None and unknown_label is None:
        try:
            unknown_mark(unknown_label, before)
        except ValueError:
            return
    unknown_mark(unknown_label, classes)


def mark_unknown(
    labels: NDArray[Any], unknown: NDArray[np.bool_], unknown_label: Any, classes: NDArray[Any]
) -> NDArray[Any]:
    """Return `labels` (n, ...) with the unknown label in the `unknown` rows (n,); as objects if the types differ.

    If no label is set, and there is no default or the default is a class, these rows are None, with a warning.

    Raises
    ------
    ValueError
        If the given `unknown_label` is a class.
    """
    if not unknown.any():
        return labels
    try:
        mark = unknown_mark(unknown_label, classes)
    except ValueError as error:
        if unknown_label is not None:
            raise
        warn(f"unknown queries are answered with None: {error}")
        mark = None
    marked = labels.astype(object)
    marked[unknown] = mark
    same_kind = mark is not None and np.asarray(mark).dtype.kind == classes.dtype.kind
    fits = not isinstance(mark, str) or (len(mark) <= WIDEST and not mark.endswith("\0"))
    return np.asarray(marked.tolist()) if same_kind and fits and labels.dtype != object else marked


def _is_class(mark: Any, classes: NDArray[Any]) -> bool:
    if isinstance(mark, str) and mark.endswith("\0"):  # numpy ignores the NUL
        return mark in classes.tolist()
    same = np.asarray(classes == mark)
    return bool(same.any()) and any(label == mark for label in classes[same].tolist())
