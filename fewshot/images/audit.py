"""Find support images that may do harm: outliers, duplicates, and images nearer to another class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.images.support import Support
from fewshot.learners.base import Learner
from fewshot.learners.memory import sum_by_class
from fewshot.search.similarity import CHUNK_BYTES, KeySnapshot, prepare_keys, search_in_chunks, to_tensor
from fewshot.utils.isolation import isolated
from fewshot.utils.text import as_unicode
from fewshot.utils.twins import SAME_IMAGE

if TYPE_CHECKING:
    import pandas as pd

#: A similarity with a modified z-score below minus this is an outlier (Iglewicz and Hoaglin 1993).
OUTLIER = 3.5


@isolated(gradients=False)
def audit_support(learner: Learner, support: Support) -> pd.DataFrame:
    """Compare each support image with all others.

    Parameters
    ----------
    learner : Learner
        Its transform and metric are used; a class is represented by the mean of its other images.
    support : Support
        The images.

    Returns
    -------
    DataFrame
        One row per image, in the order of the support: ``id``, ``label``, ``similarity`` to the mean of its class's
        other images, ``other`` (the nearest other class) and ``other_similarity``, ``duplicate_of`` (the first equal
        image of any class, or empty), ``nearer_to_other``, ``outlier`` (its similarity is unusually far below the
        median of its class, relative to the median deviation over all classes) and ``suspect`` (any of the last
        three). NaN if there is no other image or class.
    """
    import pandas as pd

    classes, codes = np.unique(support.labels, return_inverse=True)
    x, labels = learner.transform(to_tensor(support.embeddings).double()), torch.from_numpy(codes)
    count = torch.bincount(labels, minlength=len(classes)).double()
    sums = sum_by_class(x, labels, len(classes))
    own = _own_similarity(x, labels, count, sums, learner.item_metric)
    other, other_similarity = _nearest_other(x, labels, sums / count.unsqueeze(-1), learner.item_metric)
    twin = _duplicates(to_tensor(support.embeddings).double())
    nearer = other_similarity > own

    def as_column(values: Any) -> pd.Series:
        # pandas can hold text that is not UTF-8, such as some file names, only as objects.
        not_unicode = any(value != as_unicode(value) for value in values)
        return pd.Series(values, dtype=object if not_unicode else None)

    outlier = _outliers(own, codes)
    frame = pd.DataFrame(
        {
            "id": as_column(support.ids),
            "label": as_column(support.labels),
            "similarity": own,
            "other": as_column([None if i < 0 else classes.tolist()[i] for i in other.tolist()]),
            "other_similarity": other_similarity,
            "duplicate_of": as_column(["" if i < 0 else support.ids[i] for i in twin.tolist()]),
            "nearer_to_other": nearer,
            "outlier": outlier,
        }
    )
    return frame.assign(suspect=nearer | outlier | (twin >= 0))


def _own_similarity(x: Tensor, labels: Tensor, count: Tensor, sums: Tensor, metric: str) -> NDArray[np.float64]:
    """Return the similarity of each row to the mean of the other rows of its class, or NaN."""
    n = count[labels].unsqueeze(-1) - 1
    mean = (sums[labels] - x) / n.clamp(min=1)
    similarity = torch.cat(
        [
            prepare_keys(m.unsqueeze(-2), metric).similarity(part.unsqueeze(-2)).flatten()
            for m, part in zip(mean.split(1024), x.split(1024), strict=True)
        ]
    )
    return torch.where(n.squeeze(-1) > 0, similarity, torch.nan).numpy()


def _nearest_other(
    x: Tensor, labels: Tensor, means: Tensor, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest other class of each row, and the similarity to its mean; -1 and NaN if there is none."""
    if len(means) < 2:
        return np.full(len(x), -1), np.full(len(x), np.nan)
    prepared, places, similarities = prepare_keys(means, metric), [], []
    size = max(1, CHUNK_BYTES // (8 * len(means)))
    for part, own in zip(x.split(size), labels.split(size), strict=True):
        similarity = prepared.similarity(part).scatter(-1, own.unsqueeze(-1), -torch.inf)
        best = similarity.max(-1)
        places.append(best.indices.numpy())
        similarities.append(best.values.numpy())
    return np.concatenate(places), np.concatenate(similarities)


def _duplicates(x: Tensor) -> NDArray[np.int64]:
    """Return the first earlier row that is the same image as each row, or -1."""
    snapshot, found = KeySnapshot(x, "sqeuclidean", "exact"), np.full(len(x), -1)
    near, apart = search_in_chunks(snapshot, x, min(8, len(x)))
    bound = (SAME_IMAGE * x.norm(dim=-1).numpy()) ** 2
    for i, (rows, similarity) in enumerate(zip(near, apart, strict=True)):
        same = rows[(-similarity <= bound[i]) & (rows < i)]
        found[i] = same.min() if len(same) else -1
    return found


def _outliers(own: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which similarities are far below the median of their class, relative to the spread over all classes."""
    import pandas as pd

    by_class = pd.Series(own).groupby(codes)
    deviation = own - by_class.transform("median")
    deviation = deviation.where(by_class.transform("size") > 2).to_numpy()  # two images are equally far from each other
    known = deviation[np.isfinite(deviation)]
    spread = np.median(np.abs(known)) if len(known) else 0.0
    # 0.6745 scales the median absolute deviation to the standard deviation of a normal distribution.
    with np.errstate(invalid="ignore"):
        return 0.6745 * deviation < -OUTLIER * max(spread, 1e-12)


def suspects(frame: pd.DataFrame) -> Sequence[tuple[int, str]]:
    """Return the row number of each suspect image of an audit, and the reasons in words."""
    found = []
    for place, row in enumerate(frame.to_dict("records")):
        reasons = []
        if row["duplicate_of"]:
            reasons.append(f"the same as {row['duplicate_of']}")
        if row["nearer_to_other"]:
            reasons.append(f"nearer to {row['other']}")
        if row["outlier"]:
            reasons.append("unlike the others of its class")
        if reasons:
            found.append((place, ", ".join(reasons)))
    return found
