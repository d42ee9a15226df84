"""The commands on how far to trust a classifier: ``fewshot test``, ``check``, ``calibrate`` and ``audit``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fewshot.cli.inputs import open_data
from fewshot.cli.models import as_label, changing, load, way_back
from fewshot.cli.tables import give, is_piped
from fewshot.cli.terminal import say
from fewshot.images.audit import suspects
from fewshot.images.pages import write_calibration, write_test
from fewshot.images.support_pages import write_audit, write_check
from fewshot.images.tested import TestResult
from fewshot.utils.labels import unknown_mark
from fewshot.utils.text import counted, listed

if TYPE_CHECKING:
    import pandas as pd

#: A gain in accuracy worth mentioning.
WORTH = 0.005


def test(options: argparse.Namespace) -> int:
    """Measure how good a classifier is on a folder of labelled images."""
    model = load(options).set_params(on_error="skip" if options.skip_unreadable else "raise")
    data, _ = open_data(options.folder, options)
    labels = [as_label(model, name) if isinstance(name, str) else name for name in data.labels.tolist()]
    found = model.test(data.images, labels)
    rows = _per_class(found)
    (low, high), lost = found.interval, found.unknown_accepted
    facts = {"images": found.n, "accuracy": found.accuracy, "interval": [low, high], "sure": found.mean_probability,
             "calibration_error": found.calibration_error, "unknown_accepted": lost}  # fmt: skip
    give(rows, options, {**facts, "classes": rows})
    if options.report:
        write_test(options.report, found)
    if not is_piped(options):
        n_unknown = len(found.truth) - found.n
        taken = f"{100 * (lost or 0):.0f} % of {counted(n_unknown, 'image')} of unknown classes taken for a class"
        say(
            "",
            f"{100 * found.accuracy:.1f} % of {counted(found.n, 'image')} right; of others of the same kind, expect "
            f"{100 * low:.1f} to {100 * high:.1f} %",
            f"it was {100 * found.mean_probability:.0f} % sure on the mean",
            *([taken] if n_unknown else []),
            *([f"pictures: {options.report}"] if options.report else []),
        )
    return 0


def check(options: argparse.Namespace) -> int:
    """Estimate how good a classifier will be, from its support alone."""
    found = load(options).check()
    rows, pairs, (low, high) = _per_class(found.left_out), found.confused, found.interval
    facts = {"images": len(found.n_taught), "accuracy": found.accuracy, "interval": [low, high],
             "with_twice_the_images": found.expected(2), "alone": found.alone}  # fmt: skip
    gains = found.gains.reset_index()
    gain = dict(zip(gains["class"], gains["gain"], strict=True))
    rows = [{**row, "gain with twice": gain[row["class"]]} for row in rows]
    doubtful, ids = found.suspects, found.support.ids
    facts |= {"confused": pairs.to_dict("records"), "gains": gains.to_dict("records"),
              "curve": [{"images": p.images, "accuracy": p.accuracy} for p in found.curve],
              "suspects": _suspects(doubtful), "false_alarms": doubtful.attrs["false_alarms"],
              "near_duplicates": [[ids[i], ids[j]] for i, j in found.near_duplicates]}  # fmt: skip
    give(rows, options, {**facts, "classes": rows})
    if options.report:
        write_check(options.report, found)
    if not is_piped(options):
        worst = [f"{a} and {b} ({n} of {of})" for a, b, n, of in pairs.head(3).itertuples(index=False)]
        needy = [f"{row['class']} (+{100 * row.gain:.0f} points with twice)" for _, row in gains.head(3).iterrows()
                 if row.gain >= WORTH]  # fmt: skip
        say(
            "",
            f"{found}; with twice the images, {100 * found.expected(2):.0f} %",
            *([f"taken for each other: {', '.join(worst)}"] if worst else []),
            *([f"more images help most: {', '.join(needy)}"] if needy else []),
            *(
                [f"perhaps of another class: {counted(len(doubtful), 'image')}: fewshot audit {options.dir}"]
                if len(doubtful)
                else []
            ),
            *(
                [f"nearly the same: {counted(len(found.near_duplicates), 'pair')} of images"]
                if found.near_duplicates
                else []
            ),
            *([f"not checked, because they have one image: {listed(found.alone)}"] if found.alone else []),
            *([f"pictures: {options.report}"] if options.report else []),
        )
    return 0


def _per_class(found: TestResult) -> list[dict[str, Any]]:
    frame = found.per_class
    return [
        {"class": label, "images": row.images, "right": row.right, "accuracy": float(row.accuracy),
         "taken for": "" if row.taken_for is None else row.taken_for}
        for label, row in zip(frame.index.tolist(), frame.itertuples(), strict=True)
    ]  # fmt: skip


def calibrate(options: argparse.Namespace) -> int:
    """Calibrate a classifier on held-out classes."""
    model, answers = load(options).set_params(reject=None), "always"
    if not options.keep_answering:  # raises before anything is embedded
        answers = f'"{unknown_mark(model.unknown_label, model.classes_)}" below the threshold'
    data, _ = open_data(options.data, options)
    snapshot = model.snapshot("skip" if options.skip_unreadable else None)
    held_out = snapshot.prepare(data, None, None, "calibrate")
    settings = {"false_accept_rate": options.false_accepts / 100, "n_episodes": options.episodes, "seed": options.seed}
    with changing(options, model, "calibrate") as model:
        model.set_params(reject=None if options.keep_answering else "auto").calibrate(held_out, **settings)
    found = model.calibration_
    interval = " to ".join(f"{100 * share:.1f}" for share in found.false_accept_interval)
    if options.report:
        write_calibration(options.report, found)
    say(
        f"calibration error  {found.ece_before:.3f} before, {found.ece_after:.3f} after",
        f"known or unknown   AUROC {found.auroc:.3f}; if 95 % of known images are accepted, "
        f"{100 * found.fpr_at_95:.0f} % of unknown ones are too",
        f"threshold          {found.threshold:.4g}: {options.false_accepts:g} % of unknown images are accepted "
        f"({interval} % for other unknown classes), and {100 * found.false_reject_rate:.1f} % of known ones rejected",
        *([f"figures: {options.report}"] if options.report else []),
        f"{options.dir} answers {answers}{way_back(options.dir)}",
    )
    return 0


def audit(options: argparse.Namespace) -> int:
    """List support images that may do harm."""
    model = load(options)
    frame = model.audit()
    reasons = suspects(frame)
    found = frame.loc[[place for place, _ in reasons]]
    rows = [{**row, "why": why} for row, (_, why) in zip(_suspects(found), reasons, strict=True)]
    give([{name: row[name] for name in ("image", "class", "why", "false alarm")} for row in rows], options, rows)
    if not is_piped(options):
        n_near = int((frame["near_duplicate_of"] != "").sum())
        say(
            f"{len(found)} of {counted(len(frame), 'image')} to check; about "
            f"{100 * frame.attrs['false_alarms']:.1f} % of right images look as suspect",
            *([f"nearly the same as another: {counted(n_near, 'image')}"] if n_near else []),
        )
    if options.report:
        write_audit(options.report, model, frame)
        if not is_piped(options):
            say(f"pictures: {options.report}")
    return 0


def _suspects(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return suspects, each with the neighbour that says why, as rows."""
    return [
        {"image": row["id"], "class": row["label"], "taken for": row["taken_for"], "neighbour": row["neighbour"],
         "similarity": _or_none(row["neighbour_similarity"]), "suspicion": _or_none(row["suspicion"]),
         "false alarm": _or_none(row["false_alarm"])}
        for row in frame.to_dict("records")
    ]  # fmt: skip


def _or_none(value: float) -> float | None:
    return None if value != value else value  # JSON has no NaN
