"""What a classifier of images tells of itself: its answers with their reasons, how sure it may be, its support."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from fewshot.embedding.items import as_items
from fewshot.model.answer import Answer, answer_all
from fewshot.model.audit import audit_support
from fewshot.model.inputs import labelled, leave_out_unread

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
        embedder_: Embedder
        classifier_: FewShotClassifier
        support_: Support | None
        on_error: str

        def answering(self, on_error: str | None = None) -> FewShotClassifier:
            """Return the classifier with the parameters of this moment."""

        def embed_queries(self, X: Any, on_error: str | None = None, thumbnails: bool = False) -> Embedded:
            """Embed queries."""

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
        items = as_items(X)
        embedded = self.embed_queries(items, thumbnails=True)
        return answer_all(self.answering(), self.support_, items, embedded, top, n_neighbours)

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
            If there are fewer than two classes of two images, or a number is out of range.
        """
        check_is_fitted(self)
        items, labels = labelled(X, y)
        embedded = self.embed_queries(items)
        if embedded.errors:
            if self.on_error != "skip":
                raise embedded.errors[0]
            _, labels, embedded = leave_out_unread([""] * len(items), labels, embedded)
        self.classifier_.calibrate(embedded.embeddings, labels, **settings)
        return self

    @property
    def calibration_(self) -> Calibration:
        """What `calibrate` has found."""
        if not hasattr(self, "classifier_") or not hasattr(self.classifier_, "calibration_"):
            raise AttributeError("the classifier is not calibrated; call calibrate(X, y) with held-out classes")
        return self.classifier_.calibration_

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
        if self.support_ is None:
            raise ValueError("support was not kept, so there is nothing to look at; fit with keep_support=True")
        return audit_support(self.classifier_.model_.learner, self.support_)
