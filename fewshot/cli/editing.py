"""``fewshot add``, ``remove``, ``rename`` and ``merge``: changes to a classifier in a folder."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

from fewshot.cli.models import as_label, changing, list_paths, load, refuse_existing
from fewshot.cli.terminal import n_classes, n_images, quoted, say
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.persistence.artifact import writing
from fewshot.utils.labels import unknown_mark


def add(options: argparse.Namespace) -> int:
    """Add images of a class."""
    model = load(options)
    paths = list_paths(options.images, options.skip_unreadable)
    start = time.perf_counter()
    snapshot = model.snapshot("skip" if options.skip_unreadable else None)
    prepared = snapshot.prepare(paths, [as_label(model, options.label)] * len(paths), None, "partial_fit")
    with changing(options, model) as model:
        label = as_label(model, options.label)
        known, before = label in model.classes_.tolist(), int(model.n_support_.sum())
        model.partial_fit(replace(prepared, labels=[label] * len(prepared.labels)))
        if options.unknown_label is not None:
            unknown_mark(model.unknown_label, model.classes_)
        seconds = time.perf_counter() - start
    n = int(model.n_support_[model.classes_.tolist().index(label)])
    new = f"has {n_images(n)} now" if known else "is a new class"
    learned = f"learned {n_images(int(model.n_support_.sum()) - before)} in {1000 * seconds:.0f} ms"
    say(f"{quoted(label)} {new}: {learned}; {n_classes(len(model.classes_))}")
    return 0


def remove(options: argparse.Namespace) -> int:
    """Remove a class, or some of its images."""
    model = load(options)
    if options.images is None:
        with changing(options, model) as model:
            model.remove_class(as_label(model, options.label))
        say(f"{quoted(options.label)} removed; {n_classes(len(model.classes_))} left")
        return 0
    prepared = None
    if not _are_known(model, options):
        paths = list_paths(options.images)
        prepared = model.prepare(paths, [as_label(model, options.label)] * len(paths), then="remove")
    with changing(options, model) as model:
        before = int(model.n_support_.sum())
        if prepared is None:
            # By name, because the files may be gone.
            model.remove_support(options.images, label=as_label(model, options.label))
        else:
            model.remove(prepared)
    gone = before - int(model.n_support_.sum())
    say(f"{n_images(gone)} of {quoted(options.label)} removed; {n_classes(len(model.classes_))} left")
    return 0


def _are_known(model: FewShotImageClassifier, options: argparse.Namespace) -> bool:
    """Whether all images are given by the names under which they were learned."""
    support = model.support_
    if support is None:
        return False
    return set(options.images) <= {support.ids[place] for place in support.places(as_label(model, options.label))}


def rename(options: argparse.Namespace) -> int:
    """Give a class another label."""
    with changing(options, load(options)) as model:
        model.rename_class(as_label(model, options.label), as_label(model, options.new))
    say(f"{quoted(options.label)} is now called {quoted(options.new)}")
    return 0


def merge(options: argparse.Namespace) -> int:
    """Merge several classifiers into one."""
    refuse_existing(options)
    model = load(options)
    others = [FewShotImageClassifier.load(other, device=options.device) for other in options.others]
    if options.out is None or os.path.realpath(options.out) == os.path.realpath(options.dir):
        with changing(options, model) as model:
            _merge(model, others)
    else:
        _merge(model, others)
        with writing(options.out, "classifier"):
            refuse_existing(options)  # another process may have been faster
            model.save(options.out, overwrite=True)
    n = int(model.n_support_.sum())
    say(f"{n_classes(len(model.classes_))} from {n_images(n)}; written to {options.out or options.dir}")
    return 0


def _merge(model: FewShotImageClassifier, others: list[FewShotImageClassifier]) -> None:
    for other in others:
        model.merge(other)
