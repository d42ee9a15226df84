"""``fewshot calibrate`` and ``audit``: how much to trust a classifier."""

from __future__ import annotations

import argparse

from fewshot.cli.inputs import open_data
from fewshot.cli.models import changing, load
from fewshot.cli.tables import give, is_piped
from fewshot.cli.terminal import n_images, say
from fewshot.images.audit import suspects
from fewshot.images.pages import write_audit, write_calibration
from fewshot.utils.labels import unknown_mark


def calibrate(options: argparse.Namespace) -> int:
    """Calibrate a classifier on held-out classes."""
    model, answers = load(options).set_params(reject=None), "always"
    if not options.keep_answering:  # raises before anything is embedded
        answers = f'"{unknown_mark(model.unknown_label, model.classes_)}" below the threshold'
    data, _ = open_data(options.data, options)
    snapshot = model.snapshot("skip" if options.skip_unreadable else None)
    held_out = snapshot.prepare(data, None, None, "calibrate")
    settings = {"false_accept_rate": options.false_accepts / 100, "n_episodes": options.episodes, "seed": options.seed}
    with changing(options, model) as model:
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
        f"{options.dir} answers {answers}",
    )
    return 0


def audit(options: argparse.Namespace) -> int:
    """List support images that may do harm."""
    model = load(options)
    frame = model.audit()
    found = suspects(frame)
    labels = frame["label"].tolist()
    rows = [{"image": frame["id"][place], "class": labels[place], "why": why} for place, why in found]
    give(rows, options)
    if not is_piped(options):
        say(f"{len(found)} of {n_images(len(frame))} to check")
    if options.report:
        write_audit(options.report, model, frame)
        if not is_piped(options):
            say(f"pictures: {options.report}")
    return 0
