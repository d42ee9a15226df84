"""The rows of a large saved model on disk, of its support and of its memory: a base and the changes since.

A change says which rows are gone, which classes have other labels, and what is new. Changes are applied to arrays, so
that what is loaded is the same as if everything had been written. Without torch.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from fewshot.images.class_changes import read_classes
from fewshot.images.parts import Parts, Segment
from fewshot.images.support import Support
from fewshot.persistence.arrays import map_arrays, read_arrays, write_arrays
from fewshot.persistence.artifact import Part
from fewshot.persistence.content import labels_from_arrays, labels_to_arrays, labels_to_json
from fewshot.utils.labels import as_labels

#: Files of rows, and key in the manifest of changes that are in it.
MEMORY, SUPPORT, APPENDED = "memory", "support", "appended"
#: Beginnings of the names of arrays of labels: those that the codes of rows stand for, and those of renamed classes.
OF, OLD, NEW = "of.", "old.", "new."
NO_LABELS = np.empty(0, object)
#: Bytes of the digest of a row, and no digests.
_DIGEST, NOTHING = 16, np.empty((0, 2), np.uint64)
P = TypeVar("P", bound=Parts)


def labels_named(prefix: str, labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return labels as arrays whose names begin with `prefix`."""
    return {f"{prefix}{name}": value for name, value in labels_to_arrays(labels).items()}


def labels_under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the labels that `labels_named` wrote, without trusting them."""
    return labels_from_arrays({name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)})


def part_name(name: str, number: int) -> str:
    """Return the name of a file of changes, from 1."""
    return f"{name} {number}"


def is_kept_in_parts(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether rows of this name are a base and changes."""
    return name in manifest.get(APPENDED, {})


def changes_of(manifest: Mapping[str, Any], paths: Mapping[str, Path], name: str) -> Iterator[tuple[bytes, bool]]:
    """Yield the changes of rows in order, as bytes, and whether they are in the manifest."""
    number = 1
    while (path := paths.get(part_name(name, number))) is not None:
        yield path.read_bytes(), False
        number += 1
    for text in manifest[APPENDED][name]:
        yield b64decode(text, validate=True), True


