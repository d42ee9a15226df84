"""The commands on the versions of a classifier: ``fewshot history`` and ``undo``."""

from __future__ import annotations

import argparse

from fewshot.cli.tables import finish, give
from fewshot.cli.terminal import say, typed
from fewshot.images.history import SavedVersion, clear_history, go_back, read_history
from fewshot.utils.text import counted


def history(options: argparse.Namespace) -> int:
    """List the versions of a classifier, or delete the earlier ones."""
    if options.clear:
        clear_history(options.dir)
    rows = [
        {"version": one.number, "saved": _when(one), "what": one.note, "classes": one.n_classes,
         "images": one.n_support, "current": "yes" if one.is_current else ""}
        for one in read_history(options.dir)
    ]  # fmt: skip
    give(rows, options)
    if len(rows) > 1:
        say("", f"to go back: fewshot undo {typed(options.dir)}, or --to a version")
    return 0


def undo(options: argparse.Namespace) -> int:
    """Go back to an earlier version."""
    left = [one.number for one in read_history(options.dir) if one.is_current]
    found = go_back(options.dir, options.to)
    when, what = _when(found), f" ({found.note})" if found.note else ""
    holds = f"{counted(found.n_classes, 'class')} from {counted(found.n_support, 'image')}"
    back = "".join(f"; to return: fewshot undo {typed(options.dir)} --to {number}" for number in left)
    facts = {"classifier": options.dir, "version": found.number, "saved": when, "what": found.note,
             "classes": found.n_classes, "images": found.n_support, "undone": left}  # fmt: skip
    finish(
        options,
        facts,
        f"{options.dir} is version {found.number}{what}{f' of {when}' if when else ''} again: {holds}{back}",
    )
    return 0


def _when(version: SavedVersion) -> str:
    """Return the time of a version on the clock of this machine."""
    return "" if version.at is None else f"{version.at.astimezone():%Y-%m-%d %H:%M:%S}"
