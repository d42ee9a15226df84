"""Which labels of the support are implausible, from answers to images as if they had not been learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.images.support import Support
from fewshot.learners.base import Learner
from fewshot.search.similarity import prepare_keys, to_tensor
from fewshot.utils.plain import plain
from fewshot.utils.text import as_unicode
from fewshot.utils.warning import lock_of_filters

if TYPE_CHECKING:
    import pandas as pd

#: A label is implausible if the other classes are, on the mean, exp(IMPLAUSIBLE) times as likely.
IMPLAUSIBLE = 0.5
#: What it costs, in log-likelihood, to sharpen the logits by a factor e.
COST_OF_SCALE = 4.0
#: About the most images that the scale is fitted to, and numbers looked at in one go.
MOST_FITTED, PART = 1000, 2**20
#: Where shares of right labels are counted, in the same unit as suspicion.
EDGES = np.linspace(-40, 40, 1601)
#: Keeps a logarithm finite where all shares underflow.
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Judged:
    """How suspect labels are.

    Attributes
    ----------
    suspicion : ndarray of shape (n,)
        Logarithm of how many times likelier the other classes are, on the mean, than the label.
    false_alarm : ndarray of shape (n,)
        Share of right labels, as estimated, that are at least as suspect.
    taken_for : ndarray of shape (n,)
        The likeliest other class.
    rate : float
        Share of right labels, as estimated, that are implausible.
    """

    suspicion: NDArray[np.float64]
    false_alarm: NDArray[np.float64]
    taken_for: NDArray[np.int64]
    rate: float

    @property
    def implausible(self) -> NDArray[np.bool_]:
        """Which labels (n,) are suspects."""
        return self.suspicion > IMPLAUSIBLE


def judge(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Judged:
    """Judge labels by the logits of left-out images.

    If a wrong label is any other class by chance, the odds that a label is wrong are proportional to
    ``(1 - p) / ((n_way - 1) p)``, with p the probability of the class that it names. Wrong labels among the support
    make all its probabilities too unsure. So the logits are sharpened to what suits the plausible labels best: to the
    likelihood of each, given that it is plausible. Those probabilities also tell how many right labels look wrong.

    Parameters
    ----------
    logits : ndarray of shape (n, n_way)
        Logits; minus infinity for absent classes.
    labels : ndarray of shape (n,)
        Classes, integers in 0..n_way-1.

    References
    ----------
    C. Northcutt, L. Jiang, I. Chuang (2021). Confident Learning. JAIR 70. arXiv:1911.00068; label errors from
    out-of-sample probabilities.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.95, 0.05]])
    >>> judge(logits, np.array([0, 0, 1, 1])).implausible.tolist()
    [False, False, False, True]
    """
    n, n_way = logits.shape
    if not n:
        return Judged(np.empty(0), np.empty(0), np.empty(0, np.int64), 0.0)
    some = slice(None, None, max(1, n // MOST_FITTED))
    n_other = max(1, int(np.isfinite(logits[0]).sum()) - 1)
    scale = _best_scale(logits[some], labels[some])
    plausible = _suspicion(_log_share(scale * logits[some]), n_other) <= IMPLAUSIBLE
    scale *= _best_scale(scale * logits[some], labels[some], plausible)
    log_share = _log_share(scale * logits[some])
    share, each = np.exp(log_share), np.clip(_suspicion(log_share, n_other), EDGES[0], EDGES[-1])
    shares = np.histogram(each, EDGES, weights=share)[0]
    at_least = np.append(shares[::-1].cumsum()[::-1], 0) / len(share)
    suspicion, taken_for = np.empty(n), np.empty(n, np.int64)
    step = max(1, PART // n_way)
    for rows in (slice(start, start + step) for start in range(0, n, step)):
        log_share, own = _log_share(scale * logits[rows]), labels[rows, None]
        suspicion[rows] = _suspicion(np.take_along_axis(log_share, own, 1)[:, 0], n_other)
        np.put_along_axis(log_share, own, -np.inf, 1)
        taken_for[rows] = log_share.argmax(1)
    place = np.searchsorted(EDGES, np.clip(suspicion, EDGES[0], EDGES[-1]), "right") - 1
    rate = float(share[each > IMPLAUSIBLE].sum() / len(share))
    return Judged(suspicion, np.clip(at_least[place], 0, 1), taken_for, rate)


def find_suspects(
    learner: Learner, support: Support, classes: NDArray[Any], rows: NDArray[np.int64], logits: NDArray[np.float64]
) -> pd.DataFrame:
    """Judge left-out rows of a support, and find the neighbour that says why each suspect is one.

    Returns
    -------
    DataFrame
        One row per item of the support: ``implausible``, ``suspicion`` and ``false_alarm`` as in `Judged`, NaN for rows
        that were not left out; and of implausible ones ``taken_for``, the likeliest other class, ``neighbour``, the
        name of the nearest item of that class, ``neighbour_row`` and ``neighbour_similarity``.
        ``attrs["false_alarms"]`` is the rate of `Judged`.
    """
    import pandas as pd

    labels, n = np.searchsorted(classes, support.labels), len(support)
    judged = judge(logits, labels[rows])
    implausible, taken_for = np.zeros(n, bool), np.full(n, -1)
    suspicion, false_alarm, similarity = np.full((3, n), np.nan)
    implausible[rows], suspicion[rows], false_alarm[rows] = judged.implausible, judged.suspicion, judged.false_alarm
    taken_for[rows] = np.where(judged.implausible, judged.taken_for, -1)
    x, neighbour = learner.transform(to_tensor(support.embeddings).double()), np.full(n, -1)
    for label in np.unique(taken_for[implausible]):
        asked, keys = np.flatnonzero(taken_for == label), np.flatnonzero(labels == label)
        nearest = prepare_keys(x[torch.from_numpy(keys)], learner.item_metric).similarity(x[asked]).max(-1)
        neighbour[asked], similarity[asked] = keys[nearest.indices.numpy()], nearest.values.numpy()
    names = classes.tolist()
    with lock_of_filters():  # pandas sets warning filters
        frame = pd.DataFrame(
            {
                "implausible": implausible,
                "suspicion": suspicion,
                "false_alarm": false_alarm,
                "taken_for": pd.Series([None if i < 0 else names[i] for i in taken_for.tolist()], dtype=object),
                "neighbour": text_column(["" if i < 0 else support.ids[i] for i in neighbour.tolist()]),
                "neighbour_row": neighbour,
                "neighbour_similarity": similarity,
            }
        )
    frame.attrs["false_alarms"] = judged.rate
    return frame


def suspect_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return suspects, each with the neighbour that says why, as rows of plain values; what is not known is None."""
    columns = {"image": "id", "class": "label", "taken for": "taken_for", "neighbour": "neighbour"}
    columns |= {"similarity": "neighbour_similarity", "suspicion": "suspicion", "false alarm": "false_alarm"}
    rows = frame.to_dict("records")
    return [{name: plain(row[column]) for name, column in columns.items()} for row in rows]


