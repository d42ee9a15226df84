"""The command line: ``fewshot COMMAND``. Heavy packages load only when a command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fewshot._version import __version__
from fewshot.errors import FewshotError


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise ValueError
    return value


_positive.__name__, _seed.__name__ = "whole number above 0", "seed (a whole number from 0 to 4294967295)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewshot",
        description="Few-shot classification: learn new classes from one to five examples, with no gradient step.",
    )
    parser.add_argument("--version", action="version", version=f"fewshot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="train, learn new classes, look them up; writes a report with pictures",
        description="Meta-train a small network on characters, then learn classes it has never seen (held-out "
        "characters, real handwritten digits) from 1 and 5 images each. Needs no download and about two minutes "
        "on two cores. Prints a table and writes results.json and report.html.",
    )
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder for the results (default: %(default)s)")
    demo.add_argument(
        "--train-episodes",
        type=_positive,
        default=500,
        metavar="N",
        help="meta-training episodes (default: %(default)s)",
    )
    demo.add_argument(
        "--episodes", type=_positive, default=600, metavar="N", help="test episodes (default: %(default)s)"
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of everything that is drawn (default: %(default)s)")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for a user's mistake.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``fewshot``; the process's own arguments by default.

    Examples
    --------
    >>> main(["demo", "--episodes", "0"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    options = _parser().parse_args(arguments)
    try:
        return _demo(options)
    except KeyboardInterrupt:
        print("fewshot: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError) as error:
        print(f"fewshot: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where, why = error.filename or "the results", error.strerror or error
        print(f"fewshot: {where}: {why}; choose another folder with --out", file=sys.stderr)
        return 1
    except FewshotError as error:
        print(f"fewshot: {error}", file=sys.stderr)
        return 1


def _demo(options: argparse.Namespace) -> int:
    from fewshot.demo.story import run_demo

    run_demo(
        options.out,
        train_episodes=options.train_episodes,
        test_episodes=options.episodes,
        seed=options.seed,
        progress=not options.quiet,
        say=print,
    )
    return 0