def rows_to_arrays(
    gone: NDArray[np.int64], old: NDArray[Any], new: NDArray[Any], added: Mapping[str, NDArray[Any]], of: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return a change: rows that are gone, classes `old` that are now `new`, and rows whose codes are among `of`."""
    plain = (as_labels(one.tolist(), any_type=True) if len(one) else np.empty(0, np.int64) for one in (old, new, of))
    named = (labels_named(prefix, labels) for prefix, labels in zip((OLD, NEW, OF), plain, strict=True))
    return {"gone": gone, **added, **{name: x for arrays in named for name, x in arrays.items()}}


def gone_rows(change: Mapping[str, NDArray[Any]], n: int) -> NDArray[np.int64]:
    """Return which of `n` rows a change removes; raise ValueError if it removes others."""
    gone = change["gone"]
    if gone.dtype != np.int64 or gone.ndim != 1 or (len(gone) and not (gone[0] >= 0 and gone[-1] < n)):
        raise ValueError(f"its changes remove rows that are not among {n}")
    if (np.diff(gone) <= 0).any():
        raise ValueError("its changes remove a row twice")
    return gone


def renamed_in(change: Mapping[str, NDArray[Any]]) -> tuple[list[Any], list[Any]]:
    """Return the labels that a change replaces, and those that come instead."""
    old, new = labels_under(OLD, change).tolist(), labels_under(NEW, change).tolist()
    if len(old) != len(new):
        raise ValueError("its changes rename classes without a new label")
    return old, new


def added_in(change: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the labels of the rows ``x`` that a change adds, and which of them is that of each row."""
    of, codes = labels_under(OF, change), change["labels"]
    if codes.dtype != np.int64 or len(codes) != len(change["x"]) or not are_among(codes, len(of)):
        raise ValueError("its changes add rows without a class")
    return of, codes


def classes_to_json(
    classes: NDArray[Any], n_support: NDArray[np.int64], has_rows: bool
) -> dict[str, dict[str, Any] | list[int] | int]:
    """Return what a manifest says of the classes: how many there are, if `has_rows` in parts that tell, else all."""
    if has_rows and n_support.all() and (classes.dtype.kind == "U" or classes.dtype == np.int64):
        return {"classes": {"n": len(classes)}, "n_support": int(n_support.sum())}
    return {"classes": labels_to_json(classes), "n_support": n_support.tolist()}


def classes_from(manifest: Mapping[str, Any], rows: MemoryRows | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the classes and their numbers of rows, which a manifest lists, or which follow from its rows.

    Raises
    ------
    ValueError
        If they are inconsistent.
    """
    if rows is None or "values" in manifest["classes"]:
        return read_classes(manifest["classes"], manifest["n_support"])
    classes, counts = rows.listed()
    if [len(classes), int(counts.sum())] != [manifest["classes"]["n"], manifest["n_support"]] or not len(classes):
        raise ValueError(f"its rows are {int(counts.sum())} of {len(classes)} classes, unlike its manifest")
    return classes, counts


# ---- support --------------------------------------------------------------------------------------------------------


def support_since(now: Support, before: Support) -> dict[str, NDArray[Any]] | None:
    """Return the change that makes `now` of `before`, empty if there is none; None if it cannot be told."""
    if (change := now.since(before)) is None:
        return None
    gone, old, new, more = change
    if not len(gone) and not len(old) and not len(more):
        return {}
    of = np.unique(more.labels)
    return rows_to_arrays(gone, old, new, more.to_arrays(of) if len(more) else {}, of)


def read_support(
    manifest: Mapping[str, Any], paths: Mapping[str, Path], classes: NDArray[Any], d: int | None = None
) -> list[tuple[Support, int, bytes | None]]:
    """Return support as it was after the base and after each change, with the size and what is in the manifest.

    Raises
    ------
    ValueError
        If it is inconsistent.
    """
    arrays = read_arrays(paths[SUPPORT])[0]
    d = int(arrays["embeddings"].shape[-1]) if d is None else d
    if not is_kept_in_parts(manifest, SUPPORT):
        return [(Support.from_arrays(arrays, classes, d), 0, None)]
    support = Support.from_arrays(arrays, labels_under(OF, arrays), d)
    found = [(support, sum(x.nbytes for x in arrays.values()), None)]
    states: list[tuple[Support, int, bytes | None]] = [*found]
    for raw, is_inline in changes_of(manifest, paths, SUPPORT):
        change = load(raw)
        support = support.without(gone_rows(change, len(support)).tolist()).relabelled(*renamed_in(change))
        if "labels" in change:
            support += Support.from_arrays(change, labels_under(OF, change), d)
        states.append((support, len(raw), raw if is_inline else None))
    support = support.typed(classes.dtype)
    if len(support) and not np.isin(np.unique(support.labels), classes).all():
        raise ValueError("its support must be of its classes")
    states[-1] = (support, *states[-1][1:])
    return states


def support_in_parts(kept: P, support: Support) -> tuple[P, dict[str, Part]]:
    """Return the parts of the support of a model, and their files; see `Parts.with_state`."""

    def whole() -> dict[str, NDArray[Any]]:
        of = np.unique(support.labels)
        return support.to_arrays(of) | labels_named(OF, of)

    since, write = partial(support_since, support), partial(_write_whole, arrays=whole)
    return kept.with_state(Segment(support.bare(), support.size), since, write, SUPPORT, partial(part_name, SUPPORT))


def _write_whole(path: Path, arrays: Callable[[], Mapping[str, NDArray[Any]]]) -> None:
    write_arrays(path, arrays())


# ---- memory ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class MemoryRows:
    """Rows of the memory: what tells one from another, and their classes.

    Attributes
    ----------
    blocks : sequence of ndarray
        Embeddings (n, d) in parts.
    codes : ndarray of shape (n,)
        The class of each.
    classes : ndarray
        The labels that codes stand for.
    chosen : ndarray, optional
        Which rows of the blocks these are; by default all.
    """

    blocks: Sequence[NDArray[np.float64]]
    codes: NDArray[np.int64]
    classes: NDArray[Any]
    chosen: NDArray[np.int64] | None = None
    _all: NDArray[np.uint64] | None = None

    @property
    def size(self) -> int:
        """Bytes of the embeddings."""
        return len(self.codes) * self.blocks[0][:1].nbytes

    def bare(self) -> MemoryRows:
        """Return what tells these rows from others, without the memory of the embeddings."""
        return MemoryRows([], self.codes, self.classes, self.chosen, self.digested())

    def digested(self) -> NDArray[np.uint64]:
        """Return a digest of each row of the blocks, (m, 2)."""
        if self._all is None:
            self._all = np.concatenate([_digests(block) for block in self.blocks])
        return self._all

    def _kept(self, before: MemoryRows) -> tuple[NDArray[np.int64], int]:
        """Return which rows of `before` are still there, in this order the first of these, and how many they are."""
        of_was, of_now = (np.arange(len(one.codes)) if one.chosen is None else one.chosen for one in (before, self))
        pairs = zip(before.blocks, self.blocks, strict=False)
        is_read = 0 < len(before.blocks) <= len(self.blocks) and all(a is b for a, b in pairs)  # from the same files
        was, now = (NOTHING, NOTHING) if is_read else (before.digested(), self.digested())
        if np.array_equal(now[: len(was)], was):  # rows were only added, and some of them chosen
            n = sum(map(len, before.blocks)) if is_read else len(was)
            return np.flatnonzero(np.isin(of_was, of_now)), int(np.searchsorted(of_now, n))
        kept, left = list[int](), iter(enumerate(map(tuple, was[of_was].tolist())))
        for digest in map(tuple, now[of_now].tolist()):
            place = next((place for place, known in left if known == digest), None)
            if place is None:
                break
            kept.append(place)
        return np.array(kept, np.int64), len(kept)

    def since(self, before: MemoryRows) -> dict[str, NDArray[Any]] | None:
        """Return the change that makes these of `before`, empty if there is none; None if it cannot be told."""
        kept, n_kept = self._kept(before)
        if len(kept) != n_kept:
            return None  # of another origin
        gone = np.delete(np.arange(len(before.codes)), kept)
        codes, table = (before.codes[kept], self.codes[:n_kept]), np.full(len(before.classes), -1)
        table[codes[0]] = codes[1]
        was = np.flatnonzero(table >= 0)
        if (table[codes[0]] != codes[1]).any() or np.bincount(table[was], minlength=1).max() > 1:
            return None  # rows of one class have several now
        old, new = (one.astype(object) for one in (before.classes[was], self.classes[table[was]]))
        other = old != new
        if not len(gone) and not other.any() and n_kept == len(self.codes):
            return {}
        own, labels = np.unique(self.codes[n_kept:], return_inverse=True)
        chosen = np.arange(n_kept, len(self.codes)) if self.chosen is None else self.chosen[n_kept:]
        added = {"x": _rows(self.blocks, chosen), "labels": labels.reshape(-1).astype(np.int64)}
        return rows_to_arrays(gone, old[other], new[other], added if len(own) else {}, self.classes[own])

    def changed(self, change: Mapping[str, NDArray[Any]]) -> Self:
        """Return these rows after a change, which is not trusted."""
        gone, blocks, n = gone_rows(change, len(self.codes)), list(self.blocks), sum(map(len, self.blocks))
        chosen, codes = (np.delete(x, gone) for x in (np.arange(n) if self.chosen is None else self.chosen, self.codes))
        classes = self.classes.tolist()
        numbers = {classes[number]: number for number in _distinct(codes).tolist()}  # others may have been renamed
        found = [(numbers.pop(old), new) for old, new in zip(*renamed_in(change), strict=True)]
        for number, new in found:
            numbers[new], classes[number] = number, new
        if "x" in change:
            labels, added = added_in(change)
            of = labels.tolist()
            for label in of:
                if label not in numbers:
                    numbers[label] = len(classes)
                    classes.append(label)
            more = np.array([numbers[label] for label in of], np.int64)[added]
            blocks, codes = [*blocks, change["x"]], np.concatenate([codes, more])
            chosen = np.concatenate([chosen, n + np.arange(len(more))])
        table = np.empty(len(classes), object)
        table[:] = classes
        return type(self)(blocks, codes, table, chosen)

    def labels(self) -> NDArray[Any]:
        """Return the classes that have rows, in the order of their codes."""
        return self.classes[_distinct(self.codes)]

    def rows_of(self, labels: Collection[Any]) -> NDArray[np.int64]:
        """Return which rows are of some classes."""
        used = [number for number in _distinct(self.codes).tolist() if self.classes[number] in labels]
        return np.flatnonzero(np.isin(self.codes, used))

    def x(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the embeddings of some rows, (k, d)."""
        return _rows(self.blocks, rows if self.chosen is None else self.chosen[rows])

    def codes_among(self, classes: NDArray[Any]) -> NDArray[np.int64]:
        """Return the place of the class of each row among these labels, -1 for another."""
        places = {label: place for place, label in enumerate(classes.tolist())}
        used = _distinct(self.codes)
        table = np.full(len(self.classes), -1)
        table[used] = [places.get(label, -1) for label in self.classes[used].tolist()]
        return table[self.codes]

    def listed(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return their classes, sorted, and the number of rows of each; raise ValueError if classes share a label."""
        counts = np.bincount(self.codes, minlength=len(self.classes))
        used = np.flatnonzero(counts)
        classes = as_labels(self.classes[used].tolist())
        order = np.argsort(classes, kind="stable")
        if len(used) and (classes[order[1:]] == classes[order[:-1]]).any():
            raise ValueError("its classes must be labels without repeats")
        return classes[order], counts[used][order]

    def in_parts(self, kept: P, classes: NDArray[Any], state: MemoryRows) -> tuple[P, dict[str, Part]]:
        """Return the parts of these rows, of sorted classes, kept as `state`; and the files, see `Parts.with_state`."""
        write = partial(_write_whole, arrays=lambda: self.to_memory(classes) | labels_named(OF, classes))
        return kept.with_state(Segment(state, self.size), self.since, write, MEMORY, partial(part_name, MEMORY))

    def counts(self, n_classes: int) -> NDArray[np.int64]:
        """Return the number of rows of each class, (n_classes,)."""
        return np.bincount(self.codes, minlength=n_classes)

    def to_memory(self, classes: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return them as the statistics of a learner that keeps its support, of these sorted classes."""
        labels, x = self.codes_among(classes), np.concatenate(self.blocks)
        if len(labels) and labels.min() < 0:
            raise ValueError("its support must be of its classes")
        x = x if self.chosen is None else x[self.chosen]
        count = np.bincount(labels, minlength=len(classes)).astype(np.float64)
        return {"count": count, "support.x": x, "support.labels": labels, "support.weight": np.ones(len(x))}


def read_memory(
    manifest: Mapping[str, Any], paths: Mapping[str, Path], is_mapped: bool = False
) -> tuple[list[tuple[MemoryRows, int, bytes | None]], MemoryRows]:
    """Return the rows of the memory after the base and after each change, as `read_support` does, and the last ones.

    If the base `is_mapped`, embeddings are read when they are asked for.

    Raises
    ------
    ValueError
        If they are inconsistent.
    """
    arrays = map_arrays(paths[MEMORY]) if is_mapped else read_arrays(paths[MEMORY])[0]
    labels, of = arrays["support.labels"], labels_under(OF, arrays)
    if labels.dtype != np.int64 or labels.ndim != 1 or not are_among(labels, len(of)):
        raise ValueError(f"its support must be of {len(of)} classes")
    rows = MemoryRows([arrays["support.x"]], labels, of)
    states: list[tuple[MemoryRows, int, bytes | None]] = [(rows, sum(x.nbytes for x in arrays.values()), None)]
    for raw, is_inline in changes_of(manifest, paths, MEMORY):
        rows = rows.changed(load(raw))
        states.append((rows, len(raw), raw if is_inline else None))
    return states, rows


def are_among(labels: NDArray[np.int64], n: int) -> bool:
    """Whether all labels are in 0..n-1."""
    return bool(((labels >= 0) & (labels < n)).all())


def _distinct(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct codes, sorted, of a dense range: at once, where `np.unique` takes a second for a million."""
    return np.flatnonzero(np.bincount(codes))


def _digests(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a digest of each row (n, d), (n, 2)."""
    raw = b"".join(hashlib.blake2b(row, digest_size=_DIGEST).digest() for row in np.ascontiguousarray(rows))
    return np.frombuffer(raw, np.uint64).reshape(-1, 2)


def _rows(blocks: Sequence[NDArray[Any]], chosen: NDArray[np.int64]) -> NDArray[Any]:
    """Return some rows of arrays as if these were one."""
    ends = np.cumsum([len(block) for block in blocks])
    numbers = np.searchsorted(ends, chosen, "right")
    found = [blocks[n][row - ends[n]] for n, row in zip(numbers.tolist(), chosen.tolist(), strict=True)]
    return np.stack(found) if found else blocks[0][:0]
