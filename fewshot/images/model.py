"""The few-shot model: an embedder and a classifier in one, which learns, answers, and is saved as one folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from fewshot.classifiers.few_shot import FewShotClassifier
from fewshot.embedding.batches import Embedded
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.own import OwnEmbedder
from fewshot.errors import brief
from fewshot.images import saving
from fewshot.images.answer import Answer, answer_all
from fewshot.images.audit import audit_support
from fewshot.images.defaults import default_learner
from fewshot.images.inputs import labelled, names_of
from fewshot.images.learned import Learned, Prepared, trimmed, warn_of_same_images
from fewshot.images.support import Support
from fewshot.learners.base import Learner
from fewshot.persistence.artifact import Versions, version_of, writing
from fewshot.utils.labels import as_labels
from fewshot.utils.locks import lock_of, one_at_a_time
from fewshot.utils.pickling import VersionedPickle
from fewshot.utils.unknown import unknown_mark
from fewshot.utils.unreadable import check_on_error

if TYPE_CHECKING:
    import pandas as pd

    from fewshot.classifiers.calibration import Calibration

#: Parameters that a folder keeps; the others follow from the embedder and the learner in it.
SAVED = ("on_error", "reject", "unknown_label", "index", "keep_support")


class FewShotModel(VersionedPickle, ClassifierMixin, BaseEstimator):
    """Learn classes from a few items each, answer, grow, and be saved with all of it in one folder.

    Items are whatever the embedder takes: images, sentences, recordings. `FewShotImageClassifier` is the form for
    images, which makes its own embedder.

    Equal embeddings get equal answers, to the last bit, whatever other items are in the same call (unless the learner
    is transductive) and on every processor. The embeddings themselves come from a network, which on some processors
    rounds differently in batches of different sizes.

    Of the parameters that are set later, ``on_error``, ``reject``, ``unknown_label`` and ``index`` act at once,
    ``keep_support=False`` when more is learned, and all others at the next `fit`.

    Parameters
    ----------
    embedder : Embedder or OwnEmbedder
        Turns items into embeddings. `fit` works with a copy.
    learner : str, Learner or None, default=None
        A registered name or a learner. By default the learner that the embedder's checkpoint was trained with, and for
        other embedders cosine prototypes: ``PrototypicalLearner("cosine", temperature=0.05)``.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        What happens to an item that cannot be read. ``raise`` raises an error. ``skip`` leaves it out of the support,
        with a warning, and answers it with `unknown_label`. ``unknown`` raises for support and answers a query with
        `unknown_label`.
    reject : float or "auto", optional
        The similarity to the nearest key below which an item is answered `unknown_label`; "auto" takes the threshold
        that `calibrate` has found. By default every item is answered with a class.
    unknown_label : object, optional
        The answer for such items; by default ``"unknown"`` for text labels and -1 for integers.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest keys are found; see `PrototypeIndex`.
    keep_support : bool, default=True
        Whether names, embeddings and small pictures of the support are kept, and saved, for `nearest_support` and for
        reports. About 8 KB an image.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    n_support_ : ndarray of shape (n_classes,)
        Support items of each class.
    embedder_ : Embedder or OwnEmbedder
        From items to embeddings.
    classifier_ : FewShotClassifier
        From embeddings to answers.
    support_ : Support or None
        The support, if kept.
    calibration_ : Calibration
        What `calibrate` has found.

    Examples
    --------
    >>> from fewshot import FewShotModel, OwnEmbedder
    >>> def vowels(texts):
    ...     return [[text.count(letter) for letter in "aeiou"] for text in texts]
    >>> model = FewShotModel(OwnEmbedder(vowels, "vowels 1")).fit(["banana", "kiwi"], ["a", "i"])
    >>> model.predict(["papaya", "pippin"]).tolist()
    ['a', 'i']
    """

    #: How weights are written unless `save` says otherwise.
    _stored = "embed"
    #: All that was learned, replaced as a whole: whoever reads it once sees one moment.
    _learned: Learned | None = None
    #: The versions of the folders that it was loaded from or saved to.
    _versions: Versions = {}  # noqa: RUF012

    def __init__(
        self,
        embedder: Embedder | OwnEmbedder,
        learner: str | Learner | None = None,
        *,
        on_error: str = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
        index: str = "auto",
        keep_support: bool = True,
    ) -> None:
        self.embedder = embedder
        self.learner = learner
        self.on_error = on_error
        self.reject = reject
        self.unknown_label = unknown_label
        self.index = index
        self.keep_support = keep_support

    # ---- learning ----------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Self:
        """Learn classes from labelled items, forgetting what was learned before.

        An item that is given twice counts twice, with a warning that names it.

        Parameters
        ----------
        X : collection of n items, or LabeledImages
            What the embedder takes.
        y : array-like of shape (n,), optional
            Labels: text of at most 10,000 characters, integers or booleans, in any ordered container. Left out where X
            is `LabeledImages`.
        ids : sequence of n str, optional
            Names by which kept support knows the items, no two alike; by default their paths.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read, unless ``on_error="skip"``.
        ValueError
            If there are no items, a label is missing, a name is in use, or a parameter is out of range.
        """
        embedder = self._make_embedder().set_params(on_error=check_on_error(self.on_error))
        classifier = FewShotClassifier(
            default_learner(embedder) if self.learner is None else self.learner,
            index=self.index,
            on_error=self.on_error,
            reject=self.reject,
            unknown_label=self.unknown_label,
        )
        classifier.check_parameters()
        nothing = Learned(embedder, classifier, Support.none() if self.keep_support else None)
        return self._publish(nothing.grown(self._embed_support(nothing, X, y, ids)))

    def partial_fit(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Self:
        """Learn more items, of known or of new classes, in addition to what is known.

        An item that is given twice counts twice. A warning names it if both are given now, or the support is kept.

        Parameters
        ----------
        X, y, ids
            As for `fit`.

        Raises
        ------
        ImageDecodeError, ValueError
            As for `fit`. The model is then unchanged.
        """
        if self._learned is None:
            return self.fit(X, y, ids=ids)
        return self._embed_then(lambda: self.prepare(X, y, ids=ids), self.learn)

    def prepare(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Prepared:
        """Embed labelled items, the slow part of `partial_fit`; `learn` does the rest.

        Parameters
        ----------
        X, y, ids
            As for `fit`.

        Raises
        ------
        ImageDecodeError, ValueError
            As for `fit`.
        """
        return self._embed_support(self._moment(), X, y, ids)

    @one_at_a_time
    def learn(self, prepared: Prepared) -> Self:
        """Learn what `prepare` has embedded, here or in another model with the same network.

        Raises
        ------
        ValueError
            If the network is another, or as for `fit`. The model is then unchanged.
        """
        return self._publish(self._moment(prepared).grown(prepared))

    def _embed_support(self, learned: Learned, X: Any, y: Any, ids: Sequence[str] | None) -> Prepared:
        items, labels = labelled(X, y, learned.embedder.as_items, getattr(learned.classifier, "classes_", None))
        support = learned.support
        names = names_of(items, ids, () if support is None else support.ids)
        embedded = learned.embedder.embed(items, thumbnails=support is not None, on_error=self.on_error)
        return Prepared(names, ids is not None, labels, embedded, learned.embedder).read(self.on_error)

    def _embed_then(self, embed: Callable[[], Prepared], change: Callable[[Prepared], Self]) -> Self:
        """Embed, which takes long, and then change the model; embed again if another thread called fit meanwhile."""
        while True:
            prepared = embed()
            with lock_of(self):
                if self._moment().takes(prepared):
                    return change(prepared)

    @one_at_a_time
    def _publish(self, learned: Learned) -> Self:
        # At the end and all at once: where anything before fails, what was learned earlier still stands.
        # Steady answers cost nothing compared with embedding, and make tables of different batches comparable.
        learned.classifier.steady = True
        self._learned = learned
        return self

    def _moment(self, prepared: Prepared | None = None) -> Learned:
        """Return what is known now; its classifier is a copy, with the current parameters, that may be changed.

        Raises
        ------
        ValueError
            If items were `prepared` with another network.
        """
        check_is_fitted(self)
        now = copy.copy(self)
        learned = Learned(now.embedder_, now.answering(), now.support_ if now.keep_support else None)
        if prepared is not None and not learned.takes(prepared):
            raise ValueError(
                "the images were embedded with another network than that of this classifier, which was replaced "
                "meanwhile; give them again"
            )
        return learned

    def _make_embedder(self) -> Embedder | OwnEmbedder:
        if not isinstance(self.embedder, (Embedder, OwnEmbedder)):
            raise TypeError(
                f"embedder is {brief(repr(self.embedder))}; expected an Embedder, such as Embedder('resnet18'), or an "
                "OwnEmbedder around anything else that embeds"
            )
        return clone(self.embedder)

    # ---- what was learned --------------------------------------------------------------------------------------

    def _known(self, name: str) -> Learned:
        if self._learned is None:
            raise AttributeError(f"this {type(self).__name__} has no {name}: it is not fitted; call fit first")
        return self._learned

    def __sklearn_is_fitted__(self) -> bool:
        return self._learned is not None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags = self.embedder.__sklearn_tags__().input_tags
        return tags

    @property
    def embedder_(self) -> Embedder:
        """From items to embeddings."""
        return self._known("embedder_").embedder

    @property
    def classifier_(self) -> FewShotClassifier:
        """From embeddings to answers."""
        return self._known("classifier_").classifier

    @property
    def learner_(self) -> Learner:
        """The learner that answers, on the CPU and in double precision."""
        return self._known("learner_").classifier.learner_

    @property
    def support_(self) -> Support | None:
        """The support, if kept."""
        return self._known("support_").support

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted labels, (n_classes,)."""
        return self._known("classes_").classifier.classes_

    @property
    def n_support_(self) -> NDArray[np.int64]:
        """Support items of each class, (n_classes,)."""
        return self._known("n_support_").classifier.n_support_

    @property
    def calibration_(self) -> Calibration:
        """What `calibrate` has found."""
        found: Calibration | None = getattr(self._known("calibration_").classifier, "calibration_", None)
        if found is None:
            raise AttributeError("the classifier is not calibrated; call calibrate(X, y) with held-out classes")
        return found

    # ---- answering ---------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of each item; `unknown_label` for one that cannot be read, unless ``on_error="raise"``.

        Parameters
        ----------
        X : collection of n items
            Queries.

        Returns
        -------
        ndarray of shape (n,)
            Labels as they were given.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read and ``on_error="raise"``.
        """
        classifier, embedded = self._answering(X)
        return classifier.predict(embedded.embeddings)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the probability of each class in the order of ``classes_``, (n, n_classes); see `predict`."""
        classifier, embedded = self._answering(X)
        return classifier.predict_proba(embedded.embeddings)

    def nearest(self, X: Any, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return labels and similarities (n, k) of the nearest keys: prototypes, or support where it is kept as keys.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        classifier, embedded = self._answering(X)
        return classifier.nearest(embedded.embeddings, k)

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of items, or of `LabeledImages`, that are answered with their labels."""
        items, labels = labelled(X, y, self.embedder_.as_items)
        return super().score(items, labels, sample_weight)

    def answer(self, X: Any, *, top: int = 3, n_neighbours: int = 3) -> list[Answer]:
        """Return all that is known of each item: likeliest classes, nearest prototypes, nearest support items.

        Parameters
        ----------
        X : collection of n items
            Queries.
        top : int, default=3
            Classes in the ranking and prototypes, at most all.
        n_neighbours : int, default=3
            Support items; none where support is not kept.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read and ``on_error="raise"``.
        """
        check_is_fitted(self)
        now = copy.copy(self)  # of this moment, whatever is learned meanwhile
        items = now.embedder_.as_items(X)
        embedded = now.embed_queries(items, thumbnails=True)
        return answer_all(now.answering(), now.support_, items, embedded, top, n_neighbours)

    def explain(self, item: Any, *, top: int = 3, n_neighbours: int = 3) -> Answer:
        """Return why one item is answered as it is; see `answer`.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data = digits()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> answer = model.fit(data.images[:50], data.labels[:50]).explain(data.images[60])
        >>> len(answer.prototypes), len(answer.neighbours), answer.margin >= 0
        (3, 3, True)
        """
        return self.answer([item], top=top, n_neighbours=n_neighbours)[0]

    def answering(self, on_error: str | None = None) -> FewShotClassifier:
        """Return a copy of the classifier with the current parameters, which may have been set since it was fitted."""
        check_is_fitted(self)
        return self.classifier_.view(
            index=self.index,
            on_error=on_error or self.on_error,
            reject=self.reject,
            unknown_label=self.unknown_label,
        )

    def embed_queries(self, X: Any, on_error: str | None = None, thumbnails: bool = False) -> Embedded:
        """Return the embeddings of queries; `on_error`, by default the model's, says what unreadable ones are."""
        check_is_fitted(self)
        # Without a warning: each unreadable query is answered "unknown", which is what was asked for.
        return self.embedder_.embed(X, thumbnails=thumbnails, on_error=on_error or self.on_error)

    def _answering(self, X: Any) -> tuple[FewShotClassifier, Embedded]:
        """Return the classifier of this moment, whatever is learned while items are embedded, and their embeddings."""
        now = copy.copy(self)
        return now.answering(), now.embed_queries(X)

    # ---- trust -------------------------------------------------------------------------------------------------

    def calibrate(self, X: Any, y: ArrayLike | None = None, **settings: Any) -> Self:
        """Make probabilities fit how often answers are right, and find the score below which an item is unknown.

        Parameters
        ----------
        X : collection of n items, or LabeledImages
            Items of classes that the network was not trained on; they need not be those of the model.
        y : array-like of shape (n,), optional
            Their labels. Left out where X is `LabeledImages`.
        **settings
            ``false_accept_rate``, ``n_shot``, ``n_query``, ``n_episodes`` and ``seed``, as those of
            `PrototypicalClassifier.calibrate`.

        Returns
        -------
        self
            The calibrated model; what was found is in ``calibration_``, and ``reject="auto"`` uses it.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read, unless ``on_error="skip"``.
        ValueError
            If there are fewer than two classes of two items, a number is out of range, or a class could not be told
            from the answer to unknown items.
        """
        check_is_fitted(self)
        return self._embed_then(lambda: self.prepare_held_out(X, y), lambda p: self.calibrate_by(p, **settings))

    def prepare_held_out(self, X: Any, y: ArrayLike | None = None) -> Prepared:
        """Embed the items of `calibrate`, its slow part; `calibrate_by` does the rest."""
        now = copy.copy(self)
        if now.reject is not None:
            unknown_mark(now.unknown_label, now.classes_)
        items, labels = labelled(X, y, now.embedder_.as_items)
        held_out = Prepared([""] * len(items), False, labels, now.embed_queries(items), now.embedder_)
        return held_out.read(now.on_error)

    @one_at_a_time
    def calibrate_by(self, held_out: Prepared, **settings: Any) -> Self:
        """Calibrate on what `prepare_held_out` has embedded, here or in another model with the same network."""
        now = self._moment(held_out)
        now.classifier.calibrate(held_out.embedded.embeddings, held_out.labels, **settings)
        return self._publish(now)

    def audit(self) -> pd.DataFrame:
        """Look for support that may do harm: outliers, duplicates, items nearer to another class.

        Returns
        -------
        DataFrame
            A row an item, in the order of ``support_``; see `fewshot.images.audit.audit_support`.

        Raises
        ------
        ValueError
            If support was not kept.
        """
        check_is_fitted(self)
        now = copy.copy(self)
        if now.support_ is None:
            raise ValueError("support was not kept, so there is nothing to look at; fit with keep_support=True")
        return audit_support(now.learner_, now.support_)

    # ---- editing -----------------------------------------------------------------------------------------------

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class and all of its support; the others answer as if it had never been learned.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one. The model is then unchanged.
        """
        now = self._moment()
        now.classifier.remove_class(label)
        support = now.support and now.support.without(now.support.places(label))
        return self._publish(replace(now, support=support))

    def remove(self, X: Any, y: ArrayLike | None = None, *, drop_empty: bool = True) -> Self:
        """Forget some of the support items, as if they had never been learned.

        Where support is kept, an item is found there by its embedding, and what was added then is taken away.
        Elsewhere the item is embedded again and its embedding taken away: exact up to the rounding of the network.

        Parameters
        ----------
        X : collection of n items, or LabeledImages
            Items that were learned.
        y : array-like of shape (n,), optional
            Their labels. Left out where X is `LabeledImages`.
        drop_empty : bool, default=True
            Whether a class without support left is forgotten; else it stays in ``classes_`` and is never the answer.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read.
        ValueError
            If an item is not in the kept support of its class, a class is unknown or has fewer items, or nothing would
            be left. The model is then unchanged.
        """
        return self._embed_then(
            lambda: self.prepare_removal(X, y), lambda prepared: self.unlearn(prepared, drop_empty=drop_empty)
        )

    def prepare_removal(self, X: Any, y: ArrayLike | None = None) -> Prepared:
        """Embed items that are to be removed, the slow part of `remove`; `unlearn` does the rest."""
        now = self._moment()
        items, labels = labelled(X, y, now.embedder.as_items, now.classifier.classes_)
        embedded = now.embedder.embed(items, on_error="raise")
        return Prepared(names_of(items, None, ()), False, labels, embedded, now.embedder)

    @one_at_a_time
    def unlearn(self, prepared: Prepared, *, drop_empty: bool = True) -> Self:
        """Remove what `prepare_removal` has embedded, here or in another model with the same network."""
        now = self._moment(prepared)
        embeddings = prepared.embedded.embeddings
        labels = as_labels(prepared.labels, known=now.classifier.classes_)  # which may have grown since
        if now.support is None:
            now.classifier.remove(embeddings, labels, drop_empty=drop_empty)
            return self._publish(now)
        return self._remove_rows(now, now.support.find(embeddings, labels, prepared.names), drop_empty)

    @one_at_a_time
    def remove_support(self, ids: Sequence[str], *, label: Any = None, drop_empty: bool = True) -> Self:
        """Forget support items by their names; nothing is embedded again.

        Parameters
        ----------
        ids : sequence of str or path
            Paths as they were learned, or the names given then; an item that was learned twice under one name goes
            twice.
        label : object, optional
            Their class: items of the same name that were learned as another class stay. By default they go too.
        drop_empty : bool, default=True
            Whether a class without support left is forgotten; else it stays in ``classes_`` and is never the answer.

        Raises
        ------
        ValueError
            If support is not kept, no item has that name, the name tells no item from another (arrays learned without
            ``ids=``), or nothing would be left. The model is then unchanged.
        TypeError
            If `ids` is one name.
        """
        now = self._moment()
        if now.support is None:
            raise ValueError(
                "support was not kept, so images have no names; fit with keep_support=True, or remove(X, y)"
            )
        return self._remove_rows(now, now.support.named(ids, label), drop_empty)

    def _remove_rows(self, now: Learned, rows: Sequence[int], drop_empty: bool) -> Self:
        if now.support is None or not rows:
            return self
        gone = now.support.rows(rows)
        now.classifier.remove(gone.embeddings, gone.labels, drop_empty=drop_empty)
        return self._publish(replace(now, support=now.support.without(rows)))

    @one_at_a_time
    def rename_class(self, old: Any, new: Any) -> Self:
        """Give a class another label; what it has learned stays.

        Raises
        ------
        ValueError
            If there is no class `old`, or `new` is one already. The model is then unchanged.
        TypeError
            If `new` is of another type than the other labels.
        """
        now = self._moment()
        now.classifier.rename_class(old, new)
        support = now.support and now.support.renamed(old, new, now.classifier.classes_.dtype)
        return self._publish(replace(now, support=support))

    @one_at_a_time
    def merge(self, other: Self) -> Self:
        """Learn all that another model has learned, by addition: as if its items had been shown to this one.

        Parameters
        ----------
        other : FewShotModel
            Of the same network, preprocessing and learner; it is not changed. Items that both have learned count twice;
            where both keep their support, a warning names them.

        Raises
        ------
        ValueError
            If network, preprocessing or learner differ, or this one keeps its support and the other did not. The model
            is then unchanged.
        """
        check_is_fitted(other)
        now, given = self._moment(), other._known("classifier_")
        mine, theirs = now.embedder.fingerprint, given.embedder.fingerprint
        if mine != theirs:
            raise ValueError(
                f"the other classifier has another network or preprocessing ({theirs[:12]}, here {mine[:12]}); "
                "their embeddings cannot be compared, so fit one of them again with the other's backbone"
            )
        support, more = now.support, given.support
        if support is not None and more is None:
            raise ValueError(
                "the other classifier kept no support; merge this one into it, or set_params(keep_support=False) here"
            )
        now.classifier.merge(given.classifier)
        if support is not None and more is not None:
            warn_of_same_images(support, more.ids, more.embeddings)
            support = trimmed(now.classifier, support + more)
        return self._publish(replace(now, support=support))

    # ---- saving ------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, *, weights: str | None = None, overwrite: bool = False) -> None:
        """Write the model to a folder of JSON and safetensors, or replace the one that is there.

        Weights, preprocessing, statistics, labels and kept support are all in it. The folder is replaced in one step: a
        failure leaves what was there. Writers of one folder, threads and processes, follow each other.

        Parameters
        ----------
        folder : path
            New, empty, or one that `save` has written.
        weights : {"embed", "reference"}, optional
            Whether the network's weights are written, or only the name of the pretrained backbone and the hash of its
            weights, which must then be found where the folder is loaded; a custom embedder is given to `load`. By
            default as it was loaded, else ``embed``, and of an `OwnEmbedder`, which has none, ``reference``.
        overwrite : bool, default=False
            Whether to replace the folder also where somebody else has written it since this model was loaded from it or
            last saved to it. A model that has never been there replaces what is there in any case.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or has changed meanwhile.
        InUseError
            If somebody else is writing it for longer than a minute.
        ValueError
            If the network was not built by `create_backbone`, or no name leads to its weights.

        Examples
        --------
        >>> import tempfile
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data, folder = digits(), tempfile.mkdtemp()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> model.fit(data.images[:5], data.labels[:5]).save(folder)
        >>> FewShotModel.load(folder).partial_fit(data.images[5:9], data.labels[5:9]).save(folder)
        >>> model.is_saved_in(folder)
        False
        >>> model.save(folder, overwrite=True)
        """
        check_is_fitted(self)
        with writing(folder, "classifier"):  # so that of two threads the later one writes what both have learned
            now = copy.copy(self)
            stored = weights or ("reference" if isinstance(now.embedder_, OwnEmbedder) else now._stored)
            params = {name: getattr(now, name) for name in SAVED}
            known = {} if overwrite else now._versions
            written = saving.save(folder, now._known("classifier_"), params, stored, known)
            self._versions = {**now._versions, **written}
            self._stored = stored

    def is_saved_in(self, folder: str | Path) -> bool:
        """Whether a folder still holds what this model was loaded from there, or last saved there."""
        version = self._versions.get(os.path.realpath(folder))
        return version is not None and version == version_of(folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", embedder: Any = None) -> Self:
        """Return a model that `save` has written; it answers as it did, up to float32 rounding on other machines.

        The folder may come from a stranger: whatever it holds, loading it runs none of its code, fetches nothing, and
        reads and writes no other files. It can answer wrongly, though, and takes memory and time in proportion to its
        size: digests show damage, and are no signature. All of it is read into memory, so the folder may change
        afterwards.

        Parameters
        ----------
        folder : path
            The folder.
        device : str, default="auto"
            Where to embed.
        embedder : Embedder or OwnEmbedder, optional
            The one that it was fitted with, where no file can say how to make that.

        Raises
        ------
        ArtifactError
            If the folder is none of these, damaged, holds what no model has, or was written by a newer version; if the
            embedder is another, or the weights that it only names are not on this machine.
        """
        found = saving.load(folder, device, embedder)
        model = cls._with_parameters(found, device)
        model._versions, model._stored = found.versions, found.stored
        return model._publish(found.learned)

    @classmethod
    def _with_parameters(cls, found: saving.Saved, device: str) -> Self:
        """Return a model that is not fitted, with the parameters of a saved one."""
        return cls(found.learned.embedder, found.learned.classifier.learner, **found.params)
