"""Pages of a classifier: its answers beside the queries, its classes, its calibration, an audit of its support."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fewshot.classifiers.calibration import Calibration
from fewshot.images.answer import Answer
from fewshot.images.audit import suspects
from fewshot.images.model import FewShotModel
from fewshot.images.support import Support
from fewshot.report import figures
from fewshot.report.page import Page, QueryAnswer
from fewshot.utils.text import as_unicode

#: Support images that a page shows of a class.
SHOWN = 12
FOOTER = "Pictures are what the network saw: scaled, and cut to the middle."


def write_answers(path: str | Path, model: FewShotModel, answers: Sequence[Answer]) -> None:
    """Write a page of queries, each beside its answer, the probabilities and the nearest support images.

    Parameters
    ----------
    path : path
        The page, an HTML file that needs no other.
    model : FewShotModel
        Who answered.
    answers : sequence of Answer
        What `FewShotModel.answer` returned.
    """
    read = [answer for answer in answers if answer.error is None]
    page = Page(
        f"{len(answers)} images and their classes",
        f"Answered by a classifier of {len(model.classes_)} classes, "
        f"learned from {int(model.n_support_.sum())} images. "
        "Beside each image: its class, the probabilities, and the support images nearest to it with their similarity "
        "(higher is closer).",
    )
    if read:
        page.task({}, [_query(answer) for answer in read])
    if unread := [answer for answer in answers if answer.error is not None]:
        page.section("Not read", "These files could not be read as images, so they have no answer.")
        reasons = {as_unicode(answer.id): as_unicode(str(answer.error and answer.error.reason)) for answer in unread}
        page.table(pd.DataFrame.from_dict(reasons, orient="index", columns=["reason"]).rename_axis("image"))
    _write(page, path)


def write_classes(path: str | Path, model: FewShotModel, facts: Mapping[str, Any]) -> None:
    """Write a page of the classes, with their support images, and of what the classifier is made of.

    Parameters
    ----------
    path : path
        The page.
    model : FewShotModel
        The classifier.
    facts : mapping
        Rows of the table, by name.
    """
    model = copy.copy(model)  # of this moment, whatever is learned meanwhile
    n_images = int(model.n_support_.sum())
    page = Page(f"{len(model.classes_)} classes", f"Learned from {n_images} images, with no gradient step.")
    counts = model.n_support_.tolist()
    page.cards([(str(len(counts)), "classes"), (_range(counts), "images a class")])
    page.section("Classes", "" if model.support_ is not None else "The support images were not kept.")
    support = model.support_
    if support is not None:
        shown = {label: support.of(label).thumbnails for label in model.classes_.tolist()}
        page.task({_title(label, len(all_)): all_[:SHOWN] for label, all_ in shown.items()}, [])
    else:
        labels = pd.Index([as_unicode(label) for label in model.classes_.tolist()], name="class")
        page.table(pd.DataFrame({"images": counts}, labels))
    page.section("What it is made of")
    rows = {name: as_unicode(str(value)) for name, value in facts.items()}
    page.table(pd.DataFrame.from_dict(rows, orient="index", columns=["value"]).rename_axis("part"))
    _write(page, path)


def write_calibration(path: str | Path, found: Calibration) -> None:
    """Write a page of what `calibrate` has found.

    Parameters
    ----------
    path : path
        The page.
    found : Calibration
        ``model.calibration_``.
    """
    page = Page(
        "Calibration",
        "Measured on episodes over classes held out for this: one half of them learned, the other unknown.",
    )
    page.cards(
        [
            (f"{found.ece_after:.3f}", f"calibration error; {found.ece_before:.3f} before"),
            (f"{found.temperature:.3g}", "temperature of the probabilities"),
            (f"{found.auroc:.3f}", "AUROC of known against unknown"),
            (f"{100 * found.fpr_at_95:.0f} %", "unknown accepted where 95 % of the known are"),
        ]
    )
    page.section("How sure, how right; and what a threshold costs")
    page.figure(
        figures.calibration(found.reliability, found.curve, found.threshold),
        "Share of right answers against their confidence, before and after; share of unknown queries accepted and of "
        "known ones rejected, against the threshold",
    )
    low, high = found.false_accept_interval
    page.section(
        "The threshold",
        f"A query whose nearest class is less similar than {found.threshold:.4g} is answered as unknown. "
        f"Of the unknown queries {100 * found.false_accept_rate:g} % are accepted, as asked for; of the known "
        f"{100 * found.false_reject_rate:.1f} % are rejected. For other classes than these, "
        f"{100 * low:.1f} to {100 * high:.1f} % of the unknown queries are to be expected.",
    )
    rows = {name: str(value) for name, value in found.protocol.items()}
    page.table(pd.DataFrame.from_dict(rows, orient="index", columns=["value"]).rename_axis("episodes"))
    _write(page, path, "")


def write_audit(path: str | Path, model: FewShotModel, frame: pd.DataFrame) -> None:
    """Write a page of the support images that may do harm, each with the reason.

    Parameters
    ----------
    path : path
        The page.
    model : FewShotModel
        The classifier.
    frame : DataFrame
        What its `audit` has returned.
    """
    support = model.support_ or Support.none()
    found = suspects(frame)
    page = Page(
        f"{len(found)} of {len(frame)} support images to look at",
        "Each support image was held against all the others.",
    )
    if found:
        labels = support.labels.tolist()
        page.pictures(
            [(support.thumbnails[place], f"{labels[place]}: {why}", support.ids[place]) for place, why in found]
        )
        columns = ["id", "label", "similarity", "other", "other_similarity"]
        suspect = frame.loc[[place for place, _ in found], columns].set_index("id").round(3)
        page.section("Similarities", "To the mean of the other images of its class, and to the nearest other class.")
        page.table(suspect.rename(columns={"label": "class", "other_similarity": "similarity to it"}))
    else:
        page.section("Nothing found", "No outlier, no duplicate, and none nearer to another class than to its own.")
    _write(page, path)


def _query(answer: Answer) -> QueryAnswer:
    near = [(neighbour.label, neighbour.similarity, neighbour.thumbnail) for neighbour in answer.neighbours]
    ranking = [(label, share, None) for label, share in answer.ranking]
    return QueryAnswer(
        answer.thumbnail, None, ranking, answer.id, near, verdict=answer.label if answer.rejected else None
    )


def _range(counts: list[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])


def _title(label: Any, n: int) -> str:
    return f"{label} ({n})"


def _write(page: Page, path: str | Path, footer: str = FOOTER) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.write(path, footer)
