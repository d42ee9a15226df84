"""How good a model is on labelled items that it has not learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.classifiers.calibration import expected_calibration_error, reliability_bins
from fewshot.data.opening import describe
from fewshot.errors import brief
from fewshot.images.answer import Answer, answer_all, answer_html
from fewshot.images.learned import Learned, labelled
from fewshot.images.support import Support
from fewshot.utils import notebook
from fewshot.utils.intervals import share_interval
from fewshot.utils.plain import confusion_rows, plain_dict
from fewshot.utils.text import counted, listed, printable
from fewshot.utils.warning import keeps_filters, warn

if TYPE_CHECKING:
    import pandas as pd

#: The most mistakes that a notebook shows, and classes at the prompt.
MISTAKES, WORST = 6, 3


@dataclass(frozen=True, eq=False)
class TestResult:
    """The answers to labelled items; see `FewShotModel.test`.

    Attributes
    ----------
    classes : ndarray
        The classes of the model.
    truth, predicted : ndarray of shape (n,)
        Class and answer of each item that could be read.
    probability : ndarray of shape (n,)
        Probability of the likeliest class.
    mistakes, unsure : list of (label, Answer)
        Wrong answers, the surest first, and right ones, the least sure first, with the classes of their items; at most
        as many as were asked for.
    n_unreadable : int
        Items that could not be read; they are left out.
    n_learned : int
        Items that are in the kept support: the accuracy on new ones is lower.
    """

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    classes: NDArray[Any]
    truth: NDArray[Any]
    predicted: NDArray[Any]
    probability: NDArray[np.floating]
    n_unreadable: int
    mistakes: list[tuple[Any, Answer]] = field(default_factory=list, repr=False)
    unsure: list[tuple[Any, Answer]] = field(default_factory=list, repr=False)
    n_learned: int = 0

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which items (n,) are of a class that the model knows."""
        return np.isin(self.truth, self.classes)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which answers (n,) are right; to an item of an unknown class, that is any label that is not a class."""
        same: NDArray[np.bool_] = self.predicted == self.truth
        return np.where(self.is_known, same, ~np.isin(self.predicted, self.classes))

    @property
    def n(self) -> int:
        """Number of items of known classes."""
        return int(self.is_known.sum())

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Which items (n,) of known classes were answered with a class, so that the answer has a probability."""
        return self.is_known & np.isin(self.predicted, self.classes)

    @property
    def accuracy(self) -> float:
        """Share of right answers to items of known classes, refused ones among the wrong; NaN if there are none."""
        return _share(self.right[self.is_known])

    @property
    def refused(self) -> float:
        """Share of items of known classes that were answered unknown; NaN if there are none."""
        return _share(~self.is_answered[self.is_known])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson 1927), for other items of the same kind; NaN if it is."""
        return share_interval(self.accuracy, self.n) if self.n else (math.nan, math.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean over classes of the share of right answers."""
        return float(self.per_class["accuracy"].mean())

    @property
    def answered_accuracy(self) -> float:
        """Share of right answers to items of known classes that it did not refuse; NaN if there are none."""
        return _share(self.right[self.is_answered])

    @property
    def mean_probability(self) -> float:
        """How sure the model was on the mean, of items of known classes that it did not refuse; NaN if there are none.

        Equal to `answered_accuracy` if it is neither too sure nor too unsure.
        """
        return _share(self.probability[self.is_answered])

    @property
    def calibration_error(self) -> float:
        """Mean difference between accuracy and probability, in 15 bins of probability, of the same items."""
        sure = self.is_answered
        if not sure.any():
            return math.nan
        return expected_calibration_error(reliability_bins(self.probability[sure], self.right[sure]))

    @property
    def unknown_accepted(self) -> float | None:
        """Share of items of unknown classes that were answered with a class; None if there are none."""
        wrong = ~self.right[~self.is_known]
        return float(wrong.mean()) if len(wrong) else None

    @property
    def unknown_images(self) -> int:
        """Number of items of classes that the model does not know."""
        return int((~self.is_known).sum())

    def about_unknown(self, what: str = "item") -> str:
        """Return in words what became of items of classes that the model does not know, and these; empty if none."""
        if self.unknown_accepted is None:
            return ""
        items, names = counted(self.unknown_images, what), sorted(set(self.truth[~self.is_known].tolist()), key=str)
        share = f"{100 * self.unknown_accepted:.0f} %"
        return f"{share} of {items} of unknown classes ({listed(names, 3)}) taken for a class"

    @property
    @keeps_filters
    def confusion(self) -> pd.DataFrame:
        """Number of items by class (rows) and answer (columns), in the order of the classes; other labels last."""
        import pandas as pd

        truth, answers = self.truth.tolist(), self.predicted.tolist()
        labels = list(dict.fromkeys([*self.classes.tolist(), *sorted(set(truth), key=str), *answers]))
        place = {label: i for i, label in enumerate(labels)}
        counts = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(counts, ([place[label] for label in truth], [place[label] for label in answers]), 1)
        # As objects: pandas cannot hold every text otherwise, such as file names that are not UTF-8.
        index, columns = (pd.Index(labels, dtype=object, name=name) for name in ("class", "answer"))
        return pd.DataFrame(counts, index, columns)

    @property
    @keeps_filters
    def per_class(self) -> pd.DataFrame:
        """One row per class that was tested.

        Its columns are ``images``, ``right``, ``accuracy``, ``answers`` (how often the class was the answer),
        ``precision`` (share of those that were right; NaN if none) and ``taken_for`` (the most frequent wrong answer,
        or None).
        """
        import pandas as pd

        table = self.confusion
        counts, labels = table.to_numpy(), table.index.tolist()
        images, answers, right = counts.sum(1), counts.sum(0), np.diag(counts)
        wrong = counts - np.diag(right)
        frame = pd.DataFrame(
            {
                "images": images,
                "right": right,
                "accuracy": right / np.where(images > 0, images, 1),
                "answers": answers,
                "precision": np.where(answers > 0, right / np.where(answers > 0, answers, 1), np.nan),
                "taken_for": pd.Series([labels[row.argmax()] if row.any() else None for row in wrong], dtype=object),
            }
        ).set_axis(table.index)
        return frame[(images > 0) & (np.arange(len(labels)) < len(self.classes))]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, which JSON can hold; those of ``fewshot test --json``.

        The accuracies, shares and counts; ``interval`` as a list; ``sure``, the `mean_probability`; ``classes``, a row
        of each class that was tested; and ``confusion``, how many images of a class got an answer, without what did not
        occur. What cannot be told is None. Mistakes are not among them: each answer has a ``to_dict`` of its own.

        Examples
        --------
        >>> truth, answers = np.array(["ant", "bee"]), np.array(["ant", "ant"])
        >>> found = TestResult(np.array(["ant", "bee"]), truth, answers, np.array([0.9, 0.6]), n_unreadable=0).to_dict()
        >>> found["images"], found["accuracy"], found["classes"][1]["taken for"]
        (2, 0.5, 'ant')
        """
        frame, table = self.per_class, self.confusion
        classes = [
            {"class": label, "images": row.images, "right": row.right, "accuracy": row.accuracy,
             "taken for": row.taken_for}
            for label, row in zip(frame.index.tolist(), frame.itertuples(index=False), strict=True)
        ]  # fmt: skip
        return plain_dict(
            images=self.n,
            accuracy=self.accuracy,
            interval=self.interval,
            sure=self.mean_probability,
            balanced_accuracy=self.balanced_accuracy,
            calibration_error=self.calibration_error,
            refused=self.refused,
            unknown_accepted=self.unknown_accepted,
            unknown_images=self.unknown_images,
            learned=self.n_learned,
            unreadable=self.n_unreadable,
            classes=classes,
            confusion=confusion_rows(table.index.tolist(), table.to_numpy()),
        )

    def __str__(self) -> str:
        return "; ".join(filter(None, (self._about_known(), self.about_unknown())))

    def _about_known(self) -> str:
        if not self.n:
            return ""
        right, low, high = (100 * share for share in (self.accuracy, *self.interval))
        learned = f"; learned before: {self.n_learned}, so expect less of new ones" if self.n_learned else ""
        unknown = f", {100 * self.refused:.0f} % answered unknown" if self.refused else ""
        if self.refused and self.is_answered.any():
            unknown += f"; of the others {100 * self.answered_accuracy:.1f} % right"
        return f"{right:.1f} % of {counted(self.n, 'item')} right ({low:.0f} to {high:.0f} %){unknown}{learned}"

    def __repr__(self) -> str:
        lines = [f"TestResult: {self._about_known() or self.about_unknown()}"]
        if self.is_answered.any():
            of = " of those that it answered" if self.refused else ""
            lines.append(f"{100 * self.mean_probability:.0f} % sure on the mean{of}")
        lines += [apart] if self.n and (apart := self.about_unknown()) else []
        rows = self.per_class["accuracy"].sort_values(kind="stable").head(WORST) if self.n else {}
        least = [f"{printable(brief(label, 40))}: {100 * share:.0f} %" for label, share in rows.items() if share < 1]
        lines += [f"least right: {', '.join(least)}"] if least else []
        return "\n  ".join([*lines, "more in .per_class, .confusion, .mistakes, .truth, .predicted and .probability"])

    def _repr_html_(self) -> str:
        facts = []
        if self.n:
            facts.append((f"{100 * self.accuracy:.1f} %", "right"))
            facts.append((f"{100 * self.refused:.0f} %", "answered unknown"))
        if self.is_answered.any():
            of = " of the others" if self.refused else ""
            facts += [(f"{100 * self.answered_accuracy:.1f} %", "of the others right")] if self.refused else []
            facts.append((f"{100 * self.mean_probability:.0f} %", f"how sure it was{of}, on the mean"))
        if self.unknown_accepted is not None:
            facts.append((f"{100 * self.unknown_accepted:.0f} %", "of unknown classes taken for a class"))
        rows = self.per_class.sort_values("accuracy", kind="stable") if self.n else None
        return notebook.fragment(
            "TestResult", str(self), notebook.numbers(facts), per_class_html(rows), mistakes_html(self)
        )


def per_class_html(rows: pd.DataFrame | None) -> str:
    """Return a table of the rows of `TestResult.per_class`, for a notebook."""
    if rows is None:
        return ""
    head = ("class", "images", "right, %", "taken for")
    cells = zip(rows.index, rows["images"], rows["accuracy"], rows["taken_for"], strict=True)
    return notebook.table(head, [(a, b, f"{100 * c:.0f}", "" if d is None else d) for a, b, c, d in cells])


def mistakes_html(found: TestResult) -> str:
    """Return the mistakes of which the model was surest, for a notebook."""
    if not found.mistakes:
        return ""
    shown = [answer_html(answer, truth) for truth, answer in found.mistakes[:MISTAKES]]
    of = f"the surest {len(shown)} of {int((~found.right).sum())} mistakes"
    return f'<div style="opacity:.75;margin:6px 0">{notebook.text(of)}</div>{"".join(shown)}'


def _share(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def test_model(now: Learned, X: Any, y: Any, n_shown: int) -> TestResult:
    """Answer labelled items, and keep the most telling answers with their reasons; see `FewShotModel.test`."""
    classifier = now.classifier
    items, truth = labelled(X, y, now.embedder.as_items, classifier.model_)
    if classifier.reject is None and not np.isin(truth, classifier.classes_).any():
        tested, known = listed(np.unique(truth).tolist()), listed(classifier.classes_.tolist())
        raise ValueError(f"the model knows none of the classes {tested}; expected some of {known}")
    embedded = now.embed(items)
    unreadable = {error.index for error in embedded.errors}
    rows = np.array([i for i in range(len(items)) if i not in unreadable], np.int64)
    if not len(rows):
        raise embedded.errors[0]
    embedded.warn()
    x, truth = embedded.embeddings[rows], truth[rows]
    if classifier.reject is None and not np.isin(truth, classifier.classes_).any():
        raise ValueError("no item of a class that the model knows could be read; give readable ones")
    predicted, proba = classifier.predict_with_proba(x)
    probability = proba.max(1)
    n_learned = _warn_of_learned(now.support, x, [items[row] for row in rows.tolist()])
    found = TestResult(classifier.classes_, truth, predicted, probability, len(unreadable), n_learned=n_learned)
    surest = np.argsort(-probability, kind="stable")
    mistakes, unsure = surest[~found.right[surest]][:n_shown], surest[found.right[surest]][::-1][:n_shown]

    def explained(places: NDArray[np.int64]) -> list[tuple[Any, Answer]]:
        answers = answer_all(now, [items[row] for row in rows[places].tolist()], 3, 3)
        return list(zip(truth[places].tolist(), answers, strict=True))

    return replace(found, mistakes=explained(mistakes), unsure=explained(unsure))


def _warn_of_learned(support: Support | None, x: NDArray[np.float32], items: Sequence[Any]) -> int:
    """Return how many items are in the support, and warn if any is: a model nearly always knows what it has learned."""
    if support is None:
        return 0
    twins = support.twins(x)
    learned = np.flatnonzero((twins >= 0) & (twins < len(support)))
    if len(learned):
        some = f"{len(learned)} of {counted(len(x), 'item')} tested, such as {describe(items[learned[0]])}"
        warn(f"learned before, {some}; the accuracy on new ones is lower, so leave these out")
    return len(learned)
