"""``fewshot-runtime COMMAND``: answer and learn on a device, without torch."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot._version import __version__
from fewshot.errors import DISTRIBUTION, FewshotError
from fewshot.utils.distributions import doubled
from fewshot.utils.text import counted, printable

if TYPE_CHECKING:
    from fewshot.runtime.classifier import RuntimeClassifier

#: Commands of ``fewshot`` that need torch.
_ELSEWHERE = (
    "fit",
    "serve",
    "test",
    "check",
    "calibrate",
    "annotate",
    "search",
    "export",
    "train",
    "evaluate",
    "bench",
    "demo",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for a mistake of the user.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after ``fewshot-runtime``; by default those of the process.

    Examples
    --------
    >>> main(["show", "gone"])
    2
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in _ELSEWHERE:
        return _fail(f"{given[0]} needs torch; run: pip install {DISTRIBUTION}, then fewshot {given[0]}", 2)
    options = _parser().parse_args(given)
    for name, value in vars(options).items():  # of unset shell variables
        if value == "" or (isinstance(value, list) and "" in value):
            return _fail(f"{name.upper()} is empty; give a value", 2)
    try:
        if clash := doubled():
            _fail(clash, 0)
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            status = int(options.run(options))
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try to write again at exit
        return 0
    except (ValueError, TypeError) as error:
        return _fail(str(error), 2)
    except (FewshotError, OSError) as error:
        return _fail(str(error), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewshot-runtime", description="Answer and learn with a classifier that fewshot export has written."
    )
    parser.add_argument("--version", action="version", version=f"fewshot-runtime {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, help in (
        ("predict", _predict, "classify images"),
        ("add", _add, "learn images of a class, known or new"),
        ("remove", _remove, "forget a class"),
        ("undo", _undo, "go back to before the last add or remove"),
        ("show", _show, "show the classes"),
    ):
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        command.add_argument("dir", metavar="DIR", help="the exported classifier")
        if name in ("add", "remove"):
            command.add_argument("label", metavar="LABEL", help="the class")
        if name in ("add", "predict"):
            command.add_argument("images", metavar="IMAGES", nargs="+", help="image files, or folders of them")
        if name in ("predict", "show"):
            command.add_argument("--json", action="store_true", help="print JSON")
        if name == "predict":
            command.add_argument("--csv", metavar="FILE", help="write the table as CSV instead of printing it")
            command.add_argument("--spreadsheet", action="store_true", help="CSV for Excel and others")
            command.add_argument(
                "--decimal-comma", action="store_true", help="--spreadsheet where numbers have a comma"
            )
    return parser


def _predict(options: argparse.Namespace) -> int:
    if options.csv and options.json:
        raise ValueError("--csv and --json are two forms of one table; give one of them")
    if not options.csv and (options.spreadsheet or options.decimal_comma):
        raise ValueError("--spreadsheet and --decimal-comma are about --csv; give it too, such as --csv day.csv")
    _refuse_missing(options.dir)
    paths, model = _paths(options.images), _load(options)
    rows = _answers(model, paths)
    bad = [row for row in rows if row["error"]]
    if options.csv:
        from fewshot.persistence.files import write_text
        from fewshot.utils.spreadsheet import CsvForm

        form, text = CsvForm(options.spreadsheet or options.decimal_comma, options.decimal_comma), io.StringIO()
        form.write(text, list(rows[0]), [list(row.values()) for row in rows])
        write_text(options.csv, text.getvalue())
        _say(f"{counted(len(rows), 'image')}; written to {options.csv}")
    else:
        same = all(row["likeliest"] == row["label"] for row in rows)
        hidden = {"error", *(["likeliest"] if same else [])} if not options.json else set()
        _give([{name: value for name, value in row.items() if name not in hidden} for row in rows], options.json)
    for row in bad:
        _fail(f"{row['image']}: {row['error']}", 1)
    return 1 if bad else 0


def _paths(given: list[str]) -> list[str]:
    """Return the given images, and those in given folders; raise for what is missing."""
    from fewshot.data.opening import check_paths
    from fewshot.data.scan import list_images

    paths = [path for name in given for path in (list_images(name) if Path(name).is_dir() else [name])]
    if not paths:
        raise ValueError(f"{given[0]} holds no image; give image files, or folders of them")
    for error in check_paths(paths):
        raise error
    return paths


def _answers(model: RuntimeClassifier, paths: list[str]) -> list[dict[str, Any]]:
    """Return a row for each image; one that cannot be read does not stop the others."""
    import numpy as np

    embeddings, errors = model.encoder.embed(paths)
    reasons, answering = {error.index: error.reason for error in errors}, model.model
    for i in np.flatnonzero(~np.isfinite(embeddings).all(1)).tolist():
        reasons.setdefault(i, "the encoder gives no finite embedding of it")
    rows: list[dict[str, Any]] = [
        {"image": path, "label": "", "likeliest": "", "probability": None, "error": reasons.get(i, "")}
        for i, path in enumerate(paths)
    ]
    read = [i for i in range(len(paths)) if i not in reasons]
    if read:
        labels, shares = answering.predict(embeddings[read]), answering.predict_proba(embeddings[read])
        likeliest = answering.memory.classes[np.argmax(shares, 1)]
        for i, *found in zip(read, labels.tolist(), likeliest.tolist(), shares.max(1).tolist(), strict=True):
            rows[i] |= dict(zip(("label", "likeliest", "probability"), found, strict=True))
    return rows


def _add(options: argparse.Namespace) -> int:
    from fewshot.utils.labels import label_of_text, refuse_file

    model = _load(options)
    refuse_file(options.label, model.classes_)
    label, paths = label_of_text(options.label, model.classes_), _paths(options.images)
    learned = f"{counted(len(paths), 'image')} of {label!r}"
    model.partial_fit(paths, [label] * len(paths)).save(options.dir, note=f"add {learned}")
    _say(f"learned {learned}; {counted(len(model.classes_), 'class')}; to go back: fewshot-runtime undo {options.dir}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from fewshot.utils.labels import label_of_text

    model = _load(options)
    label = label_of_text(options.label, model.classes_)
    model.remove_class(label).save(options.dir, note=f"remove {label!r}")
    _say(
        f"{label!r} is forgotten; {counted(len(model.classes_), 'class')} left; "
        f"to go back: fewshot-runtime undo {options.dir}"
    )
    return 0


def _undo(options: argparse.Namespace) -> int:
    from fewshot.persistence.artifact import read_artifact, restore_artifact

    _refuse_missing(options.dir)
    undone = read_artifact(options.dir, "export")[0].get("saved")
    restore_artifact(options.dir, "export")
    n = len(_load(options).classes_)
    _say(f"undone: {undone['note'] if isinstance(undone, dict) else 'the last change'}; {counted(n, 'class')}")
    return 0


def _show(options: argparse.Namespace) -> int:
    model = _load(options)
    pairs = zip(model.classes_.tolist(), model.n_support_.tolist(), strict=True)
    _give([{"class": label, "images": n} for label, n in pairs], options.json)
    return 0


def _load(options: argparse.Namespace) -> RuntimeClassifier:
    from fewshot.runtime.classifier import load

    _refuse_missing(options.dir)
    return load(options.dir)


def _refuse_missing(folder: str) -> None:
    if not Path(folder).exists():
        raise ValueError(f"{folder} does not exist; give a folder that fewshot export has written")


def _give(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    cells = [
        [
            f"{value:.3f}" if isinstance(value, float) else "" if value is None else printable(value)
            for value in row.values()
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        _say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _fail(str(message), 0)


def _fail(sentence: str, status: int) -> int:
    sys.stderr.write(f"fewshot-runtime: {printable(sentence)}\n")
    return status
