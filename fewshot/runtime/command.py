"""``fewshot-runtime COMMAND``: answer and learn on a device, without torch."""

from __future__ import annotations

import argparse
import json
import sys
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
        return int(options.run(options))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
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
        ("show", _show, "show the classes"),
    ):
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        command.add_argument("dir", metavar="DIR", help="the exported classifier")
        if name in ("add", "remove"):
            command.add_argument("label", metavar="LABEL", help="the class")
        if name in ("add", "predict"):
            command.add_argument("images", metavar="IMAGES", nargs="+", help="image files")
        if name in ("predict", "show"):
            command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _predict(options: argparse.Namespace) -> int:
    model = _load(options)
    columns = zip(options.images, *(column.tolist() for column in model.answer(options.images)), strict=True)
    rows = [dict(zip(("image", "label", "likeliest", "probability"), row, strict=True)) for row in columns]
    if not options.json and all(row["likeliest"] == row["label"] for row in rows):
        for row in rows:
            del row["likeliest"]
    _give(rows, options.json)
    return 0


def _add(options: argparse.Namespace) -> int:
    from fewshot.utils.labels import label_of_text, refuse_file

    model = _load(options)
    refuse_file(options.label, model.classes_)
    label = label_of_text(options.label, model.classes_)
    model.partial_fit(options.images, [label] * len(options.images)).save(options.dir)
    _say(f"learned {counted(len(options.images), 'image')} of {label!r}; {counted(len(model.classes_), 'class')}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from fewshot.utils.labels import label_of_text

    model = _load(options)
    label = label_of_text(options.label, model.classes_)
    model.remove_class(label).save(options.dir)
    _say(f"{label!r} is forgotten; {counted(len(model.classes_), 'class')} left")
    return 0


def _show(options: argparse.Namespace) -> int:
    model = _load(options)
    pairs = zip(model.classes_.tolist(), model.n_support_.tolist(), strict=True)
    _give([{"class": label, "images": n} for label, n in pairs], options.json)
    return 0


def _load(options: argparse.Namespace) -> RuntimeClassifier:
    from fewshot.runtime.classifier import load

    if not Path(options.dir).exists():
        raise ValueError(f"{options.dir} does not exist; give a folder that fewshot export has written")
    return load(options.dir)


def _give(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    cells = [
        [f"{value:.3f}" if isinstance(value, float) else printable(value) for value in row.values()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        _say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _fail(sentence: str, status: int) -> int:
    sys.stderr.write(f"fewshot-runtime: {printable(sentence)}\n")
    return status
