"""HTML pages about a model: its answers, its classes and its calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewshot.classifiers.calibration import Calibration
from fewshot.images.answer import Answer
from fewshot.images.model import FewShotModel
from fewshot.images.tested import TestResult
from fewshot.report import figures
from fewshot.report.page import Page, count_card
from fewshot.report.query import QueryAnswer
from fewshot.report.related import About
from fewshot.utils.text import as_unicode, counted, natural_key

#: Support images shown for a class, and the most classes whose confusion is drawn.
SHOWN, MOST_CONFUSED = 12, 100
FOOTER = "Pictures show what the network saw: scaled, and cropped or padded to a square."


def write_answers(
    path: str | Path, model: FewShotModel, answers: Sequence[Answer], folder: str | Path | None = None
) -> None:
    """Write a page of queries with their answers, probabilities and nearest support images.

    Answers that are doubtful look different: those whose second class is at least half as likely as the first, and,
    if sets were asked for, those whose set does not hold one class.

    Parameters
    ----------
    path : path
        The page, a self-contained HTML file; of much more than a thousand images, the rest goes to files next to it.
    model : FewShotModel
        The model that answered.
    answers : sequence of Answer
        The result of `FewShotModel.answer`.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    read = [answer for answer in answers if answer.error is None]
    page = Page(
        counted(len(answers), "classified image"),
        f"Answered by a classifier of {counted(len(model.classes_), 'class')}, "
        f"learned from {counted(int(model.n_support_.sum()), 'image')}.",
        About.of(folder, "Answers"),
    )
    unread = [answer for answer in answers if answer.error is not None]
    queries = [_query(answer) for answer in read]
    kinds = Counter(query.kind for query in queries)
    cards = [(str(kinds["told"]), "answered"), (str(kinds["doubtful"]), "doubtful: look at them")]
    cards += [(str(kinds["unknown"]), "unknown: like no class")] if model.reject is not None else []
    page.cards([*cards, (str(len(unread)), "not read")] if unread else cards)
    if read:
        _show_counts(page, queries)
        page.section(
            "Images",
            "For each image: its class, the probabilities of the likeliest ones, and the nearest support images with "
            "their similarity (higher is closer). An answer is doubtful if another class is half as likely or more.",
        )
        page.task({}, queries)
    if unread:
        page.section("Not read", "These files could not be read as images, so they have no answer.")
        reasons = {as_unicode(answer.id): as_unicode(str(answer.error and answer.error.reason)) for answer in unread}
        page.table(pd.DataFrame.from_dict(reasons, orient="index", columns=["reason"]).rename_axis("image"))
    write_page(page, path)


def _show_counts(page: Page, queries: Sequence[QueryAnswer]) -> None:
    """Show how many images each class got, and how sure the model was of them."""
    frame = pd.DataFrame(
        {
            "class": [as_unicode(str(q.answers[0][0] if q.verdict is None else q.verdict)) for q in queries],
            # That of an unknown image is of a class that is not the answer.
            "probability": [q.answers[0][1] if q.verdict is None else np.nan for q in queries],
            "doubtful": [q.kind == "doubtful" for q in queries],
        }
    )
    rows = frame.groupby("class").agg(
        images=("class", "size"), doubtful=("doubtful", "sum"), mean=("probability", "mean")
    )
    rows = rows.loc[sorted(rows.index, key=natural_key)].sort_values("images", ascending=False, kind="stable")
    page.section("Answers")
    shown = ["" if mean != mean else f"{100 * mean:.0f}" for mean in rows["mean"]]
    page.table(rows.assign(mean=shown).rename(columns={"mean": "mean probability, %"}))


def write_test(path: str | Path, found: TestResult, folder: str | Path | None = None) -> None:
    """Write a page of how good a model is: its accuracy, each class, what is confused, and the worst mistakes.

    Parameters
    ----------
    path : path
        The page.
    found : TestResult
        The result of `FewShotModel.test`.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    about = About.of(folder, "Test")
    (low, high), cards = found.interval, []
    if found.n:
        expected = f"For other images of the same kind, expect {100 * low:.1f} to {100 * high:.1f} % (95 % interval)."
        if found.n_learned:
            expected = f"Expect less of other images: it has learned {found.n_learned} of these."
        answers = f"Answers to {found.n} images of {len(found.per_class)} classes."
        page = Page(f"{100 * found.accuracy:.1f} % right", f"{answers} {expected}", about)
        cards += [
            (f"{100 * found.accuracy:.1f} %", "of the images right"),
            (f"{100 * found.balanced_accuracy:.1f} %", "right, mean over the classes"),
        ]
    else:
        page = Page("Images of unknown classes", "The model knows none of their classes, so unknown is right.", about)
    if found.refused > 0:
        cards.append((f"{100 * found.refused:.1f} %", "of images of its classes refused as unknown"))
        if found.is_answered.any():
            cards.append((f"{100 * found.answered_accuracy:.1f} %", "of the others right"))
    if found.is_answered.any():
        cards.append((f"{100 * found.mean_probability:.1f} %", "how sure it was of its answers, on the mean"))
    if found.unknown_accepted is not None:
        n = int((~found.is_known).sum())
        cards.append(
            (f"{100 * found.unknown_accepted:.0f} %", f"of {counted(n, 'image')} of unknown classes taken for a class")
        )
    page.cards(cards)
    show_tested(page, found)
    write_page(page, path)


def write_classes(
    path: str | Path, model: FewShotModel, facts: Mapping[str, Any], folder: str | Path | None = None
) -> None:
    """Write a page of the classes with their support images, and of the parts of the model.

    Parameters
    ----------
    path : path
        The page.
    model : FewShotModel
        The model.
    facts : mapping
        Rows of the table of parts, by name.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    now = model.snapshot()
    support, labels, counts = now.support, now.classifier.classes_.tolist(), now.classifier.n_support_.tolist()
    page = Page(
        counted(len(labels), "class"),
        f"Learned from {counted(sum(counts), 'image')}, with no gradient step.",
        About.of(folder, "Classes"),
    )
    page.cards([count_card(len(counts), "class"), (_range(counts), "images per class")])
    page.section("Classes", "The support images were not kept." if support is None else "")
    if support is not None:
        shown = {label: support.of(label).thumbnails for label in sorted(labels, key=natural_key)}
        page.task({f"{label} ({len(all_)})": all_[:SHOWN] for label, all_ in shown.items()}, [])
    else:
        page.table(pd.DataFrame({"images": counts}, pd.Index(list(map(as_unicode, labels)), name="class")))
    page.section("What it is made of")
    rows = {name: as_unicode(str(value)) for name, value in facts.items()}
    page.table(pd.DataFrame.from_dict(rows, orient="index", columns=["value"]).rename_axis("part"))
    write_page(page, path)


