"""The commands on how far to trust a classifier: ``fewshot test``, ``check``, ``calibrate`` and ``audit``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fewshot.classifiers.calibration import FEWEST_CLASSES, Calibration
from fewshot.cli.inputs import as_label, list_paths, open_data, refuse_existing
from fewshot.cli.models import changing, load, looking, milder_rule, reject
from fewshot.cli.tables import filled, finish, give
from fewshot.cli.terminal import is_piped, say, typed, way_back
from fewshot.data.images import LabeledImages
from fewshot.images.audit import suspects
from fewshot.images.checked import CheckResult
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.images.pages import write_calibration, write_test
from fewshot.images.support_pages import write_audit, write_check
from fewshot.images.suspects import suspect_rows
from fewshot.images.tested import TestResult
from fewshot.persistence.artifact import is_artifact
from fewshot.utils.labels import unknown_mark
from fewshot.utils.text import counted, listed

#: A gain in accuracy worth mentioning.
WORTH = 0.005


def test(options: argparse.Namespace) -> int:
    """Measure how good a classifier is on a folder of labelled images."""
    model = load(options).set_params(on_error="skip" if options.skip_unreadable else "raise")
    data, _ = open_data(options.folder, options)
    labels = [as_label(model, name) if isinstance(name, str) else name for name in data.labels.tolist()]
    found = model.test(data.images, labels)
    facts, (low, high), taken = found.to_dict(), found.interval, found.about_unknown("image")
    facts["classes"] = filled(facts["classes"])
    give(_with_counts(facts), options, facts)
    if options.report:
        write_test(options.report, found, options.dir)
    if not is_piped(options):
        expected = f"of others of the same kind, expect {100 * low:.1f} to {100 * high:.1f} %"
        if found.n_learned:
            expected = f"expect less of others, since it has learned {found.n_learned} of these"
        right = f"{100 * found.accuracy:.1f} % of {counted(found.n, 'image')} right; {expected}"
        say(
            "",
            *([right, _sureness(found) + milder_rule(model, found.refused, options.dir)] if found.n else []),
            *([taken] if taken else []),
            *([f"pictures: {options.report}"] if options.report else []),
        )
    return 0


def _sureness(found: TestResult) -> str:
    """Return how sure the model was, and how much it refused, in words."""
    sure = f"it was {100 * found.mean_probability:.0f} % sure on the mean"
    if not found.refused:
        return sure
    refused = f"{100 * found.refused:.0f} % of them refused as unknown"
    if not found.is_answered.any():
        return refused
    return f"{refused}; of the others {100 * found.answered_accuracy:.1f} % right, and {sure}"


def check(options: argparse.Namespace) -> int:
    """Estimate how good a classifier will be, from its support alone."""
    model = load(options)
    found = model.check()
    facts = found.to_dict()
    facts["classes"] = filled(facts["classes"])
    give(_with_counts(facts), options, facts)
    if options.report:
        write_check(options.report, found, options.dir)
    if not is_piped(options):
        say("", *_summary(found, model, options))
    return 0


def _summary(found: CheckResult, model: FewShotImageClassifier, options: argparse.Namespace) -> Iterator[str]:
    """Yield what `check` says below its table."""
    yield f"{found}"
    if found.refused is not None:
        said = "that is" if found.refused else "none of these is refused as unknown by"
        yield f"{said} --reject {model.reject}{milder_rule(model, found.refused, options.dir)}"
    yield f"with twice the images, {100 * found.expected(2):.0f} %"
    yield "expect more of others if fewshot suggest or Label next picked many of these: they choose hard images"
    if worst := [f"{a} and {b} ({n} of {of})" for a, b, n, of, _ in found.confused.head(3).itertuples(index=False)]:
        yield f"taken for each other: {', '.join(worst)}"
    most = [(label, points) for label, points in list(found.gains["gain"].items())[:3] if points >= WORTH]
    if needy := [f"{label} (+{100 * points:.0f} points with twice)" for label, points in most]:
        yield f"more images help most: {', '.join(needy)}"
    if len(found.suspects):
        yield f"perhaps of another class: {counted(len(found.suspects), 'image')}: fewshot audit {typed(options.dir)}"
    if found.near_duplicates:
        yield f"nearly the same: {counted(len(found.near_duplicates), 'pair')} of images"
    if found.alone:
        yield f"not checked, because they have one image: {listed(found.alone)}"
    if options.report:
        yield f"pictures: {options.report}"


def _with_counts(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of classes for people: with all that a class was taken for, and how often, most often first."""
    wrong: dict[Any, list[tuple[int, Any]]] = {}
    for one in facts["confusion"]:
        if one["class"] != one["answer"]:
            wrong.setdefault(one["class"], []).append((one["images"], one["answer"]))
    told = {label: sorted(pairs, key=lambda pair: -pair[0]) for label, pairs in wrong.items()}
    return [
        {**row, "taken for": ", ".join(f"{answer} ({n})" for n, answer in told.get(row["class"], []))}
        for row in facts["classes"]
    ]


