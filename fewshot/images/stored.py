"""A saved model as it lies in its folder: shown and edited without network and torch, which take seconds to load."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load
from safetensors.numpy import save as dump

from fewshot.data.crop import crop_of
from fewshot.errors import brief
from fewshot.images.class_changes import (
    BASE,
    ROW,
    change_to_arrays,
    changes_in,
    classes_in,
    is_segmented,
)
from fewshot.images.kept_rows import (
    APPENDED,
    MEMORY,
    NO_LABELS,
    SUPPORT,
    MemoryRows,
    classes_from,
    classes_to_json,
    is_kept_in_parts,
    read_memory,
    read_support,
    rows_to_arrays,
    support_in_parts,
)
from fewshot.images.parts import Parts, Segment
from fewshot.images.support import JOIN, Support
from fewshot.persistence.arrays import map_arrays, read_arrays, read_metadata, write_arrays
from fewshot.persistence.artifact import Part, load_artifact, write_artifact
from fewshot.persistence.content import (
    errors_of_file,
    labels_from_arrays,
)
from fewshot.persistence.manifest import FORMAT
from fewshot.runtime.method import DeviceMethod
from fewshot.utils.labels import as_labels, check_unknown, warn_if_look_alike
from fewshot.utils.text import counted, listed

if TYPE_CHECKING:
    from fewshot.images.learned import Learned

_KIND, _CURE = "classifier", "restore it from a copy, or save again"
#: Most changes in a manifest that are added to.
MOST_CHANGES = 32
#: What a manifest says of itself, not of the model.
_OF_THE_FILE = ("format", "version", "kind", "files", "caches", "saved", "digest")
#: Largest difference between two transforms of one embedding, by numpy and by torch.
_ROUNDING = 1e-9


class StoredModel:
    """The labels, statistics and support in the folder of a saved model.

    The methods that change it do what those of `FewShotModel` do, with the same errors, and `save` writes the same.

    Parameters
    ----------
    folder : path
        The folder.
    manifest : mapping
        Its manifest, not trusted.
    paths : mapping of str to Path
        Its data files, verified.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], paths: Mapping[str, Path]) -> None:
        self.folder, self._manifest, self._paths = folder, manifest, paths
        self._is_large, self._changes = is_segmented(manifest), list[dict[str, NDArray[Any]]]()
        self._kept: dict[str, Parts] = {}  # of the rows that were read, by name
        self.classes_, self.n_support_ = (
            classes_in(manifest, paths) if self._is_large else classes_from(manifest, self._rows)
        )
        self._params = {"reject": None, **manifest["params"]}  # format 1 did not have it
        if missing := {"keep_support", "on_error", "unknown_label"} - self._params.keys():
            raise ValueError(f"its parameters lack {min(missing)}")
        self._is_calibrated = True

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read a folder that `FewShotModel.save` has written.

        Raises
        ------
        ArtifactError
            If the folder is not a saved model, is damaged or inconsistent, or was written by a newer version.
        """
        return load_artifact(folder, _KIND, partial(cls, Path(folder)))

    @property
    def version(self) -> str:
        """The digest of the whole content."""
        return str(self._manifest["digest"])

    @property
    def shown(self) -> dict[str, str] | None:
        """What `describe` says of the model, if the program that saved it has written that."""
        found = self._manifest.get("shown")
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            return None
        return {**found, "fingerprint": str(self._manifest["fingerprint"])[:16]}

    @property
    def is_editable(self) -> bool:
        """Whether it can be changed here; else `FewShotModel` can: a learner may keep totals over all classes."""
        if self._is_large:
            return len(self._manifest["changes"]) < MOST_CHANGES
        return self._rows is not None or not any(name.startswith("totals.") for name in self._memory)

    # ---- content ---------------------------------------------------------------------------------------------------

    @cached_property
    def _memory(self) -> dict[str, NDArray[Any]]:
        """Statistics by name: ``count``, ``sums.x``, ``support.labels``."""
        with errors_of_file(self.folder, _CURE):
            n_way, memory = len(self.classes_), read_arrays(self._paths["memory"])[0]
            labels = memory.get("support.labels", np.empty(0, np.int64))
            for name, x in memory.items():
                if not name.startswith("totals.") and len(x) != (len(labels) if name.startswith("support.") else n_way):
                    raise ValueError(f"{name} in its memory has {len(x)} rows")
            if labels.dtype != np.int64 or not ((labels >= 0) & (labels < n_way)).all():
                raise ValueError(f"its support must be of the {n_way} classes")
            return memory

    @cached_property
    def _rows(self) -> MemoryRows | None:
        """The rows of the statistics, if these are kept in parts."""
        if not is_kept_in_parts(self._manifest, MEMORY):
            return None
        with errors_of_file(self.folder, _CURE):
            states, rows = read_memory(self._manifest, self._paths, is_mapped=True)
        self._kept[MEMORY] = Parts(tuple(Segment(*one) for one in states))
        return rows

    @cached_property
    def support_(self) -> Support | None:
        """The support, if kept."""
        if "support" not in self._paths or not self._params["keep_support"]:
            return None
        with errors_of_file(self.folder, _CURE):
            states = read_support(self._manifest, self._paths, self.classes_)
        if is_kept_in_parts(self._manifest, SUPPORT):
            self._kept[SUPPORT] = Parts(tuple(Segment(*one) for one in states))
        return states[-1][0]

    @property
    def _learner(self) -> Mapping[str, Any]:
        """Name and arguments of the learner."""
        with errors_of_file(self.folder, _CURE):
            if "weights" in self._paths:
                found: Mapping[str, Any] = json.loads(read_metadata(self._paths["weights"])["fewshot"])["learner"]
                return found
            return dict(self._manifest["learner"])

    # ---- changes ---------------------------------------------------------------------------------------------------

    def rename_class(self, old: Any, new: Any) -> Self:
        """Give a class another label; see `FewShotModel.rename_class`."""
        known = self.classes_
        given = as_labels([new], known=known)
        (label,) = given.tolist()
        if old != new and label in known.tolist():
            raise ValueError(f"{new!r} is a class already; {JOIN}")
        place = self._place(old)
        left = np.delete(known, place).astype(np.result_type(known, given))
        at = int(np.searchsorted(left, given)[0])
        classes = np.insert(left, at, given)
        warn_if_look_alike(classes)
        if self._params["on_error"] != "raise" or self._params["reject"] is not None:
            check_unknown(self._params["unknown_label"], classes, known)
        support = self.support_ and self.support_.renamed(old, label, classes.dtype)
        places = np.insert(np.delete(np.arange(len(known)), place), at, place)
        return self._become(classes, places.tolist(), support)

    def remove_class(self, label: Any) -> Self:
        """Forget a class and all of its support; see `FewShotModel.remove_class`."""
        place = self._place(label)
        if len(self.classes_) == 1:
            raise ValueError(f"{label!r} is the only class; a classifier needs one")
        left = [i for i in range(len(self.classes_)) if i != place]
        support = self.support_ and self.support_.without(self.support_.places(label))
        return self._become(self.classes_[left], left, support)

    def remove_support(self, ids: Sequence[str], *, label: Any = None) -> Self:
        """Forget support items that `find_rows` finds, by their names; see `FewShotModel.remove_support`."""
        if (found := self.find_rows(ids, label)) is None:
            raise ValueError(f"{self.folder} does not keep what each image added; remove images with FewShotModel")
        rows, kept = found
        n_left = np.bincount(np.delete(self._codes, kept), minlength=len(self.classes_))
        if not n_left.any():
            raise ValueError("nothing would remain; a classifier needs support of one class")
        left = np.flatnonzero((n_left > 0) | (self.n_support_ == 0)).tolist()
        if self._rows is not None:
            self._rows = self._rows.changed(
                rows_to_arrays(np.sort(np.array(kept, np.int64)), NO_LABELS, NO_LABELS, {}, NO_LABELS)
            )
        else:
            memory = {name: np.delete(x, kept, 0) for name, x in self._memory.items() if name.startswith("support.")}
            self._memory = {"count": n_left.astype(np.float64), **memory}
        self.n_support_ = n_left
        return self._become(self.classes_[left], left, self.support_ and self.support_.without(rows))

    def find_rows(self, ids: Sequence[str], label: Any = None) -> tuple[list[int], list[int]] | None:
        """Return which rows of the support, and of the statistics, are items of these names.

        None if only `FewShotModel` can tell: without support, and if the learner does not keep its rows.

        Raises
        ------
        ValueError, TypeError
            As for `FewShotModel.remove_support`.
        """
        if (support := self.support_) is None or not self._keeps_rows:
            return None
        rows = support.named(ids, label)
        gone = support.rows(rows)
        x = gone.embeddings.astype(np.float64)
        if (learner := self._learner)["name"] == "discriminant":
            x = DeviceMethod("discriminant", "dot", 1.0, power=learner["params"].get("power", 0.5)).transform(x)
        codes, found = np.searchsorted(self.classes_, gone.labels), list[int]()
        for row, code in zip(x, codes.tolist(), strict=True):
            places = np.setdiff1d(np.flatnonzero(self._codes == code), found)
            known = self._rows.x(places) if self._rows is not None else self._memory["support.x"][places]
            apart = np.abs(known - row).max(1, initial=0)
            if not (apart <= _ROUNDING).any():
                return None
            found.append(int(places[(known == known[apart.argmin()]).all(1).argmax()]))  # the oldest
        return rows, found

    @property
    def _keeps_rows(self) -> bool:
        """Whether the statistics are rows, each of weight 1."""
        if self._is_large or self._rows is not None:
            return not self._is_large
        return "support.x" in self._memory and bool((self._memory["support.weight"] == 1).all())

    @property
    def _codes(self) -> NDArray[np.int64]:
        """The place of the class of each row of the statistics."""
        return self._memory["support.labels"] if self._rows is None else self._rows.codes_among(self.classes_)

    def clear_calibration(self) -> Self:
        """Forget what `calibrate` has taught; see `FewShotModel.clear_calibration`."""
        self._is_calibrated = False
        return self

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the model."""
        self._params |= params
        return self

    def _place(self, label: Any) -> int:
        known = self.classes_.tolist()
        if label not in known:
            raise ValueError(f"there is no class {brief(repr(label))}; the classes are {listed(known)}")
        return known.index(label)

    def _become(self, classes: NDArray[Any], places: list[int], support: Support | None) -> Self:
        """Take the classes at these places of the present ones, under these sorted labels."""
        if self._is_large:
            self._changes.append(self._change(classes, places))
        elif (rows := self._rows) is not None:
            before, used = self.classes_.tolist(), set(rows.labels().tolist())
            renamed = [(before[i], new) for i, new in zip(places, classes.tolist(), strict=True) if before[i] != new]
            old, new = (np.array([pair[i] for pair in renamed if pair[0] in used], object) for i in (0, 1))
            gone = rows.rows_of({before[i] for i in set(range(len(before))).difference(places)})
            self._rows = rows.changed(rows_to_arrays(gone, old, new, {}, NO_LABELS))
        else:
            self._memory = _of_classes(self._memory, np.array(places, np.int64), len(self.classes_))
        self.classes_, self.n_support_, self.support_ = classes, self.n_support_[places], support
        return self

    def _change(self, classes: NDArray[Any], places: list[int]) -> dict[str, NDArray[Any]]:
        """Return the change of a large model by which classes at these places of the present ones have these labels."""
        before, after = self.classes_.tolist(), classes.tolist()
        known = set(before)
        new = [(label, before[place]) for label, place in zip(after, places, strict=True) if label not in known]
        rows = [self._row(old) for _, old in new]
        parts = (np.concatenate([row[name] for row in rows]) if rows else None for name in ROW)
        labels = as_labels([label for label, _ in new], known=classes) if new else classes[:0]
        return change_to_arrays(sorted(known.difference(after)), labels, *parts)

    def _row(self, label: Any) -> dict[str, NDArray[Any]]:
        """Return what a large model knows of a class, arrays of one row by name."""
        changes = [*(load(raw) for raw, _ in changes_in(self._manifest, self._paths)), *self._changes]
        for arrays in (*reversed(changes), map_arrays(self._paths[BASE])):
            labels = labels_from_arrays(arrays).tolist()
            if label in labels:
                place = labels.index(label)
                return {name: arrays[name][place : place + 1] for name in ROW}
        raise ValueError(f"its memory has no class {brief(repr(label))}")

    def save(self, note: str) -> None:
        """Write the change to the folder, as `FewShotModel.save` does."""
        content = {name: value for name, value in self._manifest.items() if name not in _OF_THE_FILE}
        content["params"] = self._params
        parts: dict[str, Part] = dict.fromkeys(self._manifest["files"])
        if self._is_large:
            content |= {"format": FORMAT, "classes": {"n": len(self.classes_)}, "n_support": int(self.n_support_.sum())}
            content["changes"] = [*content["changes"], *(b64encode(dump(one)).decode() for one in self._changes)]
        else:
            content |= classes_to_json(self.classes_, self.n_support_, self._rows is not None)
            if self._rows is None:
                parts["memory"] = (None, partial(write_arrays, arrays=self._memory))
        if not self._is_calibrated:
            content["calibration"] = None
            content.pop("held_out", None)
            parts.pop("background", None)
        support, made = self.support_, dict[str, tuple[Parts, dict[str, Part]]]()
        if self._rows is not None:
            made[MEMORY] = self._rows.in_parts(self._kept[MEMORY], self.classes_, self._rows)
        if support is not None and SUPPORT in self._kept:
            made[SUPPORT] = support_in_parts(self._kept[SUPPORT], support)
        for name, (_, files) in [(SUPPORT, (None, {})), *made.items()]:
            parts = {one: part for one, part in parts.items() if one.partition(" ")[0] != name} | files
        if support is not None and SUPPORT not in made:
            parts["support"] = (None, partial(write_arrays, arrays=support.to_arrays(self.classes_)))
        if content.pop(APPENDED, None) is not None and made:
            content |= {"format": FORMAT}
            content[APPENDED] = {name: kept.inline for name, (kept, _) in made.items()}
        write_artifact(self.folder, _KIND, content, parts, {}, {os.path.realpath(self.folder): self.version}, note)


