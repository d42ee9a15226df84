"""Labels that a change of a classifier must not bring in, found without looking at all that it knows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewshot.classifiers.fitted import FittedModel
from fewshot.utils.labels import as_labels, check_unknown, mark_unknown, other_forms, plain_label, warn_if_look_alike


class _Rules(Protocol):
    """The parameters of a classifier that say which labels it may have."""

    closed_set: bool
    on_error: str
    reject: float | str | None
    unknown_label: object


def check_classes(
    rules: _Rules,
    classes: NDArray[Any],
    before: FittedModel | None,
    holder: str = "y has",
    after: FittedModel | None = None,
) -> None:
    """Raise for new labels of a closed set and for the unknown label; warn of labels that look alike.

    Parameters
    ----------
    rules : classifier
        The parameters.
    classes : ndarray
        Labels of a change.
    before : FittedModel or None
        What was known before it.
    holder : str, default="y has"
        What has the labels, for the message.
    after : FittedModel, optional
        What is known after it; by default that and the new labels.

    Raises
    ------
    ValueError
        If `closed_set` refuses a label, or answers would be ambiguous between a class and "unknown".
    """
    if rules.closed_set and before is not None and after is None:
        _refuse_new(classes, before, holder)
    there = before if after is None else after
    twins = [] if there is None else there.known_among(other_forms(classes))
    warn_if_look_alike(np.union1d(classes, as_labels(twins, known=classes)) if twins else classes)
    if rules.on_error == "raise" and rules.reject is None:
        return
    if before is None:
        check_unknown(rules.unknown_label, classes)
    else:
        kept = telling_labels(before if after is None else after, rules.unknown_label)
        check_unknown(rules.unknown_label, np.union1d(kept, classes), telling_labels(before, rules.unknown_label))


def _refuse_new(classes: NDArray[Any], model: FittedModel, holder: str) -> None:
    known = set(model.known_among(classes.tolist()))
    if new := [label for label in classes.tolist() if label not in known]:
        raise ValueError(
            f"{holder} the new classes {new}, but closed_set=True; pass them in classes= of the first call, "
            "or set closed_set=False"
        )


def telling_labels(model: FittedModel, unknown_label: Any) -> NDArray[Any]:
    """Return some classes of a model: one at least, and those that equal what may be the unknown label."""
    some = model.some_classes
    marks = model.known_among([plain_label(unknown_label), "unknown", -1])
    return np.union1d(some, as_labels(marks, known=some)) if marks else some


def marked(labels: NDArray[Any], unknown: NDArray[np.bool_], unknown_label: Any, model: FittedModel) -> NDArray[Any]:
    """Return the labels (q,) that a model answers with, `unknown_label` in the place of `unknown` (q,) ones."""
    return (
        mark_unknown(labels, unknown, unknown_label, telling_labels(model, unknown_label)) if unknown.any() else labels
    )
