"""HTML pages about the support of a model: how good it is, and which images may do harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewshot.images.audit import suspects
from fewshot.images.checked import EVENLY, CheckResult
from fewshot.images.duplicates import near_duplicates
from fewshot.images.model import FewShotModel
from fewshot.images.pages import SHOWN, show_tested, write_page
from fewshot.images.support import Support
from fewshot.report import figures
from fewshot.report.page import Page, count_card
from fewshot.report.query import Picture
from fewshot.report.related import About
from fewshot.utils.text import as_unicode, counted, listed

#: The most suspects and near-duplicates shown, the most pairs of classes, and pictures of each class of a pair.
MOST, PAIRS, OF_CLASS = 24, 6, 5


def write_check(path: str | Path, found: CheckResult, folder: str | Path | None = None) -> None:
    """Write a page of how good a model will be, from its support alone, and of what would make it better.

    Parameters
    ----------
    path : path
        The page.
    found : CheckResult
        The result of `FewShotModel.check`.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    low, high = found.interval
    page = Page(
        f"About {100 * found.accuracy:.0f} % of new images right",
        f"Each of {len(found.n_taught)} images was answered as if it had not been learned. For new images of the same "
        f"kind, expect {100 * low:.0f} to {100 * high:.0f} % (95 % interval); more, if many of these were picked "
        "because they are hard, as fewshot suggest and Label next do.",
        About.of(folder, "Check"),
    )
    page.cards(
        [
            (
                f"{100 * found.accuracy:.0f} %",
                f"of new images right, to expect{' if all are answered' if found.refused else ''}",
            ),
            *([(f"{100 * found.balanced_accuracy:.0f} %", f"right {EVENLY}")] if found.is_uneven else []),
            *([(f"{100 * found.refused:.0f} %", "refused as unknown, right or not")] if found.refused else []),
            (f"{100 * found.expected(2):.0f} %", "right, to expect with twice the images of each class"),
            (
                f"{100 * found.left_out.accuracy:.0f} %",
                "of its own images right, each answered without having been learned",
            ),
            (f"{100 * found.left_out.mean_probability:.0f} %", "how sure it was of these answers, on the mean"),
        ]
    )
    if found.alone:
        page.section("Not checked", f"Classes with one image: {listed(found.alone)}. Add a second to check them.")
    _show_suspects(page, found)
    _show_near_duplicates(page, found.support, found.near_duplicates)
    _show_pairs(page, found)
    _show_gains(page, found)
    if found.left_out.n:
        page.section(
            "Its own images",
            f"{100 * found.left_out.accuracy:.1f} % right, each answered without having been learned, so from one "
            f"image less of its class. With all of them, expect {100 * found.accuracy:.1f} %. The figures below are of "
            "these answers.",
        )
    show_tested(page, found.left_out)
    write_page(page, path)