def _of_classes(memory: Mapping[str, NDArray[Any]], places: NDArray[np.int64], n_way: int) -> dict[str, NDArray[Any]]:
    """Return the statistics of the classes at `places` among `n_way`, in this order, as `Statistics.keep` does."""
    number = np.full(n_way, -1)
    number[places] = np.arange(len(places))
    found = {name: x[places] for name, x in memory.items() if not name.startswith("support.")}
    if "support.labels" in memory:
        labels = number[memory["support.labels"]]
        rows = {name: x[labels >= 0] for name, x in memory.items() if name.startswith("support.")}
        found |= {**rows, "support.labels": labels[labels >= 0]}
    return found


def backbone_of(embedder: Any) -> str:
    """Return the name of the network of an embedder, and the size of its images."""
    spec = getattr(embedder.network, "fewshot_spec", None)
    name = str(spec["name"] if spec else getattr(embedder, "name", type(embedder.network).__name__))
    if (pixels := getattr(embedder, "preprocessing", None)) is None:
        return name
    return f"{name}, {pixels.height} x {pixels.width}{' grey' if pixels.channels == 1 else ''}"


def described(learned: Learned) -> dict[str, str]:
    """Return what people want to know of a model besides its classes, in display order."""
    embedder, d = learned.embedder, learned.classifier.n_features_in_
    of, domain = {"backbone": backbone_of(embedder)}, embedder.find_domain()
    if (pixels := getattr(embedder, "preprocessing", None)) is not None:
        of["crop"] = crop_of(pixels.crop_mode) or pixels.crop_mode  # timm has others
        of |= {"views": pixels.views} if pixels.views else {}
    about = "none"
    if domain is not None:
        taught = f"of {counted(domain.n_classes, 'class')}" if domain.n_classes else "unlabelled"
        about = f"{counted(domain.n_items, 'image')} {taught}, shrinkage {domain.shrinkage:g}"
    return {**of, "domain": about, "embedding": f"{d} numbers", "learner": learned.classifier.learner_.description}
