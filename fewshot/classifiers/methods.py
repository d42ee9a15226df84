"""Scikit-learn estimators of single methods, each made from its learner.

`FewShotClassifier` is the estimator of any other learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fewshot.classifiers.base import BaseFewShotClassifier
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.k_nearest import KNearestLearner
from fewshot.learners.key_value_cache import KeyValueCacheLearner, Prior
from fewshot.learners.lifelong import LifelongLearner
from fewshot.learners.mahalanobis import MahalanobisLearner
from fewshot.learners.matching import MatchingLearner, Replacement
from fewshot.learners.multi_prototypical import MultiPrototypicalLearner
from fewshot.learners.prototypical import PrototypicalLearner
from fewshot.learners.ridge import RidgeLearner
from fewshot.learners.simpleshot import Normalization, SimpleShotLearner
from fewshot.search.similarity import Metric
from fewshot.search.snapshot import Index
from fewshot.utils.values import OnError


@dataclass(eq=False, repr=False, kw_only=True)
class IndexedClassifier(BaseFewShotClassifier):
    """Base of classifiers whose nearest keys decide the answer, so that an index can find them."""

    index: Index = "auto"
    on_error: OnError = "raise"


@dataclass(eq=False, repr=False)
class DiscriminantClassifier(IndexedClassifier):
    """A scikit-learn classifier by regularised discriminant analysis in closed form, the default of `FewShotModel`.

    Parameters
    ----------
    power : float, default=0.5
        Exponent of the absolute values; 1 suits embeddings of both signs. See `DiscriminantLearner`.
    regularization : float, optional
        Strength; by default leave-one-out chooses it.
    temperature : float, default=0.05
        Logits are similarity / temperature.
    {shared}

    References
    ----------
    J. Friedman (1989). Regularized Discriminant Analysis. JASA 84. Y. Hu et al. (2021). arXiv:2006.03806.

    Examples
    --------
    >>> from fewshot import DiscriminantClassifier
    >>> model = DiscriminantClassifier().fit([[9.0, 1.0, 0.0], [1.0, 9.0, 0.0], [0.0, 1.0, 9.0]], ["cat", "dog", "owl"])
    >>> model.predict([[1.0, 2.0, 7.0]])
    array(['owl'], dtype='<U3')
    """

    method = DiscriminantLearner
    power: float = 0.5
    regularization: float | None = None
    temperature: float = 0.05


@dataclass(eq=False, repr=False)
class PrototypicalClassifier(IndexedClassifier):
    """A scikit-learn classifier by Prototypical Networks.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; ``sqeuclidean`` is minus the squared Euclidean distance.
    temperature : float, optional
        Logits are similarity / temperature. By default a fraction of the spread of the prototypes, so that
        probabilities are honest whatever the scale of the embeddings; 1 is that of the paper, for embeddings that were
        meta-trained with it.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings, scaled to unit length under the cosine;
        distances stay the same.
    {shared}

    References
    ----------
    J. Snell, K. Swersky, R. Zemel (2017). Prototypical Networks for Few-shot Learning. NeurIPS. arXiv:1703.05175.

    Examples
    --------
    >>> from fewshot import PrototypicalClassifier
    >>> model = PrototypicalClassifier().fit([[0.0, 0.0], [1.0, 1.0]], ["cat", "dog"])
    >>> model.partial_fit([[5.0, 5.0]], ["owl"]).predict([[4.0, 5.0]])
    array(['owl'], dtype='<U3')
    """

    method = PrototypicalLearner
    metric: Metric = "sqeuclidean"
    temperature: float | None = None
    centered: bool = field(default=False, kw_only=True)


@dataclass(eq=False, repr=False)
class SimpleShotClassifier(IndexedClassifier):
    """A scikit-learn classifier by SimpleShot.

    Parameters
    ----------
    normalization : {"L2N", "CL2N", "UN"}, default="L2N"
        Normalisation of each embedding; see `SimpleShotLearner`.
    center : array-like of d floats, optional
        For ``CL2N``, the mean embedding of the base classes.
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; ``sqeuclidean`` is minus the squared Euclidean distance.
    temperature : float or None, default=0.1
        Logits are similarity / temperature. None suits it to the spread of the prototypes, as ``UN`` needs.
    {shared}

    References
    ----------
    Y. Wang et al. (2019). SimpleShot. arXiv:1911.04623.

    Examples
    --------
    >>> from fewshot import SimpleShotClassifier
    >>> model = SimpleShotClassifier("CL2N", center=[1.0, 1.0]).fit([[3.0, 1.0], [1.0, 2.0]], ["right", "up"])
    >>> model.predict([[1.0, 1.1]])
    array(['up'], dtype='<U5')
    """

    method = SimpleShotLearner
    normalization: Normalization = "L2N"
    center: Sequence[float] | None = None
    metric: Metric = "sqeuclidean"
    temperature: float | None = 0.1


@dataclass(eq=False, repr=False)
class MultiPrototypicalClassifier(IndexedClassifier):
    """A scikit-learn classifier by several prototypes per class.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; ``sqeuclidean`` is minus the squared Euclidean distance.
    temperature : float, optional
        Logits are similarity / temperature. By default a fraction of the spread of the class means, so that
        probabilities are honest whatever the scale of the embeddings.
    n_prototypes : int, default=3
        Most prototypes per class, the means of its clusters; see `MultiPrototypicalLearner`.
    {shared}

    Examples
    --------
    >>> from fewshot import MultiPrototypicalClassifier
    >>> model = MultiPrototypicalClassifier(n_prototypes=2).fit([[0.0], [10.0], [5.0]], ["ends", "ends", "middle"])
    >>> model.predict([[1.0], [9.0], [6.0]])
    array(['ends', 'ends', 'middle'], dtype='<U6')
    """

    method = MultiPrototypicalLearner
    metric: Metric = "sqeuclidean"
    temperature: float | None = None
    n_prototypes: int = field(default=3, kw_only=True)


@dataclass(eq=False, repr=False)
class MatchingClassifier(IndexedClassifier):
    """A scikit-learn classifier by Matching Networks.

    Parameters
    ----------
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        Similarity; ``sqeuclidean`` is minus the squared Euclidean distance.
    temperature : float or None, default=0.1
        Logits are similarity / temperature. None suits it to the spread of the class means.
    max_support : int, optional
        Support rows retained per class; all by default.
    replacement : {"reservoir", "oldest"}, default="reservoir"
        Which rows a full class drops; see `MatchingLearner`.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings of unit length.
    balanced : bool, default=False
        Whether each class has the same total weight, however many rows it has.
    {shared}

    References
    ----------
    O. Vinyals et al. (2016). Matching Networks for One Shot Learning. NeurIPS. arXiv:1606.04080.

    Examples
    --------
    >>> from fewshot import MatchingClassifier
    >>> model = MatchingClassifier().fit([[1.0, 0.0], [0.0, 1.0]], [True, False])
    >>> model.predict([[2.0, 0.1]])
    array([ True])
    """

    method = MatchingLearner
    metric: Metric = "cosine"
    temperature: float | None = 0.1
    max_support: int | None = field(default=None, kw_only=True)
    replacement: Replacement = field(default="reservoir", kw_only=True)
    centered: bool = field(default=False, kw_only=True)
    balanced: bool = field(default=False, kw_only=True)


@dataclass(eq=False, repr=False)
class KNearestClassifier(IndexedClassifier):
    """A scikit-learn classifier by votes of the k nearest support embeddings.

    Unlike `sklearn.neighbors.KNeighborsClassifier`, it learns and forgets classes incrementally, returns similarities
    and can reject unknown queries.

    Parameters
    ----------
    n_neighbors : int, default=5
        Number of voters; see `KNearestLearner`.
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        Similarity; ``sqeuclidean`` is minus the squared Euclidean distance.
    temperature : float or None, default=0.1
        The lower it is, the more the nearest votes dominate. None suits it to the spread of the class means.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings of unit length.
    {shared}

    Examples
    --------
    >>> from fewshot import KNearestClassifier
    >>> model = KNearestClassifier(1).fit([[1.0, 0.0], [0.0, 1.0]], ["right", "up"])
    >>> model.predict([[0.2, 3.0]])
    array(['up'], dtype='<U5')
    """

    method = KNearestLearner
    n_neighbors: int = 5
    metric: Metric = "cosine"
    temperature: float | None = 0.1
    centered: bool = field(default=False, kw_only=True)


@dataclass(eq=False, repr=False)
class KeyValueCacheClassifier(IndexedClassifier):
    """A scikit-learn classifier by a key-value cache, the training-free Tip-Adapter.

    Parameters
    ----------
    sharpness : float, default=5.5
        How fast activations fall with the cosine; see `KeyValueCacheLearner`.
    temperature : float, default=0.1
        Logits are the sum of activations / (n temperature).
    prior : {"uniform", "support"}, default="uniform"
        Prior over classes: uniform, or in proportion to their support.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings of unit length.
    balanced : bool, default=False
        Whether each class has the same total weight, however many rows it has.
    {shared}

    References
    ----------
    R. Zhang et al. (2022). Tip-Adapter. arXiv:2207.09519.

    Examples
    --------
    >>> from fewshot import KeyValueCacheClassifier
    >>> model = KeyValueCacheClassifier().fit([[1.0, 0.0], [0.0, 1.0]], ["right", "up"])
    >>> model.predict([[0.2, 3.0]])
    array(['up'], dtype='<U5')
    """

    method = KeyValueCacheLearner
    sharpness: float = 5.5
    temperature: float = 0.1
    prior: Prior = "uniform"
    centered: bool = field(default=False, kw_only=True)
    balanced: bool = field(default=False, kw_only=True)


@dataclass(eq=False, repr=False)
class RidgeFewShotClassifier(IndexedClassifier):
    """A scikit-learn classifier by ridge regression in closed form, which also learns incrementally.

    Parameters
    ----------
    regularization : float, default=1.0
        Number added to the diagonal; see `RidgeLearner`.
    temperature : float, default=0.1
        Logits are regression outputs / temperature.
    {shared}

    References
    ----------
    L. Bertinetto et al. (2019). Meta-learning with differentiable closed-form solvers. arXiv:1805.08136.

    Examples
    --------
    >>> from fewshot import RidgeFewShotClassifier
    >>> model = RidgeFewShotClassifier().fit([[1.0, 0.0], [0.0, 1.0]], ["right", "up"])
    >>> model.predict([[0.2, 3.0]])
    array(['up'], dtype='<U5')
    """

    method = RidgeLearner
    regularization: float = 1.0
    temperature: float = 0.1


@dataclass(eq=False, repr=False)
class MahalanobisClassifier(BaseFewShotClassifier):
    """A scikit-learn classifier by the Mahalanobis distance to each class.

    Parameters
    ----------
    regularization : float, default=1.0
        Added to each variance; see `MahalanobisLearner`.
    temperature : float, default=1.0
        Logits are minus half the squared distances / temperature.
    closed_set, on_error, reject, unknown_label
        As for `PrototypicalClassifier`. There is no ``index``, because the learner has no nearest keys.

    References
    ----------
    P. Bateni et al. (2020). Improved Few-Shot Visual Classification. arXiv:1912.03432.

    Examples
    --------
    >>> from fewshot import MahalanobisClassifier
    >>> X, y = [[-9.0, 0.0], [9.0, 0.0], [7.0, 4.0], [7.0, 4.2]], ["long", "long", "round", "round"]
    >>> MahalanobisClassifier(regularization=0.1).fit(X, y).predict([[8.0, 0.5]])
    array(['long'], dtype='<U5')
    """

    method = MahalanobisLearner
    regularization: float = 1.0
    temperature: float = 1.0
    on_error: OnError = field(default="raise", kw_only=True)


@dataclass(eq=False, repr=False)
class LifelongClassifier(IndexedClassifier):
    """A scikit-learn classifier by a lifelong memory of fixed size.

    Parameters
    ----------
    size : int, default=1000
        Most keys, over all classes; see `LifelongLearner`.
    temperature : float, default=0.025
        Logits are similarity / temperature.
    {shared}

    References
    ----------
    L. Kaiser et al. (2017). Learning to Remember Rare Events. arXiv:1703.03129.

    Examples
    --------
    >>> from fewshot import LifelongClassifier
    >>> model = LifelongClassifier(size=2).fit([[1.0, 0.0], [0.0, 1.0]], ["right", "up"])
    >>> model.partial_fit([[-1.0, 0.0]], ["left"]).predict([[1.0, 0.2], [-2.0, 0.0]])
    array(['up', 'left'], dtype='<U5')
    """

    method = LifelongLearner
    size: int = 1000
    temperature: float = 0.025