def text_column(values: Any) -> pd.Series:
    """Return a column; of objects if it holds text that is not UTF-8, such as some file names."""
    import pandas as pd

    return pd.Series(values, dtype=object if any(value != as_unicode(value) for value in values) else None)


def _log_share(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    top = logits - logits.max(1, keepdims=True)
    log_share: NDArray[np.float64] = top - np.log(np.exp(top).sum(1, keepdims=True))
    return log_share


def _suspicion(log_share: NDArray[np.float64], n_other: int) -> NDArray[np.float64]:
    others: NDArray[np.float64] = np.log1p(-np.minimum(np.exp(log_share), 1 - 1e-12))
    return others - np.log(n_other) - log_share


def _best_scale(
    logits: NDArray[np.float64], labels: NDArray[np.int64], plausible: NDArray[np.bool_] | None = None
) -> float:
    """Return the factor of the logits that makes the labels likeliest, each given that it is `plausible` (n, n_way)."""
    from scipy.optimize import minimize_scalar

    own = np.arange(len(labels)), labels
    kept = slice(None) if plausible is None else plausible[own]
    logits, labels = logits[kept], labels[kept]
    within = None if plausible is None else plausible[kept]

    def loss(log_scale: float) -> float:
        log_share = _log_share(np.exp(log_scale) * logits)
        likely = log_share[np.arange(len(labels)), labels].sum()
        if within is not None:
            likely -= np.log(np.where(within, np.exp(log_share), 0).sum(1) + TINY).sum()
        return float(COST_OF_SCALE * log_scale**2 - likely)

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded", options={"xatol": 0.01}).x))
