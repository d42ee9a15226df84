"""The page of what to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewshot.images.suggesting.suggest import Suggestion
from fewshot.report.page import Page
from fewshot.report.related import About
from fewshot.utils.text import counted


def write_suggestions(path: str | Path, found: Sequence[Suggestion], folder: str | Path | None = None) -> None:
    """Write a page of the items to label next, with the present answers and the reasons.

    Parameters
    ----------
    path : path
        The page.
    found : sequence of Suggestion
        The result of `FewShotModel.suggest`.
    folder : path, optional
        Where the model is saved: pages about it have links to each other.
    """
    page = Page(
        f"Label {counted(len(found), 'image')} next",
        "The best first: each stands for the images of the pool that are nearer to it than to any other labelled or "
        "suggested image.",
        About.of(folder, "Label next"),
    )
    if found:
        page.pictures([(one.thumbnail, f"{_answer(one)}{one.reason}", one.id) for one in found])
    else:
        page.section("Nothing to label", "All images are learned already, or copies of such images.")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.write(path, "Pictures show what the network saw: scaled, and cropped or padded to a square.")


def _answer(one: Suggestion) -> str:
    if one.label is None:
        return ""
    sure = f"{100 * one.probability:.0f}\u00a0%"
    return f"{one.label}, {sure}; " if one.label == one.likeliest else f"{one.label}, else {one.likeliest}, {sure}; "
