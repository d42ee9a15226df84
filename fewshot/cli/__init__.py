"""The command line: ``fewshot COMMAND``.

`COMMANDS` names the modules that define the options of each command and run it. They are imported only for the command
that is given, and heavy packages only when it runs.
"""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

from fewshot._version import __version__
from fewshot.cli.terminal import complain, ready_streams, speaking
from fewshot.errors import FewshotError, ImageDecodeError, TrainingInterrupted, brief
from fewshot.utils.collector import collect_rarely
from fewshot.utils.heap import TooLargeError
from fewshot.utils.text import printable, shortened
from fewshot.utils.threads import wait_passively


class Command(NamedTuple):
    """A command: the module of its function ``NAME_options``, the module of its function ``NAME``, and its help."""

    options: str
    module: str
    help: str


#: In the order of ``--help``.
COMMANDS = {
    "fit": Command("options", "models", "learn the classes of a folder of images; writes a classifier"),
    "add": Command("options", "models", "add images of a class, known or new, to a classifier"),
    "remove": Command("options", "saved", "remove a class, or some of its images, from a classifier"),
    "rename": Command("options", "saved", "give a class of a classifier another label"),
    "merge": Command("options", "models", "merge several classifiers into one"),
    "predict": Command("options", "models", "classify images"),
    "test": Command("options", "trust", "measure how good a classifier is on a folder of labelled images"),
    "check": Command("options", "trust", "estimate how good a classifier will be, from its own images alone"),
    "show": Command("options", "saved", "show a classifier: classes, images, backbone, size"),
    "history": Command("options", "versions", "list the last versions of a classifier"),
    "undo": Command("options", "versions", "go back to an earlier version of a classifier"),
    "serve": Command("serving", "serving", "a page and an HTTP API to teach a classifier, try it and correct it"),
    "suggest": Command("labelling", "labelling", "choose the images to label next, from a folder without labels"),
    "export-labels": Command(
        "labelling", "labelling", "write images for Label Studio, FiftyOne, a table or class folders"
    ),
    "import-labels": Command("labelling", "labelling", "read what was labelled there, for fit or into a classifier"),
    "calibrate": Command("options", "saved", "calibrate probabilities, and recognise unknown images"),
    "audit": Command("options", "trust", "list support images that may do harm: wrong classes, duplicates"),
    "adapt": Command("options", "adapting", "adapt embeddings to a domain, given other classes of it; takes seconds"),
    "annotate": Command(
        "options", "retrieval", "write vectors and labels of a folder of images, of any size, as Parquet"
    ),
    "search": Command("options", "retrieval", "find similar images in a table of fewshot annotate"),
    "train": Command(
        "training_options", "training", "meta-train a network on many small learning tasks; writes a checkpoint"
    ),
    "evaluate": Command(
        "training_options", "training", "measure accuracy on episodes of classes that were not trained on"
    ),
    "bench": Command("bench", "bench", "compare learners on data sets and backbones, on the same episodes"),
    "demo": Command(
        "demo.command", "demo.command", "train, learn new classes, look them up; writes a report with pictures"
    ),
}
#: Options whose values are stored under another name.
_NAMES = {"checkpoint": "from", "frozen": "episodes"}
_STATUS = """exit status:
  0    success
  1    failure; or an image got no answer (predict, annotate, search) or has no usable label (import-labels), or a unit
       of a grid failed (bench)
  2    mistake in the command; nothing was changed
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM); train has saved its state

Each command has --help.
"""
#: Defined in `fewshot.data.decode`, which is too slow to import here.
_LIMIT = "FEWSHOT_MAX_PIXELS"
#: Longest message, in characters; longer ones are shortened.
_LONGEST = 4000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for a mistake of the user.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after ``fewshot``; by default those of the process.

    Examples
    --------
    >>> main(["demo", "--episodes", "0"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    if arguments is None:  # this process is ours
        wait_passively()
        collect_rarely()
    with ready_streams():
        options = make_parser().parse_args(arguments)
        with speaking(options):
            return _run(options)


class Parser(argparse.ArgumentParser):
    """A parser that can print its messages on any terminal, whatever the user typed."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options; refuse empty values, which come from unset shell variables."""
        options = super().parse_args(args, namespace)
        for name, value in vars(options).items():
            if value == "" or (isinstance(value, list) and "" in value):
                self.error(f"{_NAMES.get(name, name)} is empty; give a value, or leave it out")
        return options

    def error(self, message: str) -> NoReturn:
        """Print the usage and a sentence, and exit with status 2."""
        super().error(shortened(printable(message)))

    def _print_message(self, message: str, file: Any = None) -> None:
        with suppress(ValueError):  # a closed stream; argparse handles only a missing or full one
            super()._print_message(message, file)


class CommandParser(Parser):
    """The parser of one command; it has options only once it is used, so that the command line starts quickly."""

    def __init__(self, command: str, **settings: Any) -> None:
        super().__init__(description=COMMANDS[command].help, **settings)
        self.command = command

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options and what is left of the arguments."""
        self.define()
        return super().parse_known_args(args, namespace)

    def define(self) -> None:
        """Define the options."""
        command = COMMANDS[self.command]
        self.add_argument(
            "--plugin", action="append", default=[], metavar="FILE", help="load learners from a Python file or module"
        )
        getattr(import_module(f"fewshot.cli.{command.options}"), f"{_called(self.command)}_options")(self)
        flags = {}
        for action in self._actions:
            if span := getattr(action.type, "span", None):
                action.help = f"{action.help} [{span}]"
            if action.option_strings:
                flags[action.dest] = (action.option_strings[-1], action.nargs != 0)
        self.set_defaults(module=command.module, flags=flags)


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="fewshot",
        description="Few-shot classification: learn new classes from one to five examples, with no gradient step.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the list of exit statuses
    )
    parser.add_argument("--version", action="version", version=f"fewshot {__version__}")
    commands: Any = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, command=name)
    return parser


def _called(command: str) -> str:
    """Return the name of a command in Python."""
    return command.replace("-", "_")


def _run(options: argparse.Namespace) -> int:
    try:
        if options.plugin:
            from fewshot.learners.registry import add_plugin

            for plugin in options.plugin:
                add_plugin(plugin)
        module = import_module(f"fewshot.cli.{options.module}")
        with _largest_image(getattr(options, "max_pixels", None)):
            return int(getattr(module, _called(options.command))(options))
    except TrainingInterrupted as stopped:
        return _fail(str(stopped), 128 + stopped.signum)
    except KeyboardInterrupt:
        resumes = options.command in ("annotate", "bench")
        return _fail("interrupted" + ("; run the same command to resume" if resumes else ""), 130)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        return 0
    except ImageDecodeError as error:
        can_skip = not getattr(options, "skip_unreadable", True)
        cure = "; --skip-unreadable skips such images" if can_skip else ""
        return _fail(f"{error}{cure}", 2)
    except (ValueError, TypeError) as error:
        return _fail(str(error), 2)
    except FewshotError as error:
        return _fail(str(error), 1)
    except OSError as error:
        cure = f"choose another place{' with --out' if _concerns(getattr(options, 'out', None), error) else ''}"
        status = 2 if error.errno == errno.ENAMETOOLONG else 1
        return _fail(f"{shortened(_name_of(error), 200)}: {error.strerror or error}; {cure}", status)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch raises a plain RuntimeError
            raise
        is_known = isinstance(error, TooLargeError)
        return _fail(str(error) if is_known else "not enough memory; use fewer or smaller images", 1)


@contextmanager
def _largest_image(max_pixels: int | None) -> Iterator[None]:
    """Set the pixel limit in the environment, where child processes find it, too."""
    before = os.environ.get(_LIMIT)
    if max_pixels is not None:
        os.environ[_LIMIT] = str(max_pixels)
    try:
        yield
    finally:
        os.environ.pop(_LIMIT, None)
        if before is not None:
            os.environ[_LIMIT] = before


def _fail(sentence: str, status: int) -> int:
    complain(brief(sentence, _LONGEST))
    return status


def _concerns(out: str | None, error: OSError) -> bool:
    """Whether the error is about --out, a file in it, or a folder above it."""
    if out is None or error.filename is None:
        return out is not None
    place, refused = os.path.abspath(out), os.path.abspath(_name_of(error))
    return os.path.commonpath((place, refused)) in (place, refused)


def _name_of(error: OSError) -> str:
    name = error.filename or "the results"
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)
