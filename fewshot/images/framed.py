"""Answers as a data frame, a row for each item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.frames import columns_of, image_column, is_frame, known_labels
from fewshot.data.images import LabeledImages
from fewshot.data.opening import describe
from fewshot.embedding.embedder import Embedder
from fewshot.images.learned import Learned
from fewshot.images.sets import Promise
from fewshot.utils.text import as_unicode
from fewshot.utils.warning import keeps_filters

if TYPE_CHECKING:
    import pandas as pd


@keeps_filters
def answer_frame(now: Learned, X: Any, top: int, promise: Promise | None) -> pd.DataFrame:
    """Answer items; see `FewShotModel.predict_frame`."""
    import pandas as pd

    given = X
    if is_frame(X) and len(columns_of(X)) > 1:
        if not isinstance(now.embedder, Embedder):
            raise TypeError("X is a data frame; pass its column of items, e.g. frame['text']")
        given = X[image_column(X)]
    items = now.embedder.as_items(given)
    embedded, classifier = now.embed(items), now.classifier
    x, errors = embedded.embeddings, {error.index: error.reason for error in embedded.errors}
    labels, k = classifier.predict(x), min(top, len(classifier.classes_))
    classes, shares = classifier.predict_top(x, k)
    reasons = [errors.get(i) for i in range(len(items))]
    known = set(classifier.classes_.tolist())
    if errors:  # an item that cannot be read is nearest to no class
        classes = classes.astype(object)
        classes[[i for i, reason in enumerate(reasons) if reason is not None]] = None
    columns: dict[str, Any] = {
        "item": _column([as_unicode(describe(one)) for one in items]),
        "label": _column(labels),
        "likeliest": _column(classes[:, 0]),
        "probability": shares[:, 0],
        "unknown": [
            reason is None and label not in known for label, reason in zip(labels.tolist(), reasons, strict=True)
        ],
    }
    if (true := _true(X)) is not None:
        columns["true"] = _column(true)
    if top > 1:
        for i in range(k):
            columns |= {f"class_{i + 1}": _column(classes[:, i]), f"probability_{i + 1}": shares[:, i]}
    if promise is not None:
        columns["set"] = _column(promise.sets(now, x))
    columns["error"] = _column(reasons)
    return _frame(columns, X.index if isinstance(X, (pd.DataFrame, pd.Series)) else pd.RangeIndex(len(items)))


def _frame(columns: dict[str, Any], index: pd.Index) -> pd.DataFrame:
    """Return columns as a frame, objects as such: pandas would make text of them that cannot hold every text."""
    import pandas as pd

    series = {
        name: pd.Series(values, index, dtype=object if getattr(values, "dtype", np.dtype("f8")).kind == "O" else None)
        for name, values in columns.items()
    }
    return pd.DataFrame(series, index)


def _true(X: Any) -> Any:
    """Return the labels of the queries, if they have some."""
    return X.labels if isinstance(X, LabeledImages) else known_labels(X) if is_frame(X) else None


def _column(values: Any) -> NDArray[Any]:
    """Return numbers unmodified, and anything else as an array of objects."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values
    found = np.empty(len(values), object)
    for i, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        found[i] = value
    return found