def calibrate(options: argparse.Namespace) -> int:
    """Refine the probabilities of a classifier, and choose what is unknown."""
    _refuse_contradictions(options)
    refuse_existing(options)
    model, out = load(options), options.out or options.dir
    back = way_back(out) if is_artifact(out) else ""
    change = looking if options.dry_run else changing
    if options.clear:
        with change(options, model, "clear calibration", options.out) as model:
            model.clear_calibration().set_params(reject=None)
        facts: dict[str, Any] = {"classifier": out, "calibration": None, "reject": None}
        done = f"{out} is not calibrated, and answers every image with a class{back}"
        finish(options, facts, _end(options, done))
        return 0
    held_out, examples, rule = _given(options, model)
    rate = 5.0 if options.false_accepts is None else options.false_accepts
    settings = {"false_accept_rate": rate / 100, "n_episodes": options.episodes, "seed": options.seed}
    with change(options, model, "calibrate", options.out) as model:
        if held_out is not None or examples is not None:
            model.calibrate(held_out, reject_examples=examples, **settings)
        if held_out is not None:
            _say_calibration(model.calibration_, len(np.unique(held_out.labels)))
        costs = None if rule is None else reject(model, rule)
        if rule is None and model.reject is None:
            say("no image is answered unknown; --reject says which should be")
    if options.report and held_out is not None:
        write_calibration(options.report, model.calibration_, options.dir)
        say(f"figures: {options.report}")
    facts = {"classifier": out, "calibration": None, "reject": costs}
    if held_out is not None:
        facts["calibration"] = {**model.calibration_.to_dict(), "score": model.calibration_.score}
    finish(options, facts, _end(options, f"written to {out}{back}"))
    return 0


def _end(options: argparse.Namespace, done: str) -> str:
    """Return the last line of calibrating: what was `done`, or that it was not."""
    return f"{options.dir} stays as it is; without --dry-run, this takes effect" if options.dry_run else done


def _refuse_contradictions(options: argparse.Namespace) -> None:
    """Raise if an option would be ignored."""
    given = {
        "DATA": options.data, "--none-of-these": options.none_of_these, "--reject": options.reject,
        "--report": options.report, "--keep-answering": options.keep_answering or None,
    }  # fmt: skip
    there = [name for name, value in given.items() if value is not None]
    if options.clear and there:
        raise ValueError(f"--clear forgets everything, so {', '.join(there)} would be ignored; give one or the other")
    if options.keep_answering and options.reject is not None:
        raise ValueError("--keep-answering means --reject none; give one of them")


def _given(options: argparse.Namespace, model: FewShotImageClassifier) -> tuple[Any, Any, str | None]:
    """Return the embedded images of DATA and of --none-of-these, and the rule of --reject."""
    rule = "none" if options.keep_answering else options.reject
    if rule == "auto" and options.data is None and options.false_accepts is not None:
        rule = f"{options.false_accepts:g}%"  # there is no calibration to keep it
    if options.data is None and options.none_of_these is None and rule is None:
        raise ValueError("there is nothing to do; give DATA, --none-of-these, --reject or --clear")
    if options.report and options.data is None:
        raise ValueError(
            "--report shows a calibration, which needs DATA; give a folder of held-out classes, or leave out --report"
        )
    if rule not in (None, "none"):
        unknown_mark(model.unknown_label, model.classes_)  # raises before anything is embedded
    snapshot, held_out, examples = model.snapshot("skip" if options.skip_unreadable else None), None, None
    if options.data is not None:
        held_out = snapshot.prepare(_open_held_out(options), None, None, "calibrate")
    if options.none_of_these is not None:
        examples = snapshot.prepare_examples(list_paths([options.none_of_these], options.skip_unreadable))
    return held_out, examples, rule


def _open_held_out(options: argparse.Namespace) -> LabeledImages:
    """Return the images of DATA; images in no class folder are probably meant for --none-of-these."""
    try:
        return open_data(options.data, options)[0]
    except ValueError as error:
        if not os.path.isdir(options.data) or any(entry.is_dir() for entry in os.scandir(options.data)):
            raise
        raise ValueError(f"{error}; if they are none of the classes: --none-of-these {typed(options.data)}") from None


def _say_calibration(found: Calibration, n_classes: int) -> None:
    """Print what calibrating did to the probabilities."""
    error = f"calibration error  {100 * found.ece_before:.1f} points before, {100 * found.ece_after:.1f} after"
    if found.temperature == 1:
        few = f"fewer than {FEWEST_CLASSES} classes tell too little" if n_classes < FEWEST_CLASSES else ""
        why = few or "no temperature was surely better on held-out classes"
        error = f"calibration error  {100 * found.ece_before:.1f} points; {why}, so probabilities stay"
    say(
        error,
        f"known or unknown   AUROC {found.auroc:.3f}; if 95 % of known images are accepted, "
        f"{100 * found.fpr_at_95:.0f} % of unknown ones are too",
    )


def audit(options: argparse.Namespace) -> int:
    """List support images that may do harm."""
    model = load(options)
    frame = model.audit()
    reasons = suspects(frame)
    found = frame.loc[[place for place, _ in reasons]]
    rows = [{**row, "why": why} for row, (_, why) in zip(suspect_rows(found), reasons, strict=True)]
    columns = ("image", "class", "why", "false alarm")
    give([{name: row[name] for name in columns} for row in rows], options, rows, columns=columns)
    if not is_piped(options):
        n_near = int((frame["near_duplicate_of"] != "").sum())
        say(
            f"{len(found)} of {counted(len(frame), 'image')} to check; about "
            f"{100 * frame.attrs['false_alarms']:.1f} % of right images look as suspect",
            *([f"nearly the same as another: {counted(n_near, 'image')}"] if n_near else []),
        )
    if options.report:
        write_audit(options.report, model, frame, options.dir)
        if not is_piped(options):
            say(f"pictures: {options.report}")
    return 0
