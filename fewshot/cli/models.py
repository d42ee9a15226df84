"""The commands on a classifier in a folder: ``fewshot fit`` makes it, the others change, use, show and check it."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fewshot.classifiers.reject_rule import LOOKS_LIKE_A_RATE
from fewshot.cli.inputs import (
    as_label,
    beside,
    list_paths,
    open_data,
    refuse_existing,
    refuse_of_labelled,
    take_unknown_label,
)
from fewshot.cli.tables import finish, give, without_same
from fewshot.cli.terminal import complain, is_piped, plugged, quoted, say, typed, way_back
from fewshot.data.images import list_splits
from fewshot.data.tiles import tiles
from fewshot.embedding.embedder import Embedder
from fewshot.errors import ImageDecodeError, called
from fewshot.images.checked import CheckResult
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.images.pages import write_answers
from fewshot.images.sets import Promise
from fewshot.persistence.artifact import is_artifact, writing
from fewshot.persistence.files import check_file
from fewshot.utils.labels import refuse_file, unknown_mark
from fewshot.utils.text import counted

#: Share of the images of known classes from which on it is too many to answer unknown without a word of a cure.
MOST = 0.5


def fit(options: argparse.Namespace) -> int:
    """Learn the classes of a folder and write the classifier."""
    refuse_existing(options)
    embedder, is_new = make_embedder(options), not is_artifact(options.out)
    _ = embedder.fingerprint  # fail now, not after scanning a folder of images
    on_error: Literal["skip", "raise"] = "skip" if options.skip_unreadable else "raise"
    model = FewShotImageClassifier(embedder, options.learner, on_error=on_error, unknown_label=options.unknown_label)
    (data, split), start = open_data(options.folder, options), time.perf_counter()
    if options.unknown_label is not None or options.reject not in (None, "none"):
        unknown_mark(options.unknown_label, data.classes)
    none = None if options.none_of_these is None else list_paths([options.none_of_these], options.skip_unreadable)
    model.fit(data, reject_examples=none)
    with writing(options.out, "classifier"):
        refuse_existing(options)  # another process may have been faster
        n = int(model.n_support_.sum())
        model.save(
            options.out, weights="reference" if options.reference else "embed", note=f"fit {counted(n, 'image')}"
        )
    expected = _expected(model)
    facts = {"classifier": options.out, "classes": len(model.classes_), "images": n, "reject": None,
             "accuracy": None if expected is None else expected.accuracy,
             "interval": None if expected is None else expected.interval}  # fmt: skip
    splits = [] if split else list_splits(options.folder)
    one = "only one class: it is the answer to every image until you add another (fewshot add)"
    say(
        f"learned {counted(len(model.classes_), 'class')} from {counted(n, 'image')} "
        f"in {time.perf_counter() - start:.1f} s",
        *([one] if len(model.classes_) == 1 else []),
        *([] if expected is None else [f"{expected}: fewshot check {typed(options.out)}"]),
        *([f"learned all splits ({', '.join(splits)}); --split NAME selects one"] if splits else []),
        *([] if is_new else [f"replaced a classifier{way_back(options.out)}"]),
        f"written to {options.out}; now: fewshot predict {typed(options.out)} IMAGES...{plugged(options)}",
    )
    if options.reject is not None:  # last, since it may be impossible, and nothing must be lost then
        with writing(options.out, "classifier"):
            facts["reject"] = reject(model, options.reject)
            model.save(options.out, note=f"reject {options.reject}")
    finish(options, facts)
    return 0


def reject(model: FewShotImageClassifier, rule: str) -> dict[str, Any]:
    """Print what a rule of --reject costs, set it, and return both."""
    costs: dict[str, Any] = {}
    if rule == "none":
        say("every image is answered with a class")
    else:
        label, found = unknown_mark(model.unknown_label, model.classes_), model.rejection(rule)
        costs = found.to_dict()
        say(
            f"--reject {rule}: {found}",
            *_meant(rule),
            *_milder(model, rule, found.false_reject_rate),
            f"unknown images are answered {quoted(str(label))}",
        )
    model.set_params(reject=None if rule == "none" else rule)
    return {"rule": rule, **costs}


def _meant(rule: str) -> Iterator[str]:
    """Yield what a tiny percentage, such as 0.05, may be meant as."""
    if rule.endswith("%") and 0 < (percent := float(rule[:-1])) <= LOOKS_LIKE_A_RATE:
        yield f"{percent:g} is a percentage; if {100 * percent:g} % are meant, give --reject {100 * percent:g}"


def _milder(model: FewShotImageClassifier, rule: str, refused: float) -> Iterator[str]:
    """Yield what "balanced" would cost, if a rule refuses most images of known classes and "balanced" fewer."""
    if refused > MOST and rule != "balanced":
        found = model.rejection("balanced")
        if found.false_reject_rate < refused:
            yield (
                f"that is most of them; --reject balanced would answer {100 * found.false_reject_rate:.0f} of 100 "
                f"unknown, and take {100 * found.false_accept_rate:.0f} % of unknown images for a class"
            )


def milder_rule(model: FewShotImageClassifier, refused: float, folder: str) -> str:
    """Return how to refuse fewer, as the end of a sentence, if most images of known classes are refused."""
    is_mild = refused <= MOST or model.reject == "balanced"
    return "" if is_mild else f"; for fewer: fewshot calibrate {typed(folder)} --reject balanced"


def _expected(model: FewShotImageClassifier) -> CheckResult | None:
    """Return what to expect of a new classifier; None if it cannot be checked."""
    try:
        return model.check(n_shown=0)
    except (ValueError, TypeError, RuntimeError):  # such as one image a class; the classifier is written already
        return None


def add(options: argparse.Namespace) -> int:
    """Add images of a class."""
    model = load(options)
    label = as_label(model, options.label)
    refuse_file(options.label, model.classes_)
    paths = list_paths(options.images, options.skip_unreadable)
    start = time.perf_counter()
    snapshot = model.snapshot("skip" if options.skip_unreadable else None)
    prepared = snapshot.prepare(paths, [label] * len(paths), None, "partial_fit")
    with changing(options, model, f"add {counted(len(prepared.labels), 'image')} of {label}") as model:
        label = as_label(model, options.label)
        known, before = label in model.classes_.tolist(), int(model.n_support_.sum())
        model.partial_fit(replace(prepared, labels=[label] * len(prepared.labels)))
        if options.unknown_label is not None:
            unknown_mark(model.unknown_label, model.classes_)
        seconds = time.perf_counter() - start
    n = int(model.n_support_[model.classes_.tolist().index(label)])
    new = f"has {counted(n, 'image')} now" if known else f"is a new class{beside(label, model.classes_)}"
    learned = f"learned {counted(int(model.n_support_.sum()) - before, 'image')} in {1000 * seconds:.0f} ms"
    facts = {"classifier": options.dir, "class": label, "is_new": not known, "images": n,
             "learned": int(model.n_support_.sum()) - before, "classes": len(model.classes_)}  # fmt: skip
    said = f"{quoted(label)} {new}: {learned}; {counted(len(model.classes_), 'class')}{way_back(options.dir)}"
    finish(options, facts, said)
    return 0


def merge(options: argparse.Namespace) -> int:
    """Merge several classifiers into one."""
    refuse_existing(options)
    model = load(options)
    if classes := [name for name in options.others if not os.path.exists(name) and name in model.classes_.tolist()]:
        raise ValueError(
            f"{classes[0]!r} is a class of {options.dir}, and merge joins classifiers; to join two classes: fewshot "
            f"rename {typed(options.dir)} {typed(classes[0])} NEW --merge"
        )
    others = [FewShotImageClassifier.load(other, device=options.device) for other in options.others]
    out, note = options.out or options.dir, f"merge {counted(len(others), 'classifier')}"
    is_new = not is_artifact(out)
    with changing(options, model, note, options.out) as model:
        for other in others:
            model.merge(other)
    n, undone = int(model.n_support_.sum()), "" if is_new else way_back(out)
    facts = {"classifier": out, "classes": len(model.classes_), "images": n}
    said = f"{counted(len(model.classes_), 'class')} from {counted(n, 'image')}; written to {out}{undone}"
    finish(options, facts, said)
    return 0


def predict(options: argparse.Namespace) -> int:
    """Classify images; exit with 1 if one could not be read."""
    if options.held_out is None:
        refuse_of_labelled(options, options.images)
    model = load(options).set_params(on_error="unknown")
    promise = _promise(model, options)
    images = list_paths(options.images, root=options.root)
    if options.tiles:
        images = [part for image in images for part in _tiles(image, options.tiles)]
    answers = model.answer(images, top=max(options.top, 3 if options.report else 1), promise=promise)
    rows: list[dict[str, Any]] = []
    n_shown = min(options.top, len(model.classes_))
    for answer in answers:
        row: dict[str, Any] = {"image": answer.id, "label": "" if answer.error else answer.label}
        for place, (label, share) in enumerate((answer.ranking + [("", None)] * n_shown)[:n_shown], start=1):
            row |= {"likeliest" if place == 1 else f"class {place}": label}
            row |= {"probability" if place == 1 else f"probability {place}": share}
        held = {} if answer.label_set is None else {"set": answer.label_set}
        rows.append({**row, **held, "error": answer.error.reason if answer.error else ""})
    give(rows, options, shown=without_same(rows, "likeliest", "label"))
    if options.report:
        write_answers(options.report, model, answers, options.dir)
        if not is_piped(options):
            say(f"pictures: {options.report}")
    unreadable = [answer.error for answer in answers if answer.error is not None]
    misplaced = next((error for error in unreadable if not error.can_skip), None)  # its cure is that of all
    lines = (str(one) if one is misplaced else f"{called(one.source)}: {one.reason}" for one in unreadable)
    for told in dict.fromkeys(lines):  # once for all its tiles
        complain(told)
    return 1 if unreadable else 0


def _tiles(image: Any, side: int) -> list[Any]:
    """Return the tiles of a picture; of a box, and of what cannot be read, which `answer` will tell, itself."""
    try:
        return list(tiles(image, side)) if isinstance(image, (str, os.PathLike)) else [image]
    except ImageDecodeError:
        return [image]


def _promise(model: FewShotImageClassifier, options: argparse.Namespace) -> Promise | None:
    """Return what sets were asked for."""
    if options.coverage is None:
        if options.by_class or options.held_out:
            raise ValueError("--by-class and --held-out are about --coverage; give it, such as --coverage 0.9")
        return None
    if options.held_out is None:
        return Promise(options.coverage, options.by_class)
    data, _ = open_data(options.held_out, options)
    labels = [as_label(model, name) if isinstance(name, str) else name for name in data.labels.tolist()]
    return Promise(options.coverage, options.by_class, (data.images, labels))


def make_embedder(options: argparse.Namespace) -> Embedder:
    """Return the embedder that the options describe."""
    if options.checkpoint:
        check_file(options.checkpoint, "a checkpoint, such as RUN/best.safetensors")
    if options.cache and not Path(options.cache).is_dir() and Path(options.cache).exists():
        raise ValueError(f"--cache {options.cache} is a file; expected a folder")
    return Embedder(
        Path(options.checkpoint) if options.checkpoint else options.backbone,
        weights=options.weights,
        pretrained=options.pretrained,
        img_size=options.size,
        bits=options.bits,
        crop=options.crop,
        views=options.views,
        device=options.device,
        cache=options.cache,
        progress=not options.quiet,
        domain=getattr(options, "domain", None),
    )


def load(options: argparse.Namespace) -> FewShotImageClassifier:
    """Load the classifier in DIR."""
    model = FewShotImageClassifier.load(options.dir, device=options.device)
    model.embedder_.set_params(progress=not options.quiet)
    take_unknown_label(model, options)
    return model


@contextmanager
def changing(
    options: argparse.Namespace, model: FewShotImageClassifier, note: str, out: str | None = None
) -> Iterator[FewShotImageClassifier]:
    """Lock DIR, yield its classifier for a change, and save it; `note` is for ``fewshot history``.

    `model` was loaded before the lock was taken; it is loaded again if another process has changed DIR since. With
    `out`, the result is written there, and DIR stays as it is.
    """
    if out is not None and os.path.realpath(out) != os.path.realpath(options.dir):
        yield model
        with writing(out, "classifier"):
            refuse_existing(options)  # another process may have been faster
            model.save(out, overwrite=True, note=note)
        return
    with writing(options.dir, "classifier"):
        now = model if model.is_saved_in(options.dir) else load(options)
        yield now
        now.save(options.dir, note=note)


@contextmanager
def looking(
    options: argparse.Namespace, model: FewShotImageClassifier, note: str, out: str | None = None
) -> Iterator[FewShotImageClassifier]:
    """Yield a classifier for a change like `changing`, and save nothing."""
    yield model
