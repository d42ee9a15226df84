"""The commands on labelling: ``fewshot suggest``, ``export-labels`` and ``import-labels``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from fewshot.cli.options import COLUMNS, SPREADSHEET, TABLES, backbone, count, report, seed, shared


def suggest_options(suggest: argparse.ArgumentParser) -> None:
    """Define ``fewshot suggest``."""
    suggest.description = (
        "Choose the images of FOLDER to label next, the best first. They cover the folder, and first of all what the "
        "classifier in DIR is unsure of. Without DIR, nothing is labelled yet, and the options of fewshot fit choose "
        "the network. Images that were learned already and copies are left out."
    )
    suggest.add_argument("dir", nargs="?", metavar="DIR", help="a classifier")
    suggest.add_argument("folder", metavar="FOLDER", help="images without labels, in folders of any depth")
    suggest.add_argument("-k", type=count, default=20, metavar="K", help="how many (default: %(default)s)")
    known = ("uncertainty-herding", "herding", "typiclust", "probcover", "k-center", "margin", "entropy", "random")
    suggest.add_argument("--strategy", choices=known, default=known[0], help="how to choose (default: %(default)s)")
    suggest.add_argument("--seed", type=seed, default=0, help="seed of random choices (default: %(default)s)")
    backbone(suggest)
    report(suggest, "pictures")
    shared(suggest, "--cache", *TABLES, "--device", "--max-pixels", "--quiet")


def suggest(options: argparse.Namespace) -> int:
    """Choose the images to label next; those that cannot be read are left out, with a warning."""
    from fewshot.cli.inputs import list_paths
    from fewshot.cli.models import load, make_embedder
    from fewshot.cli.tables import filled, give, without_same
    from fewshot.cli.terminal import is_piped, say
    from fewshot.images.image_classifier import FewShotImageClassifier
    from fewshot.images.suggesting.page import write_suggestions

    paths = list_paths([options.folder], skip_unreadable=True)
    if options.dir is None:
        model = FewShotImageClassifier(make_embedder(options))
    else:
        refuse_network(options)
        model = load(options)
        model.embedder_.set_params(cache=options.cache)
    model.set_params(on_error="skip")
    found = model.suggest(paths, options.k, strategy=options.strategy, seed=options.seed)
    rows = filled([{name: value for name, value in one.to_dict().items() if name != "row"} for one in found])
    give(rows, options, shown=without_same(rows, "likeliest", "answer"))
    if options.report:
        write_suggestions(options.report, found, options.dir)
    if not is_piped(options):
        say(
            "",
            f"{len(found)} of {len(paths)} images to label next",
            "they are harder than most: with many of them learned, fewshot check expects too little, and test tells",
        )
        if options.report:
            say(f"pictures: {options.report}")
    return 0


def refuse_network(options: argparse.Namespace) -> None:
    """Raise if options choose a network although the classifier has its own."""
    usual = argparse.ArgumentParser()
    backbone(usual)
    for name, value in vars(usual.parse_args([])).items():
        if getattr(options, name) != value:
            raise ValueError(f"{options.flags[name][0]} is for a folder without DIR; {options.dir} has its own network")


def export_labels_options(export: argparse.ArgumentParser) -> None:
    """Define ``fewshot export-labels``."""
    export.description = (
        "Write images to label for other tools, with the answers of a classifier to begin with. Without IMAGES, those "
        "that the classifier has learned, with their labels; --format csv writes the names of those that are no files "
        "here, such as pictures taught on the page of fewshot serve. IMAGES may be a table of fewshot suggest --csv. "
        "For Label Studio, FILE.xml is the labelling interface to paste."
    )
    export.add_argument("images", nargs="*", metavar="IMAGES", help="image files, folders of them, or tables (.csv)")
    export.add_argument("--model", metavar="DIR", help="a classifier, whose answers are pre-annotations")
    export.add_argument(
        "--format", required=True, choices=("label-studio", "fiftyone", "csv", "folders"),
        help="tasks as JSON, a data set, a table, or a folder of links for each class",
    )  # fmt: skip
    export.add_argument("--out", required=True, metavar="PATH", help="the file, or the folder")
    export.add_argument(
        "--root", metavar="DIR", help="LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT of Label Studio (default: /)"
    )
    export.add_argument("--copy", action="store_true", help="in folders, copies instead of links")
    shared(export, *SPREADSHEET, "--json", "--device", "--max-pixels", "--quiet")


def export_labels(options: argparse.Namespace) -> int:
    """Write images with labels and answers."""
    from fewshot.cli.tables import csv_form, finish
    from fewshot.cli.terminal import typed
    from fewshot.integrations.label_formats import write_labels
    from fewshot.integrations.labels import answered, taught
    from fewshot.utils.text import counted

    for name, wanted in _FOR_FORMAT.items():
        if getattr(options, name) and options.format != wanted:
            raise ValueError(f"{options.flags[name][0]} is for --format {wanted}; leave it out")
    if not options.images and options.model is None:
        raise ValueError("there is nothing to export; give IMAGES, or a classifier with --model")
    tasks = _tasks(options.images)
    if options.model is not None:
        from fewshot.images.image_classifier import FewShotImageClassifier  # loads torch

        model = FewShotImageClassifier.load(options.model, device=options.device)
        model.embedder_.set_params(progress=not options.quiet)
        tasks = answered(model, tasks) if options.images else taught(model)
    settings: dict[str, Any] = {name: value for name in ("root", "copy") if (value := getattr(options, name))}
    if options.format == "csv":
        settings["form"] = csv_form(options)
    if options.model is not None and options.format == "label-studio":
        settings["classes"] = model.classes_.tolist()
    write_labels(tasks, options.out, options.format, **settings)
    there = "--out labelled" if options.model is None else f"--add-to {typed(options.model)}"
    back = "EXPORT" if options.format == "label-studio" else typed(options.out)
    n_labels, n_answers = (sum(getattr(task, name) is not None for task in tasks) for name in ("label", "answer"))
    finish(
        options,
        {"written": options.out, "images": len(tasks), "labels": n_labels, "answers": n_answers},
        f"{counted(len(tasks), 'image')}, {counted(n_labels, 'label')}, {counted(n_answers, 'answer')}; "
        f"written to {options.out}",
        *(_HOW_TO_SERVE if options.format == "label-studio" else ()),
        *([f"then: fewshot import-labels {back} {there}"] if all(task.is_file for task in tasks) else []),
    )
    return 0


#: Options of one format alone.
_FOR_FORMAT = {"root": "label-studio", "copy": "folders", "spreadsheet": "csv", "decimal_comma": "csv"}
#: Most new classes, and images that cannot be used, that messages name.
_NAMED = 10
_HOW_TO_SERVE = (
    "Label Studio serves the images if it runs with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true",
    "and the project has a local storage that holds them; paste the .xml as the labelling interface",
)


def _tasks(images: list[str]) -> list[Any]:
    """Return the images of files, folders and tables, with the labels that tables have."""
    from fewshot.cli.inputs import list_paths
    from fewshot.data.scan import read_csv
    from fewshot.integrations.label_formats import read_label_table
    from fewshot.integrations.labels import Task

    found = []
    for name in images:
        if not name.lower().endswith(".csv"):
            found += [Task(path) for path in list_paths([name])]
            continue
        rows = [{"label": "", **row} for row in read_csv(Path(name)).to_dict("records")]
        read = read_label_table(rows, Path(name).parent, Path())
        if read.problems:
            image, reason = read.problems[0]
            raise ValueError(f"{name} names {image}, but {reason.partition('; ')[0]}; work where its path begins")
        found += [Task(path, label) for path, label in read.labelled] + [Task(path) for path in read.unlabelled]
    return found


def import_labels_options(command: argparse.ArgumentParser) -> None:
    """Define ``fewshot import-labels``."""
    command.description = (
        "Read an export of Label Studio (JSON, JSON-MIN, CSV), a data set of FiftyOne, a table path,label or class "
        "folders. Images without a label, and skipped ones, are counted; those that cannot be used, because of several "
        "labels or a missing file, are named, and the exit status is 1. Images that the classifier has learned under "
        "the same label are not learned again, wherever they lie; under another one, they are corrected. Paths in a "
        "table start in its folder, or else in the working directory."
    )
    command.add_argument("source", metavar="SOURCE", help="the export, or the folder")
    command.add_argument(
        "--out", metavar="PATH", help="write the labels there: a table (.csv) or class folders, for fit"
    )
    command.add_argument("--add-to", metavar="DIR", help="teach them to this classifier")
    command.add_argument(
        "--images",
        metavar="DIR",
        help="where the images lie (default: beside SOURCE, or where they were exported)",
    )
    command.add_argument("--field", metavar="NAME", help="the field that holds the labels, if there are several")
    command.add_argument("--copy", action="store_true", help="in class folders, copies instead of links")
    shared(command, *SPREADSHEET, *COLUMNS, "--skip-unreadable", "--json", "--device", "--max-pixels", "--quiet")


def import_labels(options: argparse.Namespace) -> int:
    """Read labels, write them or teach them; exit with 1 if some cannot be used."""
    from fewshot.cli.tables import finish
    from fewshot.cli.terminal import complain, say, typed
    from fewshot.integrations.label_formats import read_labels, write_labels
    from fewshot.integrations.labels import Task
    from fewshot.utils.text import counted

    if options.out is None and options.add_to is None:
        raise ValueError("say where the labels go: --out PATH, --add-to DIR, or both")
    written_as, model = _written_as(options), _added_to(options)
    named = {"field": _field(options), "path_column": options.path_column}
    if model is not None:
        named["unknown"] = _unknown(model)
    found = read_labels(options.source, images=options.images, **named)
    n_classes = len({label for _, label in found.labelled})
    say(
        f"{counted(len(found.labelled), 'image')} of {counted(n_classes, 'class')}; {len(found.unlabelled)} without a "
        f"label, {len(found.problems)} that cannot be used"
    )
    for image, reason in found.problems[:_NAMED]:
        complain(f"{image}: {reason}")
    if (more := len(found.problems) - _NAMED) > 0:
        complain(f"{more} more that cannot be used; --json FILE names all")
    _ = found.data  # raises if there is none
    if options.out is not None:
        tasks = [Task(path, label) for path, label in found.labelled]
        write_labels(tasks, options.out, **written_as)
        say(f"written to {options.out}; now: fewshot fit {typed(options.out)} --out model")
    n_more, n_wrong, taught = (0, 0, []) if model is None else _teach(options, model, found.labelled)
    facts = {"images": len(found.labelled), "classes": n_classes, "unlabelled": len(found.unlabelled),
             "unusable": [{"image": image, "reason": reason} for image, reason in found.problems],
             "written": options.out, "learned": n_more, "forgotten": n_wrong}  # fmt: skip
    finish(options, facts, *taught)
    return 1 if found.problems else 0


def _written_as(options: argparse.Namespace) -> dict[str, Any]:
    """Return the format in which labels are written, and how."""
    from fewshot.cli.tables import csv_form

    is_table = (options.out or "").lower().endswith(".csv")
    for name, place in (("copy", "folders"), ("spreadsheet", "a table (.csv)"), ("decimal_comma", "a table (.csv)")):
        if getattr(options, name) and is_table == (name == "copy"):
            raise ValueError(f"{options.flags[name][0]} is for {place}, and --out names none; leave it out")
    return {"format": "csv", "form": csv_form(options)} if is_table else {"format": "folders", "copy": options.copy}


def _field(options: argparse.Namespace) -> str | None:
    """Return the field, or the column of a table, that holds the labels; None if options name none."""
    columns = options.path_column, options.label_column
    if columns != (None, None) and not options.source.lower().endswith(".csv"):
        raise ValueError(f"{options.source} is no table (.csv); leave out --path-column and --label-column")
    if None not in (options.field, options.label_column):
        raise ValueError("--field and --label-column both name what holds the labels; give one of them")
    field: str | None = options.label_column or options.field
    return field


def _added_to(options: argparse.Namespace) -> Any:
    """Return the classifier of --add-to, or None."""
    options.dir, options.unknown_label = options.add_to, None
    if options.dir is None:
        return None
    from fewshot.cli.models import load  # loads torch

    return load(options)


def _unknown(model: Any) -> str:
    """Return what a classifier answers to images of no class; empty if that is a class of it."""
    from fewshot.utils.labels import unknown_mark

    try:
        return str(unknown_mark(model.unknown_label, model.classes_))
    except ValueError:
        return ""


def _teach(options: argparse.Namespace, model: Any, labelled: list[tuple[str, str]]) -> tuple[int, int, list[str]]:
    """Teach the labels to the classifier; return how many images it learned and forgot, and that in words."""
    from fewshot.cli.inputs import as_label, beside
    from fewshot.cli.models import changing
    from fewshot.cli.terminal import quoted, way_back
    from fewshot.integrations.correcting import changes, learned_files
    from fewshot.utils.text import counted

    known = learned_files(model.support_)
    new = [(path, as_label(model, label)) for path, label in labelled]
    new = [(path, label) for path, label in new if known.get(os.path.realpath(path)) != {label}]
    nothing = 0, 0, [f"{options.dir} has learned all of them already"]
    if not new:
        return nothing
    snapshot = model.snapshot("skip" if options.skip_unreadable else None)
    prepared = snapshot.prepare([path for path, _ in new], [label for _, label in new], None, "partial_fit")
    if changes(model.support_, prepared) == (None, None):
        return nothing
    with changing(options, model, f"import-labels {options.source}") as model:
        before = set(model.classes_.tolist())
        more, wrong = changes(model.support_, prepared)
        all_change = wrong is not None and len(wrong.names) == model.n_support_.sum()
        if wrong is not None and not all_change:
            model.remove(wrong)
        if more is not None:
            model.partial_fit(more)
        if wrong is not None and all_change:  # removed last: a classifier cannot be empty
            model.remove(wrong)
    n_more, n_wrong = (0 if one is None else len(one.names) for one in (more, wrong))
    corrected = f", and forgot {n_wrong} under another label" if n_wrong else ""
    fresh = [label for label in model.classes_.tolist() if label not in before]
    named = [f"{quoted(label)}{beside(label, model.classes_)}" for label in fresh[:_NAMED]]
    more_still = [f"and {len(fresh) - _NAMED} more"] if len(fresh) > _NAMED else []
    new_classes = [f"{counted(len(fresh), 'new class')}: {'; '.join(named + more_still)}"] if fresh else []
    return n_more, n_wrong, [*new_classes, f"learned {counted(n_more, 'image')}{corrected}{way_back(options.dir)}"]