def write_calibration(path: str | Path, found: Calibration, folder: str | Path | None = None) -> None:
    """Write a page of the result of `calibrate`.

    Parameters
    ----------
    path : path
        The page.
    found : Calibration
        ``model.calibration_``.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    page = Page(
        "Calibration",
        "Measured on held-out classes: learned in many episodes for the probabilities, and compared with the "
        "classifier's own classes to tell what is unknown.",
        About.of(folder, "Calibration"),
    )
    page.cards(
        [
            (f"{found.ece_after:.3f}", f"calibration error; {found.ece_before:.3f} before"),
            (f"{found.temperature:.3g}", "temperature of the probabilities"),
            (f"{found.auroc:.3f}", "AUROC of known against unknown"),
            (f"{100 * found.fpr_at_95:.0f} %", "of unknown queries accepted if 95 % of known ones are"),
        ]
    )
    page.section("Confidence against accuracy")
    page.figure(figures.reliability(found.reliability), "Accuracy against confidence, before and after calibration")
    low, high = found.false_accept_interval
    page.section(
        "The threshold",
        f"With --reject auto, a query is unknown if its {found.score} is below {found.threshold:.4g}. "
        f"This accepts {100 * found.false_accept_rate:g} % of the unknown queries, as requested, and rejects "
        f"{100 * found.false_reject_rate:.1f} % of the known ones. For other classes, expect "
        f"{100 * low:.1f} to {100 * high:.1f} % of the unknown queries to be accepted.",
    )
    shares = "Shares of unknown queries accepted and of known ones rejected, against the threshold"
    page.figure(figures.trade_off(found.curve, found.threshold), shares)
    rows = {name: str(value) for name, value in found.protocol.items()}
    page.table(pd.DataFrame.from_dict(rows, orient="index", columns=["value"]).rename_axis("episodes"))
    write_page(page, path, "")


def show_tested(page: Page, found: TestResult) -> None:
    """Show the classes, what is taken for what, and the answers to look at."""
    if found.n:
        _show_classes(page, found)
    confusion = found.confusion
    if 1 < len(confusion) <= MOST_CONFUSED:
        page.section("What is taken for what")
        page.figure(figures.confusion(confusion), "Share of the images of each class by answer")
    n_right = int(found.right.sum())
    for shown, title, n, how in (
        (found.mistakes, "Mistakes", len(found.right) - n_right, "surest"),
        (found.unsure, "Right, but only just", n_right, "least sure"),
    ):
        if shown:
            page.section(title, f"The {len(shown)} of {n} of which the model was {how}.")
            page.task({}, [_query(answer, label) for label, answer in shown])


def _show_classes(page: Page, found: TestResult) -> None:
    page.section("Classes", "Precision is the share of a class's answers that are right.")
    rows = found.per_class.sort_values("accuracy", kind="stable")
    percent = {name: (100 * rows[name]).round(1) for name in ("accuracy", "precision")}
    taken_for = ["" if label is None else as_unicode(str(label)) for label in rows["taken_for"]]
    rows = rows.assign(**percent, taken_for=taken_for).rename(index=lambda label: as_unicode(str(label)))
    page.table(rows.rename(columns={"accuracy": "accuracy, %", "precision": "precision, %", "taken_for": "taken for"}))


def _query(answer: Answer, label: Any = None) -> QueryAnswer:
    near = [(neighbour.label, neighbour.similarity, neighbour.thumbnail) for neighbour in answer.neighbours]
    ranking, held, note = [(label, share, None) for label, share in answer.ranking], answer.label_set, ""
    if held is not None:
        note = f"one of: {', '.join(map(str, held))}" if held else "no class fits"
    verdict = answer.label if answer.rejected else None
    where = answer.match
    match = None if where is None or not where.picture else (where.label, where.picture, where.support_picture)
    return QueryAnswer(answer.thumbnail, label, ranking, answer.id, near, verdict, note, answer.doubtful, match)


def _range(counts: list[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])


def write_page(page: Page, path: str | Path, footer: str = FOOTER) -> None:
    """Write a page, and the folder that it is in."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.write(path, footer)
