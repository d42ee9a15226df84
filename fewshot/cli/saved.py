"""The commands that show or edit a classifier without using it: they load neither torch nor the network if they can."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fewshot.cli.inputs import as_label, beside, list_paths, take_unknown_label
from fewshot.cli.tables import as_facts, finish, give
from fewshot.cli.terminal import is_piped, put, quoted, say, terminal_width, typed, way_back
from fewshot.images.history import read_history
from fewshot.images.stored import StoredModel, described
from fewshot.persistence.artifact import size_of, version_of, writing
from fewshot.utils.text import counted


def show(options: argparse.Namespace) -> int:
    """Show a classifier."""
    model = StoredModel.open(options.dir)
    facts = _facts(model, options)
    rows = [
        {"class": label, "images": n}
        for label, n in zip(model.classes_.tolist(), model.n_support_.tolist(), strict=True)
    ]
    if not is_piped(options):
        put(as_facts(facts, terminal_width()) + "\n")
    give(rows, options, {**facts, "class_counts": rows})
    if options.report:
        from fewshot.cli.models import load
        from fewshot.images.pages import write_classes

        write_classes(options.report, load(options), facts, options.dir)
        if not is_piped(options):
            say("", f"pictures: {options.report}")
    return 0


def _facts(model: StoredModel, options: argparse.Namespace) -> dict[str, Any]:
    """Return the facts about a classifier, in display order."""
    if (known := model.shown) is None:  # an earlier version has saved it
        from fewshot.cli.models import load

        loaded = load(options)
        known = {**described(loaded.snapshot()), "fingerprint": loaded.embedder_.fingerprint[:16]}
    fingerprint = known.pop("fingerprint")
    n_others = len(read_history(options.dir)) - 1
    return {
        "classifier": options.dir,
        "classes": len(model.classes_),
        "images": int(model.n_support_.sum()),
        **known,
        "size": f"{size_of(options.dir) / 1e6:.1f} MB",
        "history": f"{counted(n_others, 'other version')}: fewshot history {typed(options.dir)}",
        "fingerprint": fingerprint,
    }


def rename(options: argparse.Namespace) -> int:
    """Give a class another label."""

    def joins(model: Any) -> bool:
        return (
            options.merge and options.new != options.label and as_label(model, options.new) in model.classes_.tolist()
        )

    with _editing(options, f"rename {options.label} to {options.new}", lambda model: not joins(model)) as model:
        new, joined = as_label(model, options.new), joins(model)
        model.rename_class(as_label(model, options.label), new, **({"merge": True} if joined else {}))
        twin = beside(new, model.classes_)
        n = model.n_support_[model.classes_.tolist().index(new)]
    said = f"joined to {quoted(new)}, which has {counted(n, 'image')}" if joined else f"called {quoted(new)}{twin}"
    facts = {"classifier": options.dir, "class": options.label, "new": new}
    finish(options, facts, f"{quoted(options.label)} is now {said}{way_back(options.dir)}")
    return 0


def remove(options: argparse.Namespace) -> int:
    """Remove a class, or some of its images."""
    if options.images is not None:
        return _remove_images(options)
    with _editing(options, f"remove {options.label}") as model:
        before = int(model.n_support_.sum())
        model.remove_class(as_label(model, options.label))
    said = f"{quoted(options.label)} removed; {counted(len(model.classes_), 'class')} left{way_back(options.dir)}"
    finish(options, _removed(options, model, before), said)
    return 0


def _removed(options: argparse.Namespace, model: Any, before: int) -> dict[str, Any]:
    gone = before - int(model.n_support_.sum())
    return {"classifier": options.dir, "class": options.label, "images": gone, "classes": len(model.classes_)}


def _remove_images(options: argparse.Namespace) -> int:
    """Remove images of a class: by name, because the files may be gone, or else by their embeddings."""
    stored, images = StoredModel.open(options.dir), options.images
    label, support = as_label(stored, options.label), stored.support_
    names = [] if support is None else [support.ids[place] for place in support.places(label)]
    _refuse_strangers(images, names, label)
    if support is not None and set(images) <= set(names):
        note = f"remove {counted(len(images), 'image')} of {options.label}"
        with _editing(options, note, lambda model: model.find_rows(images, label) is not None) as model:
            before = int(model.n_support_.sum())
            model.remove_support(images, label=label)
    else:
        from fewshot.cli.models import changing, load

        loaded, paths = load(options), list_paths(images)
        prepared = loaded.prepare(paths, [label] * len(paths), then="remove")
        with changing(options, loaded, f"remove {counted(len(prepared.labels), 'image')} of {options.label}") as model:
            before = int(model.n_support_.sum())
            model.remove(prepared)
    gone, left = before - int(model.n_support_.sum()), f"{counted(len(model.classes_), 'class')} left"
    said = f"{counted(gone, 'image')} of {quoted(options.label)} removed; {left}{way_back(options.dir)}"
    finish(options, _removed(options, model, before), said)
    return 0


def _refuse_strangers(images: list[str], names: list[str], label: Any) -> None:
    """Refuse what is no file and no image of the class, and name the one that it may mean."""
    known = set(names)
    for image in images:
        if image in known or os.path.lexists(image):
            continue
        own = os.path.basename(image)
        like = next((name for name in names if own and os.path.basename(name).startswith(own)), "")
        hint = f"; did you mean {quoted(like)}?" if like else ""
        raise ValueError(f"{quoted(image)} is neither a file nor the name of an image of {quoted(label)}{hint}")


def calibrate(options: argparse.Namespace) -> int:
    """Refine the probabilities of a classifier and choose what is unknown, or forget that."""
    others = (options.out, options.data, options.none_of_these, options.reject, options.report, options.keep_answering)
    if not options.clear or options.dry_run or any(others):
        from fewshot.cli import trust

        return trust.calibrate(options)
    with _editing(options, "clear calibration") as model:
        model.clear_calibration().set_params(reject=None)
    said = f"{options.dir} is not calibrated, and answers every image with a class{way_back(options.dir)}"
    finish(options, {"classifier": options.dir, "calibration": None, "reject": None}, said)
    return 0


@contextmanager
def _editing(
    options: argparse.Namespace, note: str, can: Callable[[StoredModel], bool] = lambda _: True
) -> Iterator[Any]:
    """Lock DIR, yield its classifier for a change, and save it; `note` is for ``fewshot history``.

    It is a `StoredModel` if that can be changed, and else one with its network, which takes seconds to load.
    """
    model = StoredModel.open(options.dir)
    take_unknown_label(model, options)  # raises before anything is locked
    if not (model.is_editable and can(model)):
        from fewshot.cli.models import changing, load

        with changing(options, load(options), note) as loaded:
            yield loaded
        return
    with writing(options.dir, "classifier"):
        if model.version != version_of(options.dir):
            model = StoredModel.open(options.dir)
            take_unknown_label(model, options)
        yield model
        model.save(note)