def write_audit(path: str | Path, model: FewShotModel, frame: pd.DataFrame, folder: str | Path | None = None) -> None:
    """Write a page of the support images that may do harm, the most suspect first, with the reasons.

    Parameters
    ----------
    path : path
        The page.
    model : FewShotModel
        The model.
    frame : DataFrame
        The result of its `audit`.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    support = model.support_ or Support.none()
    found = suspects(frame)
    page = Page(
        f"{len(found)} of {counted(len(frame), 'support image')} to look at",
        "Each support image was compared with all others, and answered as if it had not been learned. "
        f"{_false_alarms(frame)}",
        About.of(folder, "Audit"),
    )
    page.cards(
        [
            count_card(len(frame), "support image"),
            (str(len(found)), "to look at"),
            (str(int((frame["near_duplicate_of"] != "").sum())), "nearly the same as another"),
        ]
    )
    if found:
        rows = frame.loc[[place for place, _ in found]]
        page.pictures(_suspects(support, rows))
        columns = ["id", "label", "suspicion", "false_alarm", "similarity", "other", "other_similarity"]
        page.section(
            "Figures",
            "Suspicion is the logarithm of how many times likelier the other classes are, on the mean; the share of "
            "right images as suspect is an estimate. Similarities are those to the mean of the other images of its "
            "class, and to the nearest other class.",
        )
        names = {"label": "class", "false_alarm": "right ones as suspect", "other_similarity": "similarity to it"}
        page.table(rows[columns].set_index("id").round(3).rename(columns=names))
    else:
        page.section("Nothing found", "No duplicate, and no image whose class is implausible.")
    near = near_duplicates(support)
    pairs = [(i, int(near[i])) for i in np.flatnonzero(frame["near_duplicate_of"] != "").tolist()]
    _show_near_duplicates(page, support, pairs)
    if len(outliers := frame[frame["outlier"] & ~frame["suspect"]].index.tolist()):
        page.section("Unlike the others of their class", f"The class of {_first(outliers)} is plausible all the same.")
        page.pictures(
            [(support.thumbnails[i], str(support.labels[i]), support.ids[i]) for i in outliers[:MOST]]
        )  # fmt: skip
    write_page(page, path)


def _false_alarms(frame: pd.DataFrame) -> str:
    return f"About {100 * frame.attrs['false_alarms']:.1f} % of right images look as suspect, as estimated."


def _show_suspects(page: Page, found: CheckResult) -> None:
    if not len(rows := found.suspects):
        return
    page.section(
        "Perhaps of another class",
        f"{_first(rows.index)} whose class is implausible, the most suspect first, each with the nearest image of "
        f"the class that it is taken for. {_false_alarms(rows)}",
    )
    page.pictures(_suspects(found.support, rows.head(MOST).assign(duplicate_of="")))


def _suspects(support: Support, rows: pd.DataFrame) -> list[Picture]:
    """Return pictures of suspects, each with the neighbour that says why."""
    shown: list[Picture] = []
    for place, row in zip(rows.index.tolist(), rows.to_dict("records"), strict=True):
        j, label, near = row["neighbour_row"], as_unicode(str(row["label"])), []
        why = [f"the same as {row['duplicate_of']}"] if row["duplicate_of"] else []
        if j >= 0:
            near = [(row["taken_for"], row["neighbour_similarity"], support.thumbnails[j])]
            why.append(f"more like {row['taken_for']}")
        name = support.ids[j] if j >= 0 else ""
        shown.append((support.thumbnails[place], f"{label}: {', '.join(why)}", support.ids[place], near, name))
    return shown


def _show_near_duplicates(page: Page, support: Support, pairs: Sequence[tuple[int, int]]) -> None:
    if not pairs:
        return
    page.section(
        "Nearly the same",
        f"{_first(pairs, 'pair')}. A copy adds little, and makes a check too hopeful; exact ones count once.",
    )
    labels, shown = support.labels.tolist(), []
    for i, j in pairs[:MOST]:
        cosine = float(support.embeddings[i] @ support.embeddings[j]) / float(
            np.prod(np.linalg.norm(support.embeddings[[i, j]], axis=1))
        )
        near = [(labels[j], cosine, support.thumbnails[j])]
        shown.append((support.thumbnails[i], str(labels[i]), support.ids[i], near, support.ids[j]))
    page.pictures(shown)


def _show_pairs(page: Page, found: CheckResult) -> None:
    """Show the classes that are taken for each other side by side, the images that were mistaken first."""
    if not len(pairs := found.confused):
        return
    page.section("Taken for each other", "Images of these classes that were mistaken for the other come first.")
    support, (truth, answers) = found.support, (found.left_out.truth, found.left_out.predicted)
    for a, b in pairs[["class", "other"]].head(PAIRS).itertuples(index=False):
        shown, told = {}, []
        for label, other in ((a, b), (b, a)):
            mistaken = found.rows[(truth == label) & (answers == other)].tolist()
            rows = [*mistaken, *(i for i in support.places(label) if i not in set(mistaken))]
            shown[label] = [support.thumbnails[i] for i in rows[:OF_CLASS]]
            told += [f"{len(mistaken)} of {label} taken for {other}"] * bool(mistaken)
        page.task(shown, [], ", ".join(told))
    named = {name: [as_unicode(str(label)) for label in pairs[name]] for name in ("class", "other")}
    called = {"images": "mistaken", "of": "of images", "as_other": "class taken for other"}
    page.table(pairs.assign(**named).head(SHOWN).set_index("class").rename(columns=called))


def _show_gains(page: Page, found: CheckResult) -> None:
    """Show the learning curve, and what more images of each class would give."""
    if len(found.curve) > 1:
        page.section(
            "More images",
            "The accuracy with few images of each class was measured on the others of the support; that with more is "
            "expected from how it grew.",
        )
        points, last = pd.DataFrame(map(asdict, found.curve)), found.curve[-1].images
        points["ci95"] = 1.96 * (points["accuracy"] * (1 - points["accuracy"]) / points["of"]) ** 0.5
        more = pd.DataFrame({"images": [last, 2 * last, 4 * last], "accuracy": map(found.expected, (1, 2, 4))})
        page.figure(figures.shots_curve(points, more), "Accuracy against the images of a class")
    page.section(
        "What more images would give, by class", "With twice the images of every class; the greatest gain first."
    )
    rows = found.gains.head(SHOWN)
    percent = {name: (100 * rows[name]).round(1) for name in ("accuracy", "with_twice", "gain")}
    rows = rows.assign(**percent).rename(index=lambda label: as_unicode(str(label)))
    page.table(rows.rename(columns={"accuracy": "right, %", "with_twice": "with twice, %", "gain": "gain, points"}))


def _first(items: Sequence[Any], noun: str = "image") -> str:
    """Count things, and say how many of them are shown."""
    return counted(len(items), noun) + (f", of which {MOST} are shown" if len(items) > MOST else "")
