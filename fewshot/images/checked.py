"""How good a model will be on new items, and what would make it better, from its support alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.classifiers.reject_rule import asked_of
from fewshot.errors import brief
from fewshot.images.answer import Answer, is_doubtful, nearest_support
from fewshot.images.curve import Point, measure_curve, slope_of
from fewshot.images.duplicates import near_duplicates
from fewshot.images.support import Support
from fewshot.images.suspects import find_suspects, suspect_rows, text_column
from fewshot.images.tested import WORST, TestResult, mistakes_html, per_class_html
from fewshot.learners.base import Learner
from fewshot.search.similarity import to_tensor
from fewshot.utils import notebook
from fewshot.utils.intervals import DEPENDENCE, share_interval
from fewshot.utils.isolation import isolated
from fewshot.utils.plain import plain_dict
from fewshot.utils.text import counted, listed, printable
from fewshot.utils.twins import distinct_rows
from fewshot.utils.values import check_number
from fewshot.utils.warning import keeps_filters, lock_of_filters

if TYPE_CHECKING:
    import pandas as pd

#: With the image that was left out, the share of wrong answers of n is (1 - 1/n) ** LEARNING times as large.
LEARNING = 0.4
#: Accuracies that differ by this much are told apart.
TELLING = 0.02
EVENLY = "if all classes come equally often"
#: The accuracy of a class counts this many images of the mean accuracy as its own.
SHRINK = 3


@dataclass(frozen=True, eq=False)
class CheckResult:
    """Answers to the items of the support, each as if it had not been learned; see `FewShotModel.check`.

    Attributes
    ----------
    left_out : TestResult
        These answers; its figures are those of a model that has one image less of a class.
    n_taught : ndarray of shape (n,)
        How many other images of its class taught the answer to each.
    alone : list
        Classes with one image, which cannot be left out; copies do not count.
    rows : ndarray of shape (n,)
        Which rows of the support were answered.
    logits : ndarray of shape (n, n_way)
        Logits of the answers.
    support : Support
        The support.
    """

    left_out: TestResult
    n_taught: NDArray[np.int64]
    alone: list[Any]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    logits: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    support: Support = field(default_factory=Support.none, repr=False)
    _classifier: FewShotClassifier | None = field(default=None, repr=False)

    @property
    def accuracy(self) -> float:
        """Expected accuracy on new items, with all of the support."""
        return float(1 - self._error().mean())

    @property
    def balanced_accuracy(self) -> float:
        """Expected accuracy on new items that come equally often from each class, of the classes that were checked.

        `accuracy` is that of items which come from each class as often as the support. Classes with one item are in
        neither, though they are the hardest.
        """
        codes = np.unique(self.left_out.truth, return_inverse=True)[1]
        return float(1 - (np.bincount(codes, self._error()) / np.bincount(codes)).mean())

    @property
    def is_uneven(self) -> bool:
        """Whether `balanced_accuracy` differs from `accuracy` by two points or more."""
        return abs(self.balanced_accuracy - self.accuracy) >= TELLING

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `accuracy`."""
        return share_interval(self.accuracy, len(self.n_taught) / DEPENDENCE)

    @cached_property
    def curve(self) -> list[Point]:
        """The accuracy with 1, 2, 4, ... images of each class, on the other images; then that of the left-out ones."""
        if self._classifier is None:
            return []
        measured = _measured(self._classifier, self.support)
        return [*measured, Point(float(self.n_taught.mean()) + 0.5, self.left_out.accuracy, len(self.n_taught))]

    def expected(self, times: float) -> float:
        """Return the accuracy to expect with `times` as many images of each class, by the learning curve."""
        check_number("times", times, above=True)
        return float(1 - self._error().mean() * times ** -slope_of(self.curve))

    def _error(self) -> NDArray[np.float64]:
        """Return the share of each answer (n,) that would still be wrong with the image that was left out."""
        error: NDArray[np.float64] = ~self.left_out.right * (self.n_taught / (self.n_taught + 1)) ** LEARNING
        return error

    @property
    @keeps_filters
    def gains(self) -> pd.DataFrame:
        """What twice the images of each class would give, by class, the greatest gain first.

        Columns ``images`` (of the class), ``accuracy`` (to expect of its images now), ``with_twice`` and ``gain``. Few
        images say little, so classes are drawn towards the mean.
        """
        import pandas as pd

        classes, error = self.left_out.classes, self._error()
        codes = np.searchsorted(classes, self.left_out.truth)
        images = np.bincount(codes, minlength=len(classes))
        now = (np.bincount(codes, error, len(classes)) + SHRINK * error.mean()) / (images + SHRINK)
        after = now * 2 ** -slope_of(self.curve)
        # As objects: pandas cannot hold every text otherwise, such as file names that are not UTF-8.
        index = pd.Index(classes.tolist(), dtype=object, name="class")
        columns = {"images": images, "accuracy": 1 - now, "with_twice": 1 - after, "gain": now - after}
        return pd.DataFrame(columns, index)[images > 0].sort_values("gain", ascending=False, kind="stable")

    @cached_property
    def suspects(self) -> pd.DataFrame:
        """Items whose label is implausible, the most suspect first; the index is their row of the support.

        Columns are ``id``, ``label`` and those of `fewshot.images.suspects.find_suspects`; ``attrs["false_alarms"]`` is
        the share of right labels that would be among them, as estimated.
        """
        if self._classifier is None:
            raise ValueError("the result holds no classifier, so it has no suspects; take it from FewShotModel.check")
        return _suspects(self, self._classifier.learner_)

    @cached_property
    def refused(self) -> float | None:
        """Share of the items that `reject` would answer as unknown, each as if it had not been learned.

        None if nothing is rejected, or the support cannot tell.
        """
        classifier = self._classifier
        if classifier is None or (rule := classifier.reject) is None:
            return None
        if asked_of(rule) is not None:
            share = classifier.rejection(str(rule)).false_reject_rate
            return None if share != share else share  # NaN
        if not classifier.model_.memory.one_key_per_class:
            return None
        learner = classifier.learner_
        similarity = learner.closeness(torch.from_numpy(self.logits), None).numpy()  # of the one key of a class
        return float((similarity < rule).mean())

    @cached_property
    def near_duplicates(self) -> list[tuple[int, int]]:
        """Pairs of rows of the support that are nearly the same; see `fewshot.images.duplicates.near_duplicates`."""
        twin = near_duplicates(self.support)
        return [(i, int(twin[i])) for i in np.flatnonzero(twin >= 0).tolist()]

    def __str__(self) -> str:
        low, high = self.interval
        told = f"expect {100 * self.accuracy:.0f} % of new images right ({100 * low:.0f} to {100 * high:.0f} %)"
        balanced = f", or {100 * self.balanced_accuracy:.0f} % {EVENLY}" if self.is_uneven else ""
        refused = f" if all are answered, but {100 * self.refused:.0f} % are refused as unknown" if self.refused else ""
        return f"{told}{balanced}{refused}"

    def __repr__(self) -> str:
        pairs = [
            f"{printable(brief(a, 40))} and {printable(brief(b, 40))} ({n} of {of})"
            for a, b, n, of, _ in self.confused.head(WORST).itertuples(index=False)
        ]
        lines = [
            f"CheckResult: {self}",
            f"{counted(len(self.n_taught), 'item')} of the support, each answered as if it had not been learned",
            *([f"taken for each other: {', '.join(pairs)}"] if pairs else []),
            *([f"not checked, with one item: {printable(listed(self.alone, WORST))}"] if self.alone else []),
            "more in .left_out, .gains, .confused, .suspects, .near_duplicates, .curve and .expected(times)",
        ]
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        low, high = self.interval
        numbers = notebook.numbers(
            [
                (f"{100 * self.accuracy:.0f} %", f"right, to expect ({100 * low:.0f} to {100 * high:.0f} %)"),
                *([(f"{100 * self.balanced_accuracy:.0f} %", EVENLY)] if self.is_uneven else []),
                (f"{100 * self.left_out.mean_probability:.0f} %", "how sure it was, on the mean"),
                *([(f"{100 * self.refused:.0f} %", "refused as unknown, right or not")] if self.refused else []),
            ]
        )
        rows = self.left_out.per_class.sort_values("accuracy", kind="stable")
        alone = f"not checked, with one image: {listed(self.alone)}" if self.alone else ""
        lead = f"{len(self.n_taught)} items of the support, each answered as if it had not been learned"
        shown = per_class_html(rows), mistakes_html(self.left_out), notebook.text(alone)
        return notebook.fragment("CheckResult", lead, numbers, *shown)

    @property
    @keeps_filters
    def confused(self) -> pd.DataFrame:
        """Pairs of classes that are taken for each other, the worst first.

        Of the ``of`` items of both, ``images`` are taken for the other; ``as_other`` of these are of ``class``.
        """
        import pandas as pd

        table = self.left_out.confusion
        counts, labels = table.to_numpy(), table.index.tolist()
        both, images = counts + counts.T, counts.sum(1)
        first, second = np.nonzero(np.triu(both, 1))
        rows = pd.DataFrame(
            {
                "class": pd.Series([labels[i] for i in first], dtype=object),
                "other": pd.Series([labels[i] for i in second], dtype=object),
                "images": both[first, second],
                "of": images[first] + images[second],
                "as_other": counts[first, second],
            }
        )
        return rows.sort_values("images", ascending=False, kind="stable", ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain values, which JSON can hold; those of ``fewshot check --json``.

        What `TestResult.to_dict` has of the left-out answers, with the gain in accuracy that twice the images of a
        class would give, and of `accuracy`, `gains`, `confused`, `curve`, `suspects` and `near_duplicates`; images are
        named. What cannot be told is None.

        Raises
        ------
        ValueError
            If the result holds no classifier; see `suspects`.

        Examples
        --------
        >>> from fewshot import FewShotModel, OwnEmbedder
        >>> model, x = FewShotModel(OwnEmbedder(np.stack, "vectors")), np.random.default_rng(0).random((4, 8))
        >>> found = model.fit(list(x + np.eye(8)[[0, 0, 1, 1]]), ["ant", "ant", "bee", "bee"]).check().to_dict()
        >>> found["images"], found["accuracy"], [row["class"] for row in found["classes"]]
        (4, 1.0, ['ant', 'bee'])
        """
        answers, gains = self.left_out.to_dict(), self.gains.reset_index().to_dict("records")
        gain, ids = {row["class"]: row["gain"] for row in gains}, self.support.ids
        return plain_dict(
            images=len(self.n_taught),
            accuracy=self.accuracy,
            interval=self.interval,
            balanced_accuracy=self.balanced_accuracy,
            with_twice_the_images=self.expected(2),
            alone=self.alone,
            refused=self.refused,
            confusion=answers["confusion"],
            confused=self.confused.to_dict("records"),
            gains=gains,
            curve=[{"images": point.images, "accuracy": point.accuracy} for point in self.curve],
            suspects=suspect_rows(self.suspects),
            false_alarms=self.suspects.attrs["false_alarms"],
            near_duplicates=[[ids[i], ids[j]] for i, j in self.near_duplicates],
            classes=[{**row, "gain with twice": gain[row["class"]]} for row in answers["classes"]],
        )


@isolated(gradients=False)
def _suspects(found: CheckResult, learner: Learner) -> pd.DataFrame:
    support = found.support
    frame = find_suspects(learner, support, found.left_out.classes, found.rows, found.logits)
    with lock_of_filters():  # pandas sets warning filters
        frame.insert(0, "id", text_column(support.ids))
        frame.insert(1, "label", text_column(support.labels))
        return frame[frame.pop("implausible")].sort_values("suspicion", ascending=False, kind="stable")


@isolated(gradients=False)
def _measured(classifier: FewShotClassifier, support: Support) -> list[Point]:
    support = support.rows(distinct_rows(support.embeddings, support.labels).tolist())
    codes = torch.from_numpy(np.searchsorted(classifier.classes_, support.labels))
    return measure_curve(classifier.learner_, to_tensor(support.embeddings).double(), codes, len(classifier.classes_))


@isolated(gradients=False)
def check_model(classifier: FewShotClassifier, support: Support, n_shown: int) -> CheckResult | None:
    """Answer each item of the support as if it had not been learned; None if every class has one item.

    Copies within a class are no items: the other copy would answer for the one that is left out.
    """
    kept, whole = distinct_rows(support.embeddings, support.labels), support
    support = whole.rows(kept.tolist())
    classes, learner, names = classifier.classes_, classifier.learner_, support.labels.tolist()
    codes = np.searchsorted(classes, support.labels)
    x = to_tensor(support.embeddings).double()
    found = learner.leave_out(x, torch.from_numpy(codes), len(classes))
    alone = classes[np.bincount(codes, minlength=len(classes)) == 1].tolist()
    if not len(found.rows):
        return None
    rows, shares = found.rows.numpy(), (found.logits / classifier.proba_temperature()).softmax(-1).numpy()
    truth, predicted, probability = support.labels[rows], classes[shares.argmax(1)], shares.max(1)
    surest = np.argsort(-probability, kind="stable")
    wrong = surest[(predicted != truth)[surest]][:n_shown].tolist()
    near = nearest_support(classifier, support, support.embeddings[rows[wrong]], 3, rows[wrong])
    mistakes = []
    for i, neighbours in zip(wrong, near, strict=True):
        order = np.argsort(-shares[i], kind="stable")[:3]
        ranking = [(classes[place : place + 1].tolist()[0], float(shares[i, place])) for place in order.tolist()]
        answer = Answer(
            support.ids[rows[i]], ranking[0][0], ranking[0][1], ranking, [], 0.0, False, neighbours,
            support.thumbnails[rows[i]], doubtful=is_doubtful(shares[i, order].tolist()),
        )  # fmt: skip
        mistakes.append((names[rows[i]], answer))
    answers = TestResult(classes, truth, predicted, probability, 0, mistakes)
    logits = found.logits.numpy()
    return CheckResult(answers, found.n_taught.numpy(), alone, kept[rows], logits, whole, classifier)
