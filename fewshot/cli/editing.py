"""``fewshot remove``, ``rename`` and ``merge``: what a classifier knows is changed afterwards."""

from __future__ import annotations

import argparse

from fewshot.artifact import is_artifact
from fewshot.cli.models import as_label, list_paths, load, n_classes, n_images, quoted
from fewshot.cli.terminal import say
from fewshot.model.image_classifier import FewShotImageClassifier


def remove(options: argparse.Namespace) -> int:
    """Remove a class, or some of its images."""
    model = load(options)
    label = as_label(model, options.label)
    if options.images is None:
        model.remove_class(label).save(options.dir)
        say(f"{quoted(options.label)} is removed; {n_classes(len(model.classes_))} left")
        return 0
    before = int(model.n_support_.sum())
    support = model.support_
    known = set() if support is None else {support.ids[place] for place in support.places(label)}
    if set(options.images) <= known:
        model.remove_support(options.images)  # by name: the files may be gone
    else:
        paths = list_paths(options.images)
        model.remove(paths, [label] * len(paths))
    model.save(options.dir)
    gone = before - int(model.n_support_.sum())
    say(f"{n_images(gone)} of {quoted(options.label)} removed; {n_classes(len(model.classes_))} left")
    return 0


def rename(options: argparse.Namespace) -> int:
    """Give a class another label."""
    model = load(options)
    model.rename_class(as_label(model, options.label), as_label(model, options.new)).save(options.dir)
    say(f"{quoted(options.label)} is called {quoted(options.new)} now")
    return 0


def merge(options: argparse.Namespace) -> int:
    """Join what several classifiers know."""
    if options.out is not None and is_artifact(options.out) and not options.force:
        raise ValueError(f"{options.out} holds a classifier already; give --force to replace it, or another --out")
    model = load(options)
    for other in options.others:
        model.merge(FewShotImageClassifier.load(other, device=options.device))
    out = options.out or options.dir
    model.save(out)
    n = int(model.n_support_.sum())
    say(f"{n_classes(len(model.classes_))} from {n_images(n)}; written to {out}")
    return 0
