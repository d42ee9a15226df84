"""What a classifier does with a calibration: temper its probabilities, and reject unknown queries."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from fewshot.calibration.choice import Calibration
from fewshot.calibration.episodes import score_episodes
from fewshot.checks import check_embeddings, check_labels, check_same_length
from fewshot.isolation import isolated
from fewshot.locks import one_at_a_time
from fewshot.unknown import unknown_mark

if TYPE_CHECKING:
    from fewshot.fitted import FittedModel


class CalibrationMixin:
    """Calibrated probabilities and the rejection of unknown queries."""

    if TYPE_CHECKING:
        model_: FittedModel
        reject: Any
        unknown_label: Any
        calibration_: Calibration

    @one_at_a_time
    @isolated()
    def calibrate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        false_accept_rate: float = 0.05,
        n_shot: int | None = None,
        n_query: int = 15,
        n_episodes: int = 200,
        seed: int = 0,
    ) -> Self:
        """Make probabilities fit how often answers are right, and find the score below which a query is unknown.

        In each of many episodes half of the held-out classes drawn are learned, and queries of all are answered: the
        known ones choose the temperature of `predict_proba`, the unknown ones the threshold of ``reject="auto"``. What
        was found is in ``calibration_``. It stays when support is added or removed and goes with the next `fit`; it
        fits best where the number of classes and of shots stays about what it was.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of classes that the embedding was not trained on; they need not be those of the classifier.
        y : array-like of shape (n,)
            Their labels.
        false_accept_rate : float, default=0.05
            The share of unknown queries that may be taken for known.
        n_shot : int, optional
            Support of a class in the episodes; by default the median of this classifier's.
        n_query, n_episodes, seed : int, default=15, 200, 0
            Queries a class; episodes; their seed.

        Returns
        -------
        self
            The calibrated classifier.

        Raises
        ------
        ValueError
            If there are fewer than two classes of two rows, a number is out of range, or a class could not be told from
            the answer to unknown queries. The classifier is then unchanged.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier, digits
        >>> data = digits()
        >>> X = data.images.reshape(len(data), -1) / 255
        >>> known = data.labels < 4
        >>> model = PrototypicalClassifier(reject="auto").fit(X[known][:40], data.labels[known][:40])
        >>> model = model.calibrate(X[~known], data.labels[~known], n_episodes=20)
        >>> model.calibration_.ece_after < model.calibration_.ece_before
        True
        """
        check_is_fitted(self)
        if self.reject is not None:
            unknown_mark(self.unknown_label, self.model_.classes)
        X = check_embeddings(self, X, reset=False)
        y = check_labels(y, type(self).__name__)
        check_same_length(X, y)
        n_support = self.model_.n_support
        shots = int(np.median(n_support[n_support > 0])) if n_shot is None else n_shot
        scored = score_episodes(
            self.model_.learner,
            X,
            y,
            n_way=len(n_support),
            n_shot=shots,
            n_query=n_query,
            n_episodes=n_episodes,
            seed=seed,
        )
        self.calibration_ = Calibration.of(scored, false_accept_rate)
        return self

    def _temperature(self) -> float:
        """Return what logits are divided by for probabilities."""
        calibration = getattr(self, "calibration_", None)
        return 1.0 if calibration is None else calibration.temperature

    def _threshold(self) -> float | None:
        """Return the score below which a query is unknown; None where none is."""
        reject = self.reject
        if reject is None:
            return None
        if isinstance(reject, Real) and not isinstance(reject, bool) and reject == reject:  # not NaN
            return float(reject)
        if not isinstance(reject, str) or reject != "auto":
            raise ValueError(f"reject is {reject!r}; expected None, 'auto' or a similarity")
        calibration = getattr(self, "calibration_", None)
        if calibration is None:
            raise ValueError("reject='auto' needs a threshold; call calibrate(X, y) with held-out classes first")
        return calibration.threshold
