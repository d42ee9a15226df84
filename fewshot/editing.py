"""How what a classifier has learned is changed afterwards: support and classes removed, renamed, merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fewshot.checks import check_embeddings, check_labels, check_same_length, check_sample_weight, warn_if_look_alike
from fewshot.locks import one_at_a_time

if TYPE_CHECKING:
    from fewshot.fitted import FittedModel


class EditingMixin:
    """Changes of a fitted classifier; each is made at once and whole, and a failure leaves what was there."""

    if TYPE_CHECKING:
        model_: FittedModel
        index: str
        closed_set: bool

        def _check_closed(self, classes: NDArray[Any], old: FittedModel | None, holder: str = "") -> None:
            """Refuse new classes where the set is closed."""

        def _check_unknown(self, classes: NDArray[Any], old: FittedModel | None) -> None:
            """Refuse a class that is the answer to unknown queries, too."""

        def adopt(self, model: FittedModel) -> Self:
            """Answer with `model`."""

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class and all of its support; the others answer as if it had never been learned.

        Parameters
        ----------
        label : object
            One of ``classes_``.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one. The classifier is then unchanged.
        """
        check_is_fitted(self)
        return self.adopt(self.model_.without(label, self.index))

    @one_at_a_time
    def remove(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, drop_empty: bool = True
    ) -> Self:
        """Forget some of the support, as if it had never been learned.

        What is left equals what the other support alone would have given, within 1e-12 of the sum of the absolute
        values that were added up. A method that keeps its support (Matching Networks) refuses rows that it has not
        learned. Where only class sums are kept (prototypes), single rows cannot be told apart: refused are more rows
        than a class has, more weight, and, as the last rows of a class, others than those that make up what is left of
        its sum; other rows of the right number go unnoticed while some of the class stay.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Support embeddings that were learned.
        y : array-like of shape (n,)
            Their labels.
        sample_weight : array-like of shape (n,), optional
            Their weights, as they were learned.
        drop_empty : bool, default=True
            Whether a class without support left is forgotten; else it stays in ``classes_`` and is never the answer.

        Raises
        ------
        ValueError
            If a class is unknown or has fewer support rows, these cannot be the rows that were learned (as far as that
            is known, see above), or nothing would be left. The classifier is then unchanged.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> model = PrototypicalClassifier().fit([[0.0], [4.0], [1.0]], ["a", "a", "b"])
        >>> model.remove([[4.0]], ["a"]).nearest([[0.0]])[1]
        array([[0.]])
        """
        check_is_fitted(self)
        X = check_embeddings(self, X, reset=False)
        y = check_labels(y, type(self).__name__, self.model_.classes)
        check_same_length(X, y)
        weight = check_sample_weight(sample_weight, X)
        return self.adopt(self.model_.less(X, y, weight, drop_empty, self.index))

    @one_at_a_time
    def rename_class(self, old: Any, new: Any) -> Self:
        """Give a class another label; what it has learned stays.

        Parameters
        ----------
        old : object
            One of ``classes_``.
        new : object
            A label of the same type that is not in use.

        Raises
        ------
        ValueError
            If there is no class `old`, or `new` is one already, or the answer to unknown queries. The classifier is
            then unchanged.
        TypeError
            If `new` is of another type than the other labels.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> PrototypicalClassifier().fit([[0.0], [1.0]], ["a", "b"]).rename_class("a", "cat").classes_
        array(['b', 'cat'], dtype='<U3')
        """
        check_is_fitted(self)
        known = self.model_.classes
        (label,) = check_labels([new], type(self).__name__, known).tolist()
        if old != new and label in known.tolist():
            raise ValueError(f"{new!r} is a class already; choose another label, or remove that class first")
        others = known[[name != old for name in known.tolist()]]
        classes = np.union1d(others, check_labels([new], type(self).__name__, known))
        self._check_unknown(classes, self.model_)
        warn_if_look_alike(classes)
        return self.adopt(self.model_.renamed(old, label, classes, self.index))

    @one_at_a_time
    def merge(self, other: Self) -> Self:
        """Learn all that another classifier has learned, by addition: as if its support had been shown to this one.

        Parameters
        ----------
        other : classifier
            Of the same learner and embeddings; it is not changed.

        Raises
        ------
        ValueError
            If the other's learner or the length of its embeddings differs, it has new classes where
            ``closed_set=True``, or a class that is the answer to unknown queries here. The classifier is then
            unchanged.
        TypeError
            If labels are of different types.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> one, two = PrototypicalClassifier(), PrototypicalClassifier()
        >>> one.fit([[0.0]], ["a"]).merge(two.fit([[1.0], [5.0]], ["a", "b"])).nearest([[5.0]], 2)[1]
        array([[  0.  , -20.25]])
        """
        check_is_fitted(self)
        check_is_fitted(other)
        mine, theirs = self.model_, other.model_
        if not mine.learner.is_like(theirs.learner):
            raise ValueError(f"what was learned by {theirs.learner} cannot join {mine.learner}; both must be the same")
        if mine.memory.keys.shape[-1] != theirs.memory.keys.shape[-1]:
            raise ValueError(
                f"the other classifier has {theirs.memory.keys.shape[-1]} features, this one "
                f"{mine.memory.keys.shape[-1]}; embed both with the same backbone"
            )
        classes = np.union1d(mine.classes, check_labels(theirs.classes, type(self).__name__, mine.classes))
        self._check_closed(classes, mine, "the other classifier has")
        self._check_unknown(classes, mine)
        warn_if_look_alike(classes)
        return self.adopt(mine.merged(theirs, classes, self.index))
