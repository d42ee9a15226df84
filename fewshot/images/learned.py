"""What a few-shot model has learned, and the labelled items that it is given.

`Learned` is an immutable value: each change returns another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.classifiers.fitted import FittedModel
from fewshot.data.frames import is_frame
from fewshot.data.images import LabeledImages, as_labeled, list_splits
from fewshot.data.opening import describe, is_name
from fewshot.data.unseen import warn_of_unseen
from fewshot.embedding.backbones import is_path
from fewshot.embedding.checkpoint import Checkpoint, load_learner
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import Embedded
from fewshot.embedding.own import OwnEmbedder
from fewshot.embedding.sources import spelled
from fewshot.errors import brief
from fewshot.images.support import JOIN, Support
from fewshot.learners.base import Learner
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.local import LocalLearner
from fewshot.learners.registry import as_learner
from fewshot.utils.containers import to_array
from fewshot.utils.labels import as_labels, in_known_forms, plain_label, unicode_forms, unknown_mark
from fewshot.utils.text import counted, listed
from fewshot.utils.twins import earlier_twins, warn_of_twins
from fewshot.utils.warning import warn

#: The methods of a model that items can be prepared for.
Then = Literal["partial_fit", "remove", "calibrate"]
PREPARABLE: tuple[Then, ...] = get_args(Then)
#: From this ratio of images on, support is uneven enough to warn of.
UNEVEN = 10


@dataclass(frozen=True, eq=False)
class Prepared:
    """Labelled items that are already embedded; see `FewShotModel.prepare`.

    Attributes
    ----------
    names : sequence of str
        Names under which kept support stores the items.
    named : bool
        Whether the user chose the names, which must then be new.
    labels : ndarray of shape (n,)
        Labels.
    embedded : Embedded
        Embeddings of the items.
    embedder : Embedder or OwnEmbedder
        What computed them.
    """

    names: Sequence[str]
    named: bool
    labels: Any
    embedded: Embedded
    embedder: Embedder | OwnEmbedder

    def without_unreadable(self, on_error: str) -> Prepared:
        """Drop the items that could not be read.

        Raises
        ------
        ImageDecodeError
            If an item could not be read, unless `on_error` is "skip" and others could; then a warning names it.
        """
        if not self.embedded.errors:
            return self
        unreadable = {error.index for error in self.embedded.errors}
        rows = [i for i in range(len(self.names)) if i not in unreadable]
        if on_error == "skip":
            self.embedded.warn()
        if on_error != "skip" or not rows:
            raise self.embedded.errors[0]
        thumbnails = [self.embedded.thumbnails[i] for i in rows] if self.embedded.thumbnails else []
        embedded = Embedded(self.embedded.embeddings[rows], [], thumbnails)
        return replace(self, names=[self.names[i] for i in rows], labels=self.labels[rows], embedded=embedded)


@dataclass(frozen=True, eq=False)
class Learned:
    """All that a model has learned at one moment.

    Attributes
    ----------
    embedder : Embedder or OwnEmbedder
        From items to embeddings.
    classifier : FewShotClassifier
        From embeddings to answers, with its calibration. It is never modified; changes work on a copy.
    support : Support or None
        The support, if kept.
    """

    embedder: Embedder | OwnEmbedder
    classifier: FewShotClassifier
    support: Support | None

    def warn_of_uneven(self) -> Self:
        """Warn if some classes have many more items than others and the learner favours them; return this state."""
        learner, n, classes = self.classifier.learner_, self.classifier.n_support_, self.classifier.classes_.tolist()
        if not learner.balanced and len(n) and n.max() >= UNEVEN * (least := max(1, n.min())):
            most, few = (brief(repr(classes[place])) for place in (n.argmax(), n.argmin()))
            warn(
                f"class {most} has {n.max()} items and {few} has {least}, and {learner.name} favours larger classes; "
                "use the default learner, discriminant, or classes of about the same size"
            )
        return self

    def embed(self, X: Any, thumbnails: bool = False) -> Embedded:
        """Embed queries; by the classifier's ``on_error``, unreadable ones raise or become NaN.

        There is no warning, because the answer shows which query was unreadable.
        """
        return self.embedder.embed(X, thumbnails=thumbnails, on_error=self.classifier.on_error)

    def prepare(self, X: Any, y: Any, ids: Sequence[str] | None, then: str) -> Prepared:
        """Embed labelled items; see `FewShotModel.prepare`."""
        on_error = "raise" if then == "remove" else self.classifier.on_error
        model = getattr(self.classifier, "model_", None)
        known = None if then == "calibrate" else model
        if then == "calibrate" and self.classifier.reject is not None:
            unknown_mark(self.classifier.unknown_label, self.classifier.classes_)
        items, labels = labelled(X, y, self.embedder.as_items, known)
        if then == "partial_fit" and y is None and len(splits := list_splits(X)) > 1:
            warn(
                f"X has the splits {listed(splits)}, and all of them are learned; to learn one, pass its rows, or "
                "LabeledImages.open(path, split)"
            )
        if then == "partial_fit" and known is None and isinstance(self.embedder, Embedder):
            warn_of_unseen(items, self.embedder.preprocessing)
        keep = then == "partial_fit" and self.support is not None
        names = names_of(items, ids, self.support if keep and self.support is not None else ())
        embedded = self.embedder.embed(items, thumbnails=keep, on_error=on_error)
        return Prepared(names, ids is not None, labels, embedded, self.embedder).without_unreadable(on_error)

    def prepare_examples(self, items: Any) -> Prepared:
        """Embed items that are none of the classes, unless they are embedded already."""
        if isinstance(items, Prepared):
            return items
        items = self.embedder.as_items(items)
        if not len(items):
            raise ValueError("reject_examples is empty; give items that are none of the classes, or leave it out")
        return self.prepare(items, np.zeros(len(items), np.int64), None, "calibrate")

    def is_comparable(self, prepared: Prepared) -> bool:
        """Whether the same network computed these embeddings."""
        other = prepared.embedder
        return other is self.embedder or other.fingerprint == self.embedder.fingerprint

    def _own(self, label: Any) -> Any:
        """Return a label in the Unicode form of its class."""
        if not isinstance(label, str) or label.isascii():
            return label
        return next(iter(self.classifier.model_.known_among(unicode_forms(label))), label)

    def _in_forms_of(self, other: Learned) -> Learned:
        """Return this state with classes that another one has in another Unicode form as that one has them."""
        _, changed = in_known_forms(self.classifier.classes_, other.classifier.model_.known_among)
        known, found = set(self.classifier.classes_.tolist()), self
        for old, new in changed.items():
            if new not in known:  # else they are two classes here
                found = found.renamed(old, new)
        return found

    # ---- changes ---------------------------------------------------------------------------------------------------

    def grown(self, prepared: Prepared) -> Learned:
        """Learn more items.

        Raises
        ------
        ValueError
            If a name is in use, or labels do not fit.
        """
        embeddings, support = prepared.embedded.embeddings, self.support
        if prepared.named:
            check_new_names(prepared.names, () if support is None else support)
        classifier = self.classifier.view().partial_fit(embeddings, prepared.labels)
        warn_of_duplicates(support, prepared.names, embeddings, prepared.labels)
        if support is not None:
            some = classifier.model_.some_classes
            labels = as_labels(prepared.labels, known=some)
            labels = labels.astype(np.result_type(labels, some), copy=False)
            thumbnails = prepared.embedded.thumbnails or [b""] * len(labels)
            support += Support(prepared.names, labels, embeddings, thumbnails)
            support = _remembered(classifier, support)
        return replace(self, classifier=classifier, support=support)

    def without(self, prepared: Prepared, drop_empty: bool) -> Learned:
        """Remove items: from kept support by their embeddings, else by subtracting them."""
        embeddings, labels = prepared.embedded.embeddings, prepared.labels
        labels = as_labels(
            labels, known=self.classifier.model_.some_classes
        )  # the classes may have changed since prepare
        if self.support is not None:
            return self.without_rows(self.support.find(embeddings, labels, prepared.names), drop_empty)
        return replace(self, classifier=self.classifier.view().remove(embeddings, labels, drop_empty=drop_empty))

    def without_rows(self, rows: Sequence[int], drop_empty: bool = True) -> Learned:
        """Remove rows of the kept support."""
        if self.support is None or not rows:
            return self
        gone = self.support.rows(rows)
        classifier = self.classifier.view().remove(gone.embeddings, gone.labels, drop_empty=drop_empty)
        return replace(self, classifier=classifier, support=self.support.without(rows))

    def moved(self, rows: Sequence[int], label: Any) -> Learned:
        """Give rows of one class in the kept support another label; a class that is left empty is gone.

        An item that the other class has already is not there twice.

        Raises
        ------
        ValueError
            If support is not kept, or the rows are of several classes.
        """
        if self.support is None:
            raise ValueError("support was not kept, so its items cannot be moved; fit with keep_support=True")
        gone = self.support.rows(rows)
        if len(old := set(gone.labels.tolist())) != 1:
            raise ValueError(f"rows are of {counted(len(old), 'class')}; move those of one class at a time")
        if len(self.classifier.classes_) == 1 and len(rows) == len(self.support):
            return self.renamed(old.pop(), label)
        held = self.support.places(label)
        twins = self.support.rows(held).twins(gone.embeddings)
        fresh = gone.rows(np.flatnonzero((twins < 0) | (twins >= len(held))).tolist())
        embedded = Embedded(fresh.embeddings, [], list(fresh.thumbnails))
        new = Prepared(fresh.ids, False, [label] * len(fresh), embedded, self.embedder)
        rest = self.without_rows(rows)
        return rest.grown(new) if len(fresh) else rest

    def without_class(self, label: Any) -> Learned:
        """Remove a class with its support."""
        label = self._own(label)
        classifier = self.classifier.view().remove_class(label)
        return replace(
            self, classifier=classifier, support=self.support and self.support.without(self.support.places(label))
        )

    def renamed(self, old: Any, new: Any, merge: bool = False) -> Learned:
        """Give a class another label; with `merge`, that of another class, which then has the support of both."""
        old = self._own(old)
        if old != new and self.classifier.model_.known_among([new]):
            if merge:
                return self.moved([] if self.support is None else self.support.places(old), new)
            raise ValueError(f"{new!r} is a class already; {JOIN}")
        classifier = self.classifier.view().rename_class(old, new)
        support = self.support and self.support.renamed(old, new, classifier.model_.some_classes.dtype)
        return replace(self, classifier=classifier, support=support)

    def calibrated(
        self, held_out: Prepared | None, reject_examples: Prepared | None, settings: Mapping[str, Any]
    ) -> Learned:
        """Calibrate on held-out classes, on examples of none of the classes, or both."""
        if reject_examples is not None and not self.is_comparable(reject_examples):
            raise ValueError("reject_examples were embedded with another network than this model's; prepare them again")
        X, y = (None, None) if held_out is None else (held_out.embedded.embeddings, held_out.labels)
        none = None if reject_examples is None else reject_examples.embedded.embeddings
        return replace(self, classifier=self.classifier.view().calibrate(X, y, reject_examples=none, **settings))

    def uncalibrated(self) -> Learned:
        """Forget what calibrating has taught."""
        return replace(self, classifier=self.classifier.view().clear_calibration())

    def merged(self, other: Learned) -> Learned:
        """Add what another model has learned.

        Raises
        ------
        ValueError
            If the networks differ, or only this one has kept its support.
        """
        mine, theirs = self.embedder.fingerprint, other.embedder.fingerprint
        if mine != theirs:
            raise ValueError(
                f"the other model has another network or preprocessing ({theirs[:12]}, here {mine[:12]}), so their "
                "embeddings cannot be compared; fit one of them again with the embedder of the other"
            )
        other = other._in_forms_of(self)
        support, more = self.support, other.support
        if support is not None and more is None:
            raise ValueError(
                "the other model kept no support; merge this one into it, or set_params(keep_support=False) here"
            )
        classifier = self.classifier.view().merge(other.classifier)
        if support is not None and more is not None:
            warn_of_duplicates(support, more.ids, more.embeddings, more.labels)
            support = _remembered(classifier, support + more)
        return replace(self, classifier=classifier, support=support)


def labelled(
    X: Any,
    y: Any,
    as_items: Callable[[Any], Sequence[Any]] = Embedder.as_items,
    known: FittedModel | None = None,
) -> tuple[Sequence[Any], NDArray[Any]]:
    """Return items and labels, from `LabeledImages` or from two collections.

    Parameters
    ----------
    X : collection of n items, or LabeledImages
        Items; for an `Embedder` also a folder, a table, a data frame or a data set, which hold the labels too.
    y : array-like of shape (n,), or None
        Labels, as `as_labels` takes them.
    as_items : callable
        How the embedder turns a collection into a sequence.
    known : FittedModel, optional
        Its classes, whose type and Unicode form `y` takes.

    Raises
    ------
    ValueError, TypeError
        If there are no items, the number of labels differs, or a label has an unsupported type.
    """
    if y is None and as_items is Embedder.as_items and not isinstance(X, LabeledImages):
        X = X if (opened := as_labeled(X)) is None else opened
    if isinstance(X, LabeledImages):
        if y is not None:
            raise ValueError("X has labels already; leave y out, or pass X.images")
        X, y = X.images, X.labels
    if y is None:
        raise ValueError(f"y is missing; {_where_labels_are(X)}")
    items, labels = as_items(X), as_labels(y, known=None if known is None else known.some_classes)
    if known is not None:
        labels, _ = in_known_forms(labels, known.known_among)
    if not len(items):
        raise ValueError("there are no images; give at least one of each class")
    if len(items) != len(labels):
        raise ValueError(
            f"X has {counted(len(items), 'image')} and y {counted(len(labels), 'label')}; give one label for each image"
        )
    return items, labels


def _where_labels_are(X: Any) -> str:
    """Return how to give labels, for the message of an error."""
    if is_frame(X):
        return "pass two columns of the frame, one of items and one of labels, such as frame['text'], frame['label']"
    if hasattr(X, "dataset") and hasattr(X, "batch_size"):
        return "pass the data set of the loader, such as loader.dataset"
    return "give one label for each image, or LabeledImages, or a folder of class folders"


def names_of(items: Sequence[Any], ids: Sequence[str] | None, known: Container[str]) -> Sequence[str]:
    """Return the names of items: `ids`, which must be new, or by default a description such as the path.

    Raises
    ------
    ValueError
        If the number of names differs from the number of items, or a name is in use.
    """
    if ids is None:
        return list(map(describe, items))
    ids = [plain_label(name) for name in to_array(ids, as_list=True)]
    if len(ids) != len(items):
        raise ValueError(
            f"found {counted(len(ids), 'id')} for {counted(len(items), 'image')}; give one for each, or none"
        )
    check_new_names(ids, known)
    return ids


def check_new_names(names: Sequence[str], known: Container[str]) -> None:
    """Raise if a name is not text, occurs twice, or is known already."""
    seen = set[str]()
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"id {i} is {brief(repr(name))}; expected text")
        if name in seen or name in known:
            raise ValueError(
                f"the id {brief(repr(name))} is in use; remove that image first (remove_support), or choose another"
            )
        seen.add(name)


def warn_of_duplicates(
    support: Support | None, names: Sequence[str], embeddings: NDArray[np.float32], labels: NDArray[Any]
) -> None:
    """Warn of new items that are in the kept support already, or occur twice among themselves."""
    start, twins = (0, earlier_twins(embeddings)) if support is None else (len(support), support.twins(embeddings))
    if twins.max(initial=-1) < 0:
        return  # before all that is known is named
    known = () if support is None else support.ids
    shown = [name if is_name(name) else f"support image {i}" for i, name in enumerate(known)]
    shown += [name if is_name(name) else f"image {i}" for i, name in enumerate(names)]
    own = as_labels(labels) if support is None else np.concatenate([support.labels, as_labels(labels)])
    warn_of_twins(twins, start, shown, own)


def _remembered(classifier: FewShotClassifier, support: Support) -> Support:
    """Return the support that the memory of the classifier still holds: a bounded memory forgets some."""
    if len(support) == classifier.model_.n_rows:
        return support
    rows = classifier.model_.kept_rows(support.embeddings, support.labels)
    return support if np.array_equal(rows, np.arange(len(support))) else support.rows(rows.tolist())


def default_learner(embedder: Embedder | OwnEmbedder) -> Learner:
    """Return the learner that a checkpoint was trained with; for others, discriminant analysis.

    The square root is for networks whose embeddings are never negative; an embedder of the user's own, such as one of
    sentences, keeps its numbers, and so do embeddings that are adapted to a domain.
    """
    backbone = embedder.backbone
    path = spelled(backbone) if isinstance(backbone, (str, os.PathLike)) else ""
    if embedder.domain is None and is_path(path) and Path(path).is_file() and Checkpoint.is_one(path):
        return load_learner(path)
    return _discriminant(embedder)


def _discriminant(embedder: Embedder | OwnEmbedder) -> Learner:
    return DiscriminantLearner(power=1.0 if isinstance(embedder, OwnEmbedder) or embedder.domain is not None else 0.5)


def suited(learner: str | Learner, embedder: Embedder | OwnEmbedder) -> str | Learner:
    """Return a learner that suits an embedder, which is changed to keep its maps for a learner of local descriptors.

    The name of the default learner is the default one, whose power depends on the embedder.
    """
    found = as_learner(learner)
    if isinstance(learner, str) and type(found) is DiscriminantLearner:
        return _discriminant(embedder)
    if not isinstance(found, LocalLearner) or not isinstance(embedder, Embedder):
        return learner
    shape = embedder.set_params(pool=None).map_shape
    return found if shape is None else found.of_width(shape[2])
