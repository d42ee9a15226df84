"""Documentation shared by the estimators."""

#: Shared parameters and attributes, which replace ``{shared}`` in the docstrings of estimators.
SHARED = """\
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest keys (prototypes or support embeddings) are found; see `PrototypeIndex`. Through FAISS only the
        256 keys nearest to a query are read; a class without a key among them has logit minus infinity and probability
        0. ``auto`` is exact if classes have several keys.
    closed_set : bool, default=False
        Whether `partial_fit` refuses classes that the first call did not pass.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        What to do with rows that hold NaN or infinity. ``raise`` raises an error. ``skip`` leaves such support out,
        with a warning, and answers such queries with `unknown_label`. ``unknown`` raises for support and answers
        queries with `unknown_label`.
    reject : float or "auto", optional
        Similarity to the nearest key below which a query is answered with `unknown_label`; "auto" uses the threshold
        found by `calibrate`. By default every query is answered with a class.
    unknown_label : object, optional
        The answer to unknown queries; by default ``"unknown"`` for string labels and -1 for integers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    n_support_ : ndarray of shape (n_classes,)
        Number of support rows of each class; in a bounded memory, those that it still holds.
    n_features_in_ : int
        Embedding length.

    Notes
    -----
    Parameters set after fitting: ``index``, ``on_error``, ``reject`` and ``unknown_label`` take effect at once,
    ``closed_set`` at the next `partial_fit`, and all others at the next `fit`; until then `partial_fit` raises.
"""
