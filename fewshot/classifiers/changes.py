"""What makes a model of many classes of an earlier one, found and applied at the cost of what has changed."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifiers.live import LiveModel
from fewshot.classifiers.rows import RowChange
from fewshot.classifiers.summary import Summary
from fewshot.learners.memory import Statistics
from fewshot.utils.isolation import isolated


def classes_since(now: LiveModel, old: LiveModel) -> tuple[list[Any], Summary] | None:
    """Return the labels that are gone since `old`, and the classes that are new or changed.

    None if `old` is no earlier version, or what has changed cannot be told from it.
    """
    names = ("labels", "n_support", "count", "sums")
    blocks = [(getattr(now.known, name), getattr(old.known, name)) for name in names]
    if any(len(a) < len(b) or a.size != b.size for a, b in blocks) or blocks[-1][0].is_other(blocks[-1][1]):
        return None
    numbers = np.unique(np.concatenate([a.differing(b) for a, b in blocks]))
    was, here = old.known.present(numbers[numbers < len(old.known.sums)]), now.known.present(numbers)
    gone, labels = sorted(was.keys() - here.keys()), sorted(here)
    if old.n_classes - len(was) + len(here) != now.n_classes:
        return None  # a class without support has gone
    return gone, now.known.part(np.array([here[label] for label in labels], np.int64))


def after_classes(model: LiveModel, gone: list[Any], part: Summary) -> LiveModel:
    """Return the model without the classes `gone`, in which those of `part` are as it says, of class sums alone."""
    known = model.known.without(_numbers(model, gone)) if gone else model.known
    return model.version(known=known.having(part)[0] if len(part.classes) else known, _moments=None)


def _numbers(model: LiveModel, labels: list[Any]) -> NDArray[np.int64]:
    """Return the numbers of classes; raise ValueError if there is no such class."""
    numbers = model.known.numbers(np.array(labels, object))
    for place in np.flatnonzero(numbers < 0)[:1]:
        raise ValueError(f"there is no class {labels[place]!r:.60}")
    return numbers


def rows_since(now: LiveModel, old: LiveModel) -> RowChange | None:
    """Return what makes the rows of `now` of those of `old`, both of which keep rows, of weight 1.

    None if `old` is no earlier version, or what has changed cannot be told from it.
    """
    found, labels, before = now.support.since(old.support), now.known.labels, old.known.labels
    if found is None or len(labels) < len(before) or labels.size != before.size:
        return None
    gone, added = found
    numbers = labels.differing(before)
    was, here = (_present(one, numbers[numbers < len(before)]) for one in (old, now))
    rows = now.support.of_classes(np.array([number for number in was if number in here], np.int64))
    renamed = np.unique(now.support.number.rows(rows[rows < len(old.support)])).tolist()  # that have earlier rows
    of, codes = np.unique(now.known.names(now.support.number.rows(added)), return_inverse=True)
    x = now.support.x.rows(added)
    return RowChange(gone, [was[i] for i in renamed], [here[i] for i in renamed], x, codes.reshape(-1), of)


def _present(model: LiveModel, numbers: NDArray[np.int64]) -> dict[int, object]:
    """Return the labels of those of these numbers that are of present classes."""
    return {number: label for label, number in model.known.present(numbers).items()}


@isolated(gradients=False)
def after_rows(model: LiveModel, change: RowChange) -> LiveModel:
    """Return the model of these rows after a change.

    Raises
    ------
    ValueError
        If the model lacks a class of the change, or two classes would share a label.
    """
    if len(change.gone):
        model = model.losing(model.support.present()[change.gone])
    for label in change.new:
        if (model.known_among([label]) and label not in change.old) or change.new.count(label) > 1:
            raise ValueError(f"two classes would be {label!r:.60}")
    if change.old:
        model = model.version(known=model.known.renamed(_numbers(model, change.old), change.new))
    if not len(change.of):
        return model
    x, labels = torch.from_numpy(change.x), torch.from_numpy(change.labels)
    learned = Statistics.of_support(x, labels, len(change.of), x.new_ones(len(x)))
    return cast(LiveModel, model.grown(Summary(change.of, learned.count.long().numpy(), learned)))
