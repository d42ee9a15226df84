"""The few-shot model: an embedder and a classifier in one estimator, saved as one folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.classifiers.reaches_learner import ReachesLearner
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.own import OwnEmbedder
from fewshot.errors import brief
from fewshot.images import saving
from fewshot.images.answer import Answer, Answers, answer_all
from fewshot.images.audit import audit_support
from fewshot.images.checked import CheckResult, check_model
from fewshot.images.framed import answer_frame
from fewshot.images.history import SavedVersion, clear_history, go_back, read_history
from fewshot.images.in_notebooks import model_html
from fewshot.images.learned import PREPARABLE, Learned, Prepared, Then, default_learner, labelled, suited
from fewshot.images.saving import Weights
from fewshot.images.segments import Held
from fewshot.images.sets import Promise
from fewshot.images.suggesting.suggest import StrategyName, Suggestion, suggest
from fewshot.images.support import Support
from fewshot.images.tested import TestResult, test_model
from fewshot.learners.base import Learner
from fewshot.persistence.artifact import version_of, writing
from fewshot.search.snapshot import Index
from fewshot.utils.locks import lock_of, one_at_a_time
from fewshot.utils.pickling import VersionedPickle
from fewshot.utils.text import shortened
from fewshot.utils.values import ON_ERROR, OnError, check_count, check_name

if TYPE_CHECKING:
    import pandas as pd

    from fewshot.classifiers.calibration import Calibration
    from fewshot.classifiers.rejection import Rejection

#: Parameters that are saved; the others follow from the embedder and the learner in the folder.
SAVED = ("on_error", "reject", "unknown_label", "index", "keep_support")
#: The methods that `FewShotModel.prepare` can prepare for.


class FewShotModel(ReachesLearner, VersionedPickle, ClassifierMixin, BaseEstimator):
    """Learn classes from a few items each, classify, keep learning, and save everything in one folder.

    Items are whatever the embedder takes: images, sentences, recordings. `FewShotImageClassifier` is the form for
    images, which creates its own embedder.

    Equal embeddings get bit-identical answers, on every processor and whatever else is in the call, unless the learner
    is transductive. The embeddings themselves come from a network, which some processors round differently in batches
    of different sizes.

    After `fit`, changes to ``on_error``, ``reject``, ``unknown_label`` and ``index`` act at once,
    ``keep_support=False`` acts at the next change to what was learned, and all others act at the next `fit`.

    Several threads may use one model. Each call works on one consistent state, and no change is lost.

    Parameters
    ----------
    embedder : Embedder or OwnEmbedder
        Turns items into embeddings. `fit` uses a copy.
    learner : str, Learner or None, default=None
        A registered name or a learner. By default the learner that the embedder's checkpoint was trained with; for
        other embedders `DiscriminantLearner`.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        What to do with an item that cannot be read. ``raise`` raises an error. ``skip`` leaves it out of the support,
        with a warning, and answers `unknown_label` for a query. ``unknown`` raises for support and answers
        `unknown_label` for a query.
    reject : float or str, optional
        Which items are answered with `unknown_label`; by default none. "5%" is a threshold that accepts 5 % of the
        items of unknown classes, "auto" the rate given to `calibrate`, or else 5 %, and "balanced" accepts as large a
        part of the unknown as it rejects of the known; `rejection` tells what that costs. A number is the least
        similarity to the nearest key.
    unknown_label : object, optional
        The answer for unknown items; by default ``"unknown"`` if labels are text and -1 if they are integers.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest keys are found; see `PrototypeIndex`.
    keep_support : bool, default=True
        Whether to keep, and save, names, embeddings and thumbnails of the support, for `answer` and for reports. Takes
        about 8 KB per image.

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
        The result of `calibrate`.

    Examples
    --------
    >>> from fewshot import FewShotModel, OwnEmbedder
    >>> def vowels(texts):
    ...     return [[text.count(letter) for letter in "aeiou"] for text in texts]
    >>> model = FewShotModel(OwnEmbedder(vowels, "vowels 1")).fit(["banana", "kiwi"], ["a", "i"])
    >>> model.predict(["papaya", "pippin"]).tolist()
    ['a', 'i']
    """

    #: How `save` writes weights by default.
    _stored = "embed"
    #: All that was learned. Always replaced as a whole, so that one read gives a consistent state.
    _learned: Learned | None = None
    #: What the folders hold that it was loaded from or saved to.
    _held = Held()

    def __init__(
        self,
        embedder: Embedder | OwnEmbedder,
        learner: str | Learner | None = None,
        *,
        on_error: OnError = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
        index: Index = "auto",
        keep_support: bool = True,
    ) -> None:
        self.embedder = embedder
        self.learner = learner
        self.on_error = on_error
        self.reject = reject
        self.unknown_label = unknown_label
        self.index = index
        self.keep_support = keep_support

    def __setstate__(self, state: dict[str, Any]) -> None:
        versions = state.get("_versions")  # of older pickles
        super().__setstate__(state if versions is None else {**state, "_held": Held(versions)})

    # ---- learning ----------------------------------------------------------------------------------------------

    def fit(
        self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None, reject_examples: Any = None
    ) -> Self:
        """Learn classes from labelled items, forgetting what was learned before.

        An item that is given twice counts twice, with a warning that names it.

        Parameters
        ----------
        X : collection of n items, LabeledImages or Prepared
            What the embedder takes, or what `prepare` of another model returned. Of images also what holds their labels
            too: a folder of class folders, a table or its path, a data set of torchvision or Hugging Face; see
            `LabeledImages`.
        y : array-like of shape (n,), optional
            Labels: text of at most 10,000 characters, integers or booleans, in any ordered container. Omit if X holds
            the labels.
        ids : sequence of n str, optional
            Unique names under which kept support stores the items; by default their paths.
        reject_examples : collection of m items, optional
            Items that are none of the classes, such as clutter or empty scenes, for `reject`; see `calibrate`.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read, unless ``on_error="skip"``.
        ValueError
            If there are no items, a label is missing, a name is in use, or a parameter is out of range.
        """
        empty = self.empty()
        prepared = X if isinstance(X, Prepared) else empty.prepare(X, y, ids, "partial_fit")
        if not empty.is_comparable(prepared):
            raise ValueError("X was embedded with another network than this model's; prepare it again")
        learned = empty.grown(prepared).warn_of_uneven()
        if reject_examples is not None:
            learned = learned.calibrated(None, learned.prepare_examples(reject_examples), {})
        return self._publish(learned)

    def empty(self) -> Learned:
        """Return the state before anything is learned."""
        embedder = self.make_embedder().set_params(on_error=check_name("on_error", self.on_error, ON_ERROR))
        classifier = FewShotClassifier(
            suited(default_learner(embedder) if self.learner is None else self.learner, embedder),
            index=self.index,
            on_error=self.on_error,
            reject=self.reject,
            unknown_label=self.unknown_label,
        )
        classifier.check_parameters()
        return Learned(embedder, classifier, Support.none() if self.keep_support else None)

    def partial_fit(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Self:
        """Learn more items of known or new classes.

        An item that is given twice counts twice. A warning names it if both are in this call, or support is kept.

        Parameters
        ----------
        X, y, ids
            As for `fit`; or X is the result of `prepare`.

        Raises
        ------
        ImageDecodeError, ValueError
            As for `fit`. The model is then unchanged.
        """
        if self._learned is None and not isinstance(X, Prepared):
            return self.fit(X, y, ids=ids)
        return self._embed_and_change(Learned.grown, "partial_fit", X, y, ids)

    def prepare(
        self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None, then: Then = "partial_fit"
    ) -> Prepared:
        """Embed labelled items ahead of a change, so that the change itself takes milliseconds.

        The result takes the place of X in the method `then`, of this model or of another one with the same network.

        Parameters
        ----------
        X, y, ids
            As for that method.
        then : {"partial_fit", "remove", "calibrate"}, default="partial_fit"
            The method to prepare for.

        Raises
        ------
        ImageDecodeError, ValueError
            As for that method.
        """
        check_name("then", then, PREPARABLE)
        return self._editable().prepare(X, y, ids, then)

    def _embed_and_change(
        self, change: Callable[[Learned, Prepared], Learned], then: Then, X: Any, y: Any, ids: Any = None
    ) -> Self:
        """Embed without holding the lock, then change; embed again if another thread has called fit in between."""
        while True:
            prepared = X if isinstance(X, Prepared) else self.prepare(X, y, ids=ids, then=then)
            with lock_of(self):
                now = self._editable()
                if now.is_comparable(prepared):
                    return self._publish(change(now, prepared))
            if prepared is X:
                raise ValueError(
                    "X was embedded with another network than this model's, perhaps because the model was fitted again "
                    "meanwhile; prepare it again"
                )

    @one_at_a_time
    def _publish(self, learned: Learned) -> Self:
        # The last step of every change: if anything fails before, the model is unchanged.
        # Steady answers cost nothing compared with embedding, and make tables of different batches comparable.
        learned.classifier.steady = True
        self._learned = learned
        return self

    def make_embedder(self) -> Embedder | OwnEmbedder:
        """Return the embedder that `fit` would use."""
        if not isinstance(self.embedder, (Embedder, OwnEmbedder)):
            raise TypeError(
                f"embedder is {brief(repr(self.embedder))}; expected an Embedder, such as Embedder('resnet18'), or an "
                "OwnEmbedder around anything else that embeds"
            )
        return clone(self.embedder)

    # ---- what was learned --------------------------------------------------------------------------------------

    def snapshot(self, on_error: OnError | None = None) -> Learned:
        """Return the learned state with the current parameters; later changes do not affect it.

        Parameters
        ----------
        on_error : {"raise", "skip", "unknown"}, optional
            Overrides the model's own.

        Raises
        ------
        NotFittedError
            If nothing was learned yet.
        """
        learned = self._fitted()
        classifier = learned.classifier.view(
            index=self.index,
            on_error=on_error or self.on_error,
            reject=self.reject,
            unknown_label=self.unknown_label,
        )
        return replace(learned, classifier=classifier)

    def _editable(self) -> Learned:
        """Return the learned state, without the support if `keep_support` is now False."""
        now = self.snapshot()
        return now if self.keep_support else replace(now, support=None)

    def _fitted(self) -> Learned:
        if self._learned is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted; call fit first")
        return self._learned

    def __sklearn_is_fitted__(self) -> bool:
        return self._learned is not None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags = self.embedder.__sklearn_tags__().input_tags
        return tags

    def _repr_html_inner(self) -> str:  # scikit-learn calls it if it displays diagrams
        return super()._repr_html_inner() if self._learned is None else model_html(self._learned, type(self).__name__)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        return bundle | ({"text/html": self._repr_html_inner()} if "text/html" in bundle else {})

    @property
    def embedder_(self) -> Embedder | OwnEmbedder:
        """From items to embeddings."""
        return self._fitted().embedder

    @property
    def classifier_(self) -> FewShotClassifier:
        """From embeddings to answers."""
        return self._fitted().classifier

    @property
    def learner_(self) -> Learner:
        """The fitted learner, on the CPU and in double precision."""
        return self.classifier_.learner_

    @property
    def support_(self) -> Support | None:
        """The support, if kept."""
        return self._fitted().support

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted labels, (n_classes,)."""
        return self.classifier_.classes_

    @property
    def n_support_(self) -> NDArray[np.int64]:
        """Support items of each class, (n_classes,)."""
        return self.classifier_.n_support_

    @property
    def calibration_(self) -> Calibration:
        """The result of `calibrate`."""
        found: Calibration | None = getattr(self.classifier_, "calibration_", None)
        if found is None:
            raise AttributeError("the model is not calibrated; call calibrate(X, y) with held-out classes")
        return found

    # ---- answering ---------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of each item; `unknown_label` if it cannot be read, unless ``on_error="raise"``.

        Parameters
        ----------
        X : collection of n items
            Queries.

        Returns
        -------
        ndarray of shape (n,)
            Labels, of the type given to `fit`.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read and ``on_error="raise"``.
        """
        classifier, x = self._embedded(X)
        return classifier.predict(x)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the probability of each class in the order of ``classes_``, (n, n_classes); see `predict`.

        Of an item that is skipped because it cannot be read, all classes are equally likely.
        """
        classifier, x = self._embedded(X)
        return classifier.predict_proba(x)

    def predict_frame(self, X: Any, *, top: int = 1, coverage: float | None = None) -> pd.DataFrame:
        """Return the answers as a data frame.

        Parameters
        ----------
        X : collection of n items, LabeledImages or DataFrame
            Queries; of a data frame the column of images, such as ``path``.
        top : int, default=1
            If above 1, how many of the likeliest classes to tell.
        coverage : float, optional
            How often a set of classes is to hold the right one; see `predict_set`.

        Returns
        -------
        DataFrame
            Columns ``item`` (its path or kind), ``label``, ``likeliest`` (the likeliest class: the label, unless that
            is unknown), ``probability`` (of the likeliest class), ``unknown`` (it was read, and is none of the
            classes) and ``error`` (None if it was read; if not, ``unknown`` is False, though the label says unknown);
            ``true`` if X has labels; ``class_1``, ``probability_1``, ... of the `top`; and ``set``. Its index is that
            of a data frame or series, so that both can be joined: ``frame.join(answers, rsuffix="_answer")``.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read and ``on_error="raise"``.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> support, queries = digits().split(5)
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28)).fit(support)
        >>> frame = model.predict_frame(queries[:100], top=2)
        >>> mistakes = frame[frame["label"] != frame["true"]].sort_values("probability")
        >>> len(frame), 0 < len(mistakes) < 50
        (100, True)
        """
        promise = None if coverage is None else Promise(coverage)
        return answer_frame(self.snapshot(), X, check_count("top", top), promise)

    def nearest(self, X: Any, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return labels and similarities (n, k) of the nearest keys: prototypes, or support items, by learner.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        classifier, x = self._embedded(X)
        return classifier.nearest(x, k)

    def _embedded(self, X: Any) -> tuple[FewShotClassifier, NDArray[np.float32]]:
        """Return the present classifier and the embeddings of queries; by `on_error`, unreadable ones raise or are NaN.

        There is no warning, because the answer shows which query was unreadable.
        """
        now = self.snapshot()
        return now.classifier, now.embedder.embed(X, on_error=now.classifier.on_error).embeddings

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy on labelled items, or on `LabeledImages`."""
        items, labels = labelled(X, y, self.embedder_.as_items, self.classifier_.model_)
        return super().score(items, labels, sample_weight)

    def predict_set(
        self, X: Any, coverage: float = 0.9, *, by_class: bool = False, held_out: Any = None
    ) -> list[list[Any]]:
        """Return for each item a set of classes that holds the right one as often as promised.

        Parameters
        ----------
        X : collection of n items
            Queries of the same kind as the support.
        coverage, by_class
            As for `DiscriminantClassifier.predict_set`, which says what is promised, and from how many images on.
        held_out : LabeledImages or (X, y), optional
            Labelled items that were not learned. By default items of the support are left out.

        Returns
        -------
        list of n lists
            Labels, likeliest first; empty if no class fits, or the item cannot be read.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read and ``on_error="raise"``.
        ValueError
            If there are too few images for the promise, such as one of each class.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data = digits()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> sets = model.fit(data.images[:50], data.labels[:50]).predict_set(data.images[60:63], coverage=0.8)
        >>> len(sets), sum(label in found for label, found in zip(data.labels[60:63].tolist(), sets))
        (3, 2)
        """
        now = self.snapshot()
        return Promise(coverage, by_class, held_out).sets(now, now.embed(now.embedder.as_items(X)).embeddings)

    def answer(self, X: Any, *, top: int = 3, n_neighbours: int = 3, promise: Promise | None = None) -> Answers:
        """Classify each item with the reasons: likeliest classes, nearest prototypes, nearest support items.

        Parameters
        ----------
        X : collection of n items
            Queries.
        top : int, default=3
            Classes in the ranking, and prototypes.
        n_neighbours : int, default=3
            Support items; none if support is not kept.
        promise : Promise, optional
            Which sets to answer with, too; see `predict_set`.

        Returns
        -------
        list of Answer
            One per item; a notebook shows it with pictures.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read and ``on_error="raise"``.
        """
        now = self.snapshot()
        return answer_all(now, now.embedder.as_items(X), top, n_neighbours, promise)

    def explain(self, item: Any, *, top: int = 3, n_neighbours: int = 3) -> Answer:
        """Classify one item with the reasons; see `answer`.

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

    # ---- trust -------------------------------------------------------------------------------------------------

    def test(self, X: Any, y: ArrayLike | None = None, *, n_shown: int = 24) -> TestResult:
        """Measure how good the model is on labelled items that it has not learned.

        Items of classes that the model does not know are counted apart; the right answer to them is the unknown label.

        Parameters
        ----------
        X : collection of n items, or LabeledImages
            Items.
        y : array-like of shape (n,), optional
            Their labels. Omit if X is `LabeledImages`.
        n_shown : int, default=24
            How many wrong answers to keep with their reasons, the surest first, and right ones, the least sure first.

        Returns
        -------
        TestResult
            Accuracy with its interval, figures of each class, confusion, and the answers to look at.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read, unless ``on_error`` is "skip" or "unknown"; then it is left out with a warning.
        ValueError
            If the model knows none of the classes, and `reject` is None, so that every answer is wrong.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data = digits()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> result = model.fit(data.images[:50], data.labels[:50]).test(data.images[50:80], data.labels[50:80])
        >>> result.n, result.interval[0] < result.accuracy < result.interval[1], len(result.per_class)
        (30, True, 10)
        """
        return test_model(self.snapshot(), X, y, check_count("n_shown", n_shown, 0))

    def check(self, *, n_shown: int = 24) -> CheckResult:
        """Estimate how good the model will be on new items, from its support alone.

        Each item is answered as if it had not been learned: in closed form by the default learner, in ten parts by
        others; of many, about 1000. Copies of an item in its class count once. The result allows for the item that is
        missing then. It holds for new items of the same kind, not for those of another camera or day, and counts all
        answers; ``refused`` is the share of them that `reject` turns away. It is too low if many items were picked
        because they are hard, as `suggest` does; then `test` tells.

        Parameters
        ----------
        n_shown : int, default=24
            How many wrong answers to keep with their reasons, the surest first.

        Returns
        -------
        CheckResult
            The accuracy to expect, with its interval, and what is taken for what; on request ``suspects``,
            ``near_duplicates``, the learning ``curve``, and the ``gains`` of more images.

        Raises
        ------
        ValueError
            If support was not kept, there is one class, or every class has one item.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data = digits()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> result = model.fit(data.images[:50], data.labels[:50]).check()
        >>> result.interval[0] < result.accuracy < result.interval[1], result.accuracy < result.expected(2)
        (True, True)
        """
        learned, n_shown = self.snapshot(), check_count("n_shown", n_shown, 0)
        if learned.support is None:
            raise ValueError("support was not kept, so there is nothing to check; fit with keep_support=True")
        if len(learned.classifier.classes_) < 2:
            raise ValueError("there is one class, which is every answer; add another")
        if (found := check_model(learned.classifier, learned.support, n_shown)) is None:
            raise ValueError("every class has one item, so none can be left out; add a second to some of them")
        return found

    def suggest(
        self, X: Any, k: int = 20, *, strategy: StrategyName = "uncertainty-herding", seed: int = 0
    ) -> list[Suggestion]:
        """Choose the items of a pool to label next, the best first.

        By default they cover the pool, and first of all what the model is unsure of: while little is labelled, that is
        everything, later the doubtful items in dense places. An item is not suggested if it is in the kept support or
        a copy of another. Nothing need be learned before. Time and memory grow as the pool does.

        Parameters
        ----------
        X : collection of n items
            The pool, without labels; items that were learned already may be among them.
        k : int, default=20
            How many to choose.
        strategy : {"uncertainty-herding", "herding", "typiclust", "probcover", "k-center", "margin", "entropy", \
"random"}, default="uncertainty-herding"
            ``uncertainty-herding`` (Bae et al. 2025, arXiv:2412.20644); for coverage alone ``herding`` (Bae et al.
            2024, arXiv:2407.12212), ``typiclust`` (Hacohen et al. 2022, arXiv:2202.02794), ``probcover`` (Yehuda et
            al. 2022, arXiv:2205.11320) and ``k-center`` (Sener and Savarese 2018, arXiv:1708.00489); for doubt alone
            ``margin`` and ``entropy``; ``random``.
        seed : int, default=0
            Seed of random choices.

        Returns
        -------
        list of Suggestion
            At most k items, each with the present answer, a score and a reason.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read, unless ``on_error`` is "skip" or "unknown"; then it is left out with a warning.
        UnknownNameError
            If there is no such strategy.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data = digits()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> first = [found.row for found in model.suggest(data.images[:200], 20)]
        >>> model = model.fit(data.images[first], data.labels[first])
        >>> second = [found.row for found in model.suggest(data.images[:200], 20)]
        >>> len({*first, *second})
        40
        """
        now = self.empty() if self._learned is None else self.snapshot()
        return suggest(now, X, check_count("k", k), strategy, check_count("seed", seed, 0))

    def calibrate(
        self, X: Any = None, y: ArrayLike | None = None, *, reject_examples: Any = None, **settings: Any
    ) -> Self:
        """Refine probabilities, and say what is unknown, by items of other classes.

        The embeddings of at most 1000 of the items are kept and saved. Nothing is rejected unless `reject` says so;
        `rejection` tells what that would cost.

        Parameters
        ----------
        X : collection of n items, or LabeledImages, optional
            Items of classes that the network was not trained on and that are none of the model's. Or the result of
            `prepare`.
        y : array-like of shape (n,), optional
            Their labels. Omit if X is `LabeledImages`.
        reject_examples : collection of m items, optional
            Items that are none of the classes, such as clutter or empty scenes, without labels. Or the result of
            `prepare`.
        **settings
            ``false_accept_rate``, ``n_shot``, ``n_query``, ``n_episodes`` and ``seed``, as for
            `PrototypicalClassifier.calibrate`.

        Returns
        -------
        self
            The calibrated model; ``calibration_`` holds the result if X was given.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read, unless ``on_error="skip"``.
        ValueError
            If there are fewer than two classes of two items, a number is out of range, `unknown_label` is a class, or
            neither X nor `reject_examples` is given.
        """
        examples = None if reject_examples is None else self._editable().prepare_examples(reject_examples)
        if X is None and examples is not None:
            return self._embed_and_change(
                lambda now, given: now.calibrated(None, given, settings), "calibrate", examples, y
            )
        return self._embed_and_change(lambda now, given: now.calibrated(given, examples, settings), "calibrate", X, y)

    @one_at_a_time
    def clear_calibration(self) -> Self:
        """Forget what `calibrate` and `reject_examples` have taught."""
        return self._publish(self._editable().uncalibrated())

    def rejection(self, reject: str | None = None) -> Rejection:
        """Return the threshold that a value of `reject` means, and what it costs, without setting it.

        Parameters
        ----------
        reject : str, optional
            "auto", "balanced", or the fraction of unknown items to accept, such as "5%". By default the `reject` of the
            model, or "auto" if that is no rule.

        Raises
        ------
        ValueError
            If the value is none of these, or nothing tells what is unknown: there is one class, or the learner is not
            the default one and was not calibrated.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data = digits()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> costs = model.fit(data.images[:50], data.labels[:50]).rejection("10%")
        >>> costs.false_accept_rate <= 0.1 < costs.false_accept_interval[1]
        True
        """
        return self.snapshot().classifier.rejection(reject)

    def audit(self) -> pd.DataFrame:
        """Find support that may do harm: implausible labels, duplicates, outliers.

        Returns
        -------
        DataFrame
            One row per item, in the order of ``support_``; see `fewshot.images.audit.audit_support`.

        Raises
        ------
        ValueError
            If support was not kept.
        """
        learned = self._fitted()
        if learned.support is None:
            raise ValueError("support was not kept, so there is nothing to audit; fit with keep_support=True")
        learned.warn_of_uneven()
        return audit_support(learned.classifier.learner_, learned.support)

    # ---- editing -----------------------------------------------------------------------------------------------

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class and all of its support; the others answer as if it had never been learned.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one. The model is then unchanged.
        """
        return self._publish(self._editable().without_class(label))

    def remove(self, X: Any, y: ArrayLike | None = None, *, drop_empty: bool = True) -> Self:
        """Forget some of the support items, as if they had never been learned.

        If support is kept, an item is looked up there by its embedding, and exactly what it added is subtracted.
        Otherwise its new embedding is subtracted, which is exact up to the rounding of the network.

        Parameters
        ----------
        X : collection of n items, or LabeledImages
            Items that were learned; or the result of `prepare`.
        y : array-like of shape (n,), optional
            Their labels. Omit if X is `LabeledImages`.
        drop_empty : bool, default=True
            Whether to forget a class left without support; otherwise it stays in ``classes_`` and is never predicted.

        Raises
        ------
        ImageDecodeError
            If an item cannot be read.
        ValueError
            If an item is not in the kept support of its class, a class is unknown or has fewer items, or nothing would
            be left. The model is then unchanged.
        """
        return self._embed_and_change(lambda now, given: now.without(given, drop_empty), "remove", X, y)

    @one_at_a_time
    def remove_support(self, ids: Sequence[str], *, label: Any = None, drop_empty: bool = True) -> Self:
        """Forget support items by their names, without embedding them again.

        Parameters
        ----------
        ids : sequence of str or path
            Paths as they were learned, or the names given then. All items of a name are removed.
        label : object, optional
            Remove only items of this class; by default of all classes.
        drop_empty : bool, default=True
            Whether to forget a class left without support; otherwise it stays in ``classes_`` and is never predicted.

        Raises
        ------
        ValueError
            If support is not kept, no item has that name, the name is ambiguous (arrays learned without ``ids=``), or
            nothing would be left. The model is then unchanged.
        TypeError
            If `ids` is a single name.
        """
        now = self._editable()
        if now.support is None:
            raise ValueError(
                "support was not kept, so images have no names; fit with keep_support=True, or remove(X, y)"
            )
        return self._publish(now.without_rows(now.support.named(ids, label), drop_empty))

    @one_at_a_time
    def rename_class(self, old: Any, new: Any, *, merge: bool = False) -> Self:
        """Give a class another label; what it has learned stays.

        With `merge`, `new` may be another class, which then has learned the items of both, each once.

        Raises
        ------
        ValueError
            If there is no class `old`, or `new` is a class already and `merge` is False or support is not kept. The
            model is then unchanged.
        TypeError
            If the type of `new` differs from that of the other labels.
        """
        return self._publish(self._editable().renamed(old, new, merge))

    @one_at_a_time
    def change(self, change: Callable[[Learned], Learned]) -> Self:
        """Apply a change to what was learned, in one step: a function of the state before, such as its ``moved``."""
        return self._publish(change(self._editable()))

    @one_at_a_time
    def merge(self, other: Self) -> Self:
        """Add what another model has learned, as if its items had been shown to this one.

        Parameters
        ----------
        other : FewShotModel
            Has the same network, preprocessing and learner; it is not changed. Items that both have learned count
            twice; if both keep their support, a warning names them.

        Raises
        ------
        ValueError
            If network, preprocessing or learner differ, or only this one keeps its support. The model is then
            unchanged.
        TypeError
            If `other` is not a model, or the label types differ.
        """
        if not isinstance(other, FewShotModel):
            raise TypeError(f"other is {shortened(repr(other), 100)}; expected a model, such as one from load")
        return self._publish(self._editable().merged(other.snapshot()))

    # ---- saving ------------------------------------------------------------------------------------------------

    def save(
        self, folder: str | Path, *, weights: Weights | None = None, overwrite: bool = False, note: str = "save"
    ) -> None:
        """Write the model to a folder of JSON and safetensors, or replace the one that is there.

        The folder holds weights, preprocessing, statistics, labels and kept support. It is replaced in one step: a
        failure leaves the old one intact. Threads and processes that write the same folder take turns. The last
        versions are kept: see `history` and `undo`. Of more than 8 MB of class means, kept support or what a learner
        keeps of it, only what changed is written since the model was loaded from there or saved there; the whole again
        once that is an eighth.

        Parameters
        ----------
        folder : path
            New, empty, or written by `save`.
        weights : {"embed", "reference"}, optional
            Whether to write the network's weights, or only the name of the pretrained backbone and the hash of its
            weights, which must then be found where the folder is loaded; a custom embedder is then passed to `load`.
            By default as it was loaded, else ``embed``; for an `OwnEmbedder`, which has no weights, ``reference``.
        overwrite : bool, default=False
            Whether to replace the folder even if someone else has written it since this model was loaded from it or
            last saved to it. A model that was never saved there replaces it in any case.
        note : str, default="save"
            What changed, for `history`; at most 200 characters.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or has changed meanwhile.
        InUseError
            If someone else is writing it for longer than a minute.
        ValueError
            If the network was not built by `create_backbone`, or ``weights="reference"`` and
            its weights have no name.

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
        self._fitted()
        with writing(folder, "classifier"):  # read the state inside: the later of two threads writes what both learned
            learned, held = self._fitted(), Held() if overwrite else self._held
            stored = weights or ("reference" if isinstance(learned.embedder, OwnEmbedder) else self._stored)
            params = {name: getattr(self, name) for name in SAVED}
            self._held = self._held.joined(saving.write_model(folder, learned, params, stored, held, note))
            self._stored = stored

    def is_saved_in(self, folder: str | Path) -> bool:
        """Whether a folder still holds what this model was loaded from there, or last saved there."""
        version = self._held.versions.get(os.path.realpath(folder))
        return version is not None and version == version_of(folder)

    @staticmethod
    def history(folder: str | Path) -> list[SavedVersion]:
        """Return the versions of a saved model that `undo` can return to, oldest first, the current one among them.

        A folder keeps the hundred versions before, as long as what only they need takes at most 100 MB, and the last
        one in any case; each picture labelled on the page of ``fewshot serve`` makes one. They share the files that did
        not change, such as the network's weights. Copying the folder copies them.

        Raises
        ------
        ArtifactError
            If the folder is not a saved model, or is damaged.

        Examples
        --------
        >>> import tempfile
        >>> from fewshot import Embedder, FewShotModel, digits
        >>> data, folder = digits(), tempfile.mkdtemp()
        >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28))
        >>> model.fit(data.images[:5], data.labels[:5]).save(folder)
        >>> model.remove_class(3).save(folder, note="remove 3")
        >>> [(one.number, one.note, one.n_classes) for one in FewShotModel.history(folder)]
        [(1, 'save', 5), (2, 'remove 3', 4)]
        >>> FewShotModel.undo(folder).number, len(FewShotModel.load(folder).classes_)
        (1, 5)
        >>> FewShotModel.undo(folder, to=2).n_classes
        4
        """
        return read_history(folder)

    @staticmethod
    def undo(folder: str | Path, to: int | None = None) -> SavedVersion:
        """Make an earlier version of a saved model the current one again, in one step; see `history`.

        Nothing is lost: the version that was current is kept, and ``to=`` its number returns to it. Models that were
        loaded before stay as they are, and `save` refuses to replace the folder by them.

        Parameters
        ----------
        folder : path
            The folder.
        to : int, optional
            Number of the version; by default the one from which the current one was made. Number 0, before the first
            class, is there if ``fewshot serve`` taught it to a new folder, which then counts as new again.

        Returns
        -------
        SavedVersion
            The version that is current now.

        Raises
        ------
        ArtifactError
            If the folder is not a saved model, or there is no such version, or it is damaged.
        InUseError
            If someone else is writing the folder for longer than a minute.
        """
        return go_back(folder, to)

    @staticmethod
    def clear_history(folder: str | Path) -> None:
        """Delete the earlier versions of a saved model, and with them what was removed from it; see `history`."""
        clear_history(folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", embedder: Any = None) -> Self:
        """Load a model that `save` has written; on other machines, answers differ by float32 rounding at most.

        The folder may come from a stranger: loading it runs no code, downloads nothing, and reads and writes no other
        files. Its answers can still be wrong, and it takes memory and time in proportion to its size: digests detect
        damage, and are not signatures. Everything is read into memory, so the folder may change afterwards; but class
        sums of more than 8 MB are mapped, and their file must not be truncated or overwritten. `save` replaces it.

        Parameters
        ----------
        folder : path
            The folder.
        device : str, default="auto"
            Where to embed.
        embedder : Embedder or OwnEmbedder, optional
            The one that the model was fitted with, if the folder cannot say how to build it.

        Raises
        ------
        ArtifactError
            If the folder is not a saved model, is damaged or inconsistent, or was written by a newer version; if the
            embedder is another; or if the weights that it refers to are not on this machine.
        """
        found = saving.read_model(folder, device, embedder)
        model = cls._with_parameters(found, device)
        model._held, model._stored = found.held, found.stored
        return model._publish(found.learned)

    @classmethod
    def _with_parameters(cls, found: saving.Saved, device: str) -> Self:
        """Return an unfitted model with the parameters of a saved one."""
        return cls(found.learned.embedder, found.learned.classifier.learner, **found.params)
