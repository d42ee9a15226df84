"""The documentation that estimators share."""

#: The parameters that estimators share, and what is learned: written once, for ``{shared}`` in their docstrings.
SHARED = """\
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest keys (prototypes, or support embeddings) are found; see `PrototypeIndex`. Through FAISS only the
        256 keys nearest to a query are read: a class with none among them has logit minus infinity and probability 0.
        ``auto`` is exact where classes have several keys.
    closed_set : bool, default=False
        Whether `partial_fit` refuses classes that the first call did not announce.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        What happens to a row with NaN or infinity. ``raise`` raises an error. ``skip`` leaves it out of the support,
        with a warning, and answers it with `unknown_label`. ``unknown`` raises for support and answers a query with
        `unknown_label`.
    reject : float or "auto", optional
        The similarity to the nearest key below which a query is answered `unknown_label`; "auto" takes the threshold
        that `calibrate` has found. By default every query is answered with a class.
    unknown_label : object, optional
        The answer for such queries; by default ``"unknown"`` for string labels and -1 for integers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    n_support_ : ndarray of shape (n_classes,)
        Number of support rows of each class; where the memory is bounded, of those that it still has.
    n_features_in_ : int
        Length of an embedding.

    Notes
    -----
    Parameters can be set later: ``index``, ``on_error``, ``reject`` and ``unknown_label`` act at once, ``closed_set``
    at the next `partial_fit` and all others at the next `fit`; until then `partial_fit` refuses them.
"""
