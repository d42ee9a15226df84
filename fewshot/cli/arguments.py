"""Options that several commands share, and the types of option values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fewshot.cli.flags import flags_of
from fewshot.persistence.suffixes import check_suffix

N = TypeVar("N", int, float)
#: Characters of a value that an error repeats.
_SHOWN = 60

DATA_HELP = "a folder with a subfolder per class, a table path,label,split (.csv), or output of data_prep"


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return an option type: whole numbers in a range."""
    return _reader(int, least, most, "a whole number", f"{least} to {most}")


def number(least: float, most: float) -> Callable[[str], float]:
    """Return an option type: finite numbers in a range."""
    return _reader(float, least, most, "a number", f"{least:g} to {most:g}")


def _reader(kind: Callable[[str], N], least: float, most: float, what: str, span: str) -> Callable[[str], N]:
    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:  # also for more digits than Python converts
            value = None
        if value is None or not least <= value <= most:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            raise argparse.ArgumentTypeError(f"expected {what} from {span}, not {shown!r}")
        return value

    read.span = span  # type: ignore[attr-defined]  # for --help
    return read


def add_ranges(command: argparse.ArgumentParser) -> None:
    """Add the range of each number to the help of a command."""
    for action in command._actions:
        if span := getattr(action.type, "span", None):
            action.help = f"{action.help} [{span}]"


def file_of(kind: str) -> Callable[[str], str]:
    """Return an option type: a file of a format, such as "CSV"."""

    def named(text: str) -> str:
        try:
            check_suffix(text, kind, "the file")
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return named


count, episodes, steps = whole(1, 10**6), whole(1, 10**7), whole(1, 10**9)
jobs, seed, size, bits = whole(1, 1024), whole(0, 2**32 - 1), whole(1, 4096), whole(8, 16)
pixels = whole(1, 10**12)
percent, rate, temperature = number(0, 99.9), number(1e-12, 1e3), number(1e-6, 1e6)


def command(commands: Any, name: str, module: str, help: str, description: str = "") -> argparse.ArgumentParser:
    """Add a command; the function of the same name in a module of `fewshot.cli` runs it."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=description or help)
    command.set_defaults(module=module, flags=partial(flags_of, command))
    command.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="load learners from a Python file or module"
    )
    return command


def backbone(
    command: argparse.ArgumentParser, default: str = "tf_efficientnet_lite0", default_size: str = "the network's own"
) -> None:
    """Add the options that choose the network."""
    one = command.add_mutually_exclusive_group()
    known = "any timm name, hf-hub:OWNER/NAME or local-dir:PATH (default: %(default)s)"
    one.add_argument("--backbone", default=default, metavar="NAME", help=known)
    one.add_argument("--from", dest="checkpoint", metavar="CHECKPOINT", help="a checkpoint from fewshot train")
    command.add_argument("--weights", metavar="FILE", help="backbone weights: a local file, 'offline' or 'random'")
    command.add_argument("--pretrained", action="store_true", help="download the weights from the hub")
    command.add_argument("--bits", type=bits, metavar="N", help="bit depth of 16-bit images, if files do not tell")
    command.add_argument("--size", type=size, metavar="PX", help=f"side of the images (default: {default_size})")


def tables(command: argparse.ArgumentParser) -> None:
    """Add the options that write tables."""
    command.add_argument(
        "--csv", type=file_of("CSV"), metavar="FILE", help="write the table as CSV; - for standard output"
    )
    command.add_argument("--json", type=file_of("JSON"), metavar="FILE", help="write it as JSON; - for standard output")
    command.add_argument(
        "--spreadsheet",
        action="store_true",
        help="in CSV, put ' before text that begins with = + - @, tab or return, so that no spreadsheet runs it as a "
        "formula: labels and file names may come from strangers",
    )


def cache(command: argparse.ArgumentParser) -> None:
    """Add the option that stores embeddings."""
    command.add_argument("--cache", metavar="DIR", help="store embeddings there, so that no image is embedded twice")


def skip_unreadable(command: argparse.ArgumentParser) -> None:
    """Add the option that skips unreadable images."""
    command.add_argument("--skip-unreadable", action="store_true", help="skip images that cannot be read")


def unknown_label(command: argparse.ArgumentParser) -> None:
    """Add the option that sets the answer for unknown images."""
    command.add_argument(
        "--unknown-label", metavar="LABEL", help="the answer for unknown images; must not be a class (default: "
        "unknown, or -1 if classes are numbers)",
    )  # fmt: skip


def report(command: argparse.ArgumentParser, what: str) -> None:
    """Add the option that writes a page."""
    command.add_argument("--report", type=file_of("HTML"), metavar="FILE", help=f"write a page with {what} (.html)")


def common(command: argparse.ArgumentParser) -> None:
    """Add the options of every command that embeds."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    command.add_argument(
        "--max-pixels", type=pixels, metavar="N",
        help="refuse images with more pixels (default: $FEWSHOT_MAX_PIXELS, or 268435456)",
    )  # fmt: skip
    quiet(command)


def quiet(command: argparse.ArgumentParser) -> None:
    """Add the option that hides the progress bar."""
    command.add_argument("--quiet", action="store_true", help="no progress bar")
