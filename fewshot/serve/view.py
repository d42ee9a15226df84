"""One version of a classifier, as all readers see it until the next is published."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.embedding.embedder import Embedder
from fewshot.embedding.own import OwnEmbedder
from fewshot.images.answer import comparing_places, index_support
from fewshot.images.history import Steps, read_steps
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.images.learned import Learned
from fewshot.images.sets import Promise
from fewshot.images.support import Support
from fewshot.persistence.manifest import MANIFEST
from fewshot.persistence.versions import EMPTY, history_name
from fewshot.search.similarity import KeySnapshot
from fewshot.serve.ordering import Ordered
from fewshot.serve.problems import Problem, without_parameter
from fewshot.utils.labels import label_of_text, unknown_mark

#: Most coverages that are remembered.
MOST_PROMISES = 16
#: What tells that a file was replaced.
Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, eq=False)
class View:
    """A classifier that no one changes any more.

    Attributes
    ----------
    folder : str
        Where it is saved.
    model : FewShotImageClassifier
        The classifier; fitted unless it is new.
    version : str
        Digest of the content of the folder.
    stamp : tuple or None
        What the manifest looked like; None if there is none.
    embedder : Embedder or OwnEmbedder
        From images to embeddings; the same object as long as the network stays.
    """

    folder: str
    model: FewShotImageClassifier
    version: str
    stamp: Stamp
    embedder: Embedder | OwnEmbedder

    @cached_property
    def learned(self) -> Learned:
        """What was learned.

        Raises
        ------
        NotFittedError
            If nothing was.
        """
        return self.model.snapshot()

    @cached_property
    def answering(self) -> tuple[Learned, str | None]:
        """What answers, and why it tells nothing unknown although it was told to: one class is left, for example."""
        rule = self.model.reject
        try:
            if isinstance(rule, str):
                self.model.rejection(rule)
            if rule is not None:
                unknown_mark(self.model.unknown_label, self.model.classes_)
        except ValueError as error:
            reason = without_parameter(str(error), "rename the class")
            return replace(self.learned, classifier=self.learned.classifier.view(reject=None)), reason
        return self.learned, None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was learned."""
        return self.version == EMPTY

    @property
    def takes_images(self) -> bool:
        """Whether it embeds images itself; else clients send embeddings."""
        return isinstance(self.embedder, Embedder)

    @cached_property
    def compares_places(self) -> bool:
        """Whether it can tell where an image matches examples."""
        return not self.is_empty and comparing_places(self.learned) is not None

    @cached_property
    def classes(self) -> dict[str, int]:
        """Number of examples of each class, by its name as text, sorted as labels."""
        if self.is_empty:
            return {}
        labels, counts = self.model.classes_.tolist(), self.model.n_support_.tolist()
        return dict(zip(map(str, labels), counts, strict=True))

    @cached_property
    def ordered(self) -> Ordered:
        """The classes as people look for them."""
        return Ordered.of([] if self.is_empty else self.model.classes_.tolist(), list(self.classes.values()))

    def label(self, name: str, new: bool = False) -> Any:
        """Return the label of a class, which is a number if those of the classifier are.

        Raises
        ------
        Problem
            If there is no such class, unless it may be `new`.
        """
        if not new and name not in self.classes:
            raise Problem(404, "no_class", f"there is no class {name!r:.200}")
        return name if self.is_empty else label_of_text(name, self.model.classes_)

    @cached_property
    def support(self) -> Support:
        """The examples; empty if they are not kept."""
        return Support.none() if self.is_empty else self.learned.support or Support.none()

    @cached_property
    def example_ids(self) -> list[str]:
        """A name for each example that is short, fits into a URL, and stays when others come, go or are renamed."""
        often, seen, found = Counter(self.support.ids), Counter[str](), list[str]()
        for row, name in enumerate(self.support.ids):
            raw = name.encode("utf-8", "surrogatepass")
            if often[name] > 1:
                raw += self.support.embeddings[row].tobytes()
            short = hashlib.blake2b(raw, digest_size=9).hexdigest()
            seen[short] += 1
            found.append(short if seen[short] == 1 else f"{short}-{seen[short]}")
        return found

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each example by its id."""
        return {name: row for row, name in enumerate(self.example_ids)}

    @cached_property
    def ids_of(self) -> dict[tuple[str, str], str]:
        """The id of an example of each name and class."""
        labels = map(str, self.support.labels.tolist())
        return dict(zip(zip(self.support.ids, labels, strict=True), self.example_ids, strict=True))

    @cached_property
    def rows_of(self) -> dict[str, list[int]]:
        """The rows of the examples of each class, latest first."""
        found: dict[str, list[int]] = {name: [] for name in self.classes}
        labels = self.support.labels.tolist()
        for row in range(len(labels))[::-1]:
            found[str(labels[row])].append(row)
        return found

    def row(self, example: str) -> int:
        """Return the row of an example.

        Raises
        ------
        Problem
            If there is none.
        """
        if (row := self.rows.get(example)) is None:
            raise Problem(404, "no_example", f"there is no example {example!r:.60}; it may have been removed")
        return row

    @cached_property
    def nearby(self) -> KeySnapshot | None:
        """The examples as keys, for the nearest ones."""
        return index_support(self.learned.classifier, self.support) if len(self.support) else None

    @cached_property
    def _promises(self) -> dict[float, Promise]:
        return {}

    def promise(self, coverage: float) -> Promise:
        """Return the sets that hold the right class as often as `coverage`; measured once.

        Raises
        ------
        ValueError
            If there are too few examples for it.
        """
        found = self._promises.get(coverage)
        if found is None:
            found = Promise(coverage).measured(self.answering[0])
            if len(self._promises) < MOST_PROMISES:
                self._promises[coverage] = found
        return found

    @cached_property
    def steps(self) -> Steps:
        """Where undo and redo lead."""
        return read_steps(self.folder)

    @cached_property
    def usual_similarity(self) -> float | None:
        """How similar an example is to its nearest other one, on the mean of at most 500."""
        if self.nearby is None or len(self.support) < 2:
            return None
        from fewshot.images.answer import nearest_support

        rows = np.unique(np.linspace(0, len(self.support) - 1, 500).astype(np.int64))
        x = self.support.embeddings[rows]
        near = nearest_support(self.learned.classifier, self.support, x, 1, rows, self.nearby)
        return float(np.mean([one[0].similarity for one in near]))


def folder_stamp(folder: str) -> Stamp:
    """Return what tells whether the manifest of a folder was replaced; a few microseconds."""
    try:
        found = os.stat(os.path.join(folder, MANIFEST))  # each request asks: a Path takes longer than the look
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def is_undone(folder: str, version: str) -> bool:
    """Whether a folder keeps a version, but holds none: undo has led to what was before the first one."""
    return Path(folder, history_name(version)).exists() and folder_stamp(folder) is None
