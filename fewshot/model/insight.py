"""What a classifier of images tells of itself: its answers with their reasons, how sure it may be, its support."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from fewshot.locks import lock_of, one_at_a_time
from fewshot.model.answer import Answer, answer_all
from fewshot.model.audit import audit_support
from fewshot.model.inputs import labelled, leave_out_unread
from fewshot.model.learned import Learned, Prepared
from fewshot.unknown import unknown_mark

if TYPE_CHECKING:
    import pandas as pd

    from fewshot.calibration.choice import Calibration
    from fewshot.classifier import FewShotClassifier
    from fewshot.embedding.batches import Embedded
    from fewshot.embedding.embedder import Embedder
    from fewshot.support import Support


class InsightMixin:
    """Answers with their reasons, calibration, and an audit of the support."""

    if TYPE_CHECKING:
        on_error: str
        reject: float | str | None
        unknown_label: object

        @property
        def embedder_(self) -> Embedder:
            """From images to embeddings."""

        @property
        def classifier_(self) -> FewShotClassifier:
            """From embeddings to answers."""

        @property
        def support_(self) -> Support | None:
            """The support images."""

        def answering(self, on_error: str | None = None) -> FewShotClassifier:
            """Return a copy of the classifier with the parameters of now."""

        def embed_queries(self, X: Any, on_error: str | None = None, thumbnails: bool = False) -> Embedded:
            """Embed queries."""

        def _moment(self, prepared: Prepared | None = None) -> Learned:
            """Return what is known now."""

        def _known(self, name: str) -> Learned:
            """Return what is known now."""

        def _publish(self, learned: Learned) -> Self:
            """Answer with this from now on."""

    def answer(self, X: Any, *, top: int = 3, n_neighbours: int = 3) -> list[Answer]:
        """Return all that is known of each image: likeliest classes, nearest prototypes, nearest support images.

        Parameters
        ----------
        X : collection of n images
            Queries.
        top : int, default=3
            Classes in the ranking and prototypes, at most all.
        n_neighbours : int, default=3
            Support images; none where support is not kept.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read and ``on_error="raise"``.
        """
        check_is_fitted(self)
        now = copy.copy(self)  # of this moment, whatever is learned meanwhile
        items = now.embedder_.as_items(X)
        embedded = now.embed_queries(items, thumbnails=True)
        return answer_all(now.answering(), now.support_, items, embedded, top, n_neighbours)

    def explain(self, item: Any, *, top: int = 3, n_neighbours: int = 3) -> Answer:
        """Return why one image is answered as it is; see `answer`.

        Examples
        --------
        >>> from fewshot import Embedder, FewShotImageClassifier, digits
        >>> data = digits()
        >>> model = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=28))
        >>> answer = model.fit(data.images[:50], data.labels[:50]).explain(data.images[60])
        >>> len(answer.prototypes), len(answer.neighbours), answer.margin >= 0
        (3, 3, True)
        """
        return self.answer([item], top=top, n_neighbours=n_neighbours)[0]

    def calibrate(self, X: Any, y: ArrayLike | None = None, **settings: Any) -> Self:
        """Make probabilities fit how often answers are right, and find the score below which an image is unknown.

        Parameters
        ----------
        X : collection of n images, or LabeledImages
            Images of classes that the network was not trained on; they need not be those of the classifier.
        y : array-like of shape (n,), optional
            Their labels. Left out where X is `LabeledImages`.
        **settings
            ``false_accept_rate``, ``n_shot``, ``n_query``, ``n_episodes`` and ``seed``, as those of
            `PrototypicalClassifier.calibrate`.

        Returns
        -------
        self
            The calibrated classifier; what was found is in ``calibration_``, and ``reject="auto"`` uses it.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read, unless ``on_error="skip"``.
        ValueError
            If there are fewer than two classes of two images, a number is out of range, or a class could not be told
            from the answer to unknown images.
        """
        check_is_fitted(self)
        while True:
            held_out = self.prepare_held_out(X, y)
            with lock_of(self):
                if self._moment().takes(held_out):  # else another thread has called fit while these were embedded
                    return self.calibrate_by(held_out, **settings)

    def prepare_held_out(self, X: Any, y: ArrayLike | None = None) -> Prepared:
        """Embed the images of `calibrate`: all of it that takes long. `calibrate_by` does the rest."""
        if self.reject is not None:
            unknown_mark(self.unknown_label, self.classifier_.classes_)
        now = copy.copy(self)
        items, labels = labelled(X, y, now.embedder_.as_items)
        embedded = now.embed_queries(items)
        if embedded.errors:
            if now.on_error != "skip":
                raise embedded.errors[0]
            embedded.warn(stacklevel=3)
            _, labels, embedded = leave_out_unread([""] * len(items), labels, embedded)
        return Prepared((), False, labels, embedded, now.embedder_)

    @one_at_a_time
    def calibrate_by(self, held_out: Prepared, **settings: Any) -> Self:
        """Calibrate on what `prepare_held_out` has embedded, here or by another classifier of the same network."""
        now = self._moment(held_out)
        now.classifier.calibrate(held_out.embedded.embeddings, held_out.labels, **settings)
        return self._publish(now)

    @property
    def calibration_(self) -> Calibration:
        """What `calibrate` has found."""
        found: Calibration | None = getattr(self._known("calibration_").classifier, "calibration_", None)
        if found is None:
            raise AttributeError("the classifier is not calibrated; call calibrate(X, y) with held-out classes")
        return found

    def audit(self) -> pd.DataFrame:
        """Look for support images that may do harm: outliers, duplicates, those nearer to another class.

        Returns
        -------
        DataFrame
            A row an image, in the order of ``support_``; see `fewshot.model.audit.audit_support`.

        Raises
        ------
        ValueError
            If support was not kept.
        """
        check_is_fitted(self)
        now = copy.copy(self)
        if now.support_ is None:
            raise ValueError("support was not kept, so there is nothing to look at; fit with keep_support=True")
        return audit_support(now.classifier_.model_.learner, now.support_)
