"""Find support images that may do harm: implausible labels, duplicates, and outliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.images.duplicates import near_duplicates
from fewshot.images.support import Support
from fewshot.images.suspects import find_suspects, text_column
from fewshot.learners.base import Learner
from fewshot.learners.memory import sum_by_class
from fewshot.search.similarity import CHUNK_BYTES, KeySnapshot, prepare_keys, search_in_chunks, to_tensor
from fewshot.utils.isolation import isolated
from fewshot.utils.twins import SAME_IMAGE
from fewshot.utils.warning import lock_of_filters

if TYPE_CHECKING:
    import pandas as pd

#: A similarity with a modified z-score below minus this is an outlier (Iglewicz and Hoaglin 1993).
OUTLIER = 3.5


@isolated(gradients=False)
def audit_support(learner: Learner, support: Support) -> pd.DataFrame:
    """Compare each support image with all others, and answer it as if it had not been learned.

    Parameters
    ----------
    learner : Learner
        Its transform, metric and answers are used.
    support : Support
        The images.

    Returns
    -------
    DataFrame
        One row per image, in the order of the support, with these columns; NaN if there is no other image or class.

        - ``id``, ``label``.
        - ``similarity`` to the mean of its class's other images, ``other`` (the nearest other class) and
          ``other_similarity``; ``nearer_to_other``; ``outlier``: its similarity is unusually far below the median of
          its class, relative to the median deviation over all classes.
        - ``duplicate_of``: the first equal image of any class, or empty; ``near_duplicate_of``: the most similar
          earlier one that is nearly the same, such as recompressed, resized or slightly shifted.
        - ``suspicion``: how implausible its label is, the logarithm of how many times likelier the other classes are on
          the mean; ``false_alarm``: the estimated share of right labels that are at least as suspect.
        - ``taken_for``, the likeliest other class if the label is implausible; the ``neighbour`` of that class that
          says why, its ``neighbour_row`` and ``neighbour_similarity``.
        - ``suspect``: an implausible label, or a duplicate.

        ``attrs["false_alarms"]`` is the estimated share of right labels that are implausible.
    """
    import pandas as pd

    classes, codes = np.unique(support.labels, return_inverse=True)
    raw = to_tensor(support.embeddings).double()
    x, labels = learner.transform(raw), torch.from_numpy(codes)
    count = torch.bincount(labels, minlength=len(classes)).double()
    sums = sum_by_class(x, labels, len(classes))
    own = _own_similarity(x, labels, count, sums, learner.item_metric)
    other, other_similarity = _nearest_other(x, labels, sums / count.unsqueeze(-1), learner.item_metric)
    left_out = learner.leave_out(raw, labels, len(classes), every=True)
    judged = find_suspects(learner, support, classes, left_out.rows.numpy(), left_out.logits.numpy())
    twin, near = _duplicates(raw), near_duplicates(support)
    with lock_of_filters():  # pandas sets warning filters
        frame = pd.DataFrame(
            {
                "id": text_column(support.ids),
                "label": text_column(support.labels),
                "similarity": own,
                "other": text_column([None if i < 0 else classes.tolist()[i] for i in other.tolist()]),
                "other_similarity": other_similarity,
                "duplicate_of": _names(support, twin),
                "near_duplicate_of": _names(support, np.where(twin >= 0, -1, near)),
                "nearer_to_other": other_similarity > own,
                "outlier": _outliers(own, codes),
            }
        )
        suspect = judged.pop("implausible") | (twin >= 0)
        frame = frame.join(judged).assign(suspect=suspect)
        frame.attrs |= judged.attrs
    return frame


def _names(support: Support, rows: NDArray[np.int64]) -> pd.Series:
    return text_column(["" if i < 0 else support.ids[i] for i in rows.tolist()])


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
    """Return the first earlier row that is the same image as each row, or -1; see `earlier_twins`."""
    snapshot, found = KeySnapshot(x, "sqeuclidean", "exact"), np.full(len(x), -1)
    near, apart = search_in_chunks(snapshot, x, min(8, len(x)))
    bound = (SAME_IMAGE * x.norm(dim=-1).numpy()) ** 2
    for i, (rows, similarity) in enumerate(zip(near, apart, strict=True)):
        same = rows[(-similarity <= bound[i]) & (rows < i)]
        found[i] = same.min() if len(same) else -1
    found[~x.any(1).numpy()] = -1
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
    """Return the row number of each suspect image of an audit, the most suspect first, and the reasons in words."""
    found = []
    rows = frame[frame["suspect"]].sort_values("suspicion", ascending=False, kind="stable")
    for place, row in zip(rows.index.tolist(), rows.to_dict("records"), strict=True):
        reasons = []
        if row["duplicate_of"]:
            reasons.append(f"the same as {row['duplicate_of']}")
        if row["neighbour_row"] >= 0:
            reasons.append(f"more like {row['taken_for']}, such as {row['neighbour']}")
            if row["outlier"]:
                reasons.append("unlike the others of its class")
        found.append((place, ", ".join(reasons)))
    return found
