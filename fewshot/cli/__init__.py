"""The command line: ``fewshot COMMAND``. Heavy packages load only when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from fewshot.cli.options import make_parser
from fewshot.errors import FewshotError, TrainingInterrupted
from fewshot.waiting import wait_passively


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
    if arguments is None:  # the process is ours
        wait_passively()
    options = make_parser().parse_args(arguments)
    try:
        if options.plugin:
            from fewshot.registry import add_plugin

            for plugin in options.plugin:
                add_plugin(plugin)
        module = import_module(f"fewshot.cli.{options.module}")
        return int(getattr(module, options.command)(options))
    except TrainingInterrupted as stopped:
        return _say(str(stopped), 128 + stopped.signum)
    except KeyboardInterrupt:
        goes_on = options.command in ("annotate", "bench")
        return _say("interrupted" + ("; the same command goes on where it was" if goes_on else ""), 130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, TypeError) as error:
        return _say(str(error), 2)
    except FewshotError as error:
        return _say(str(error), 1)
    except OSError as error:
        cure = "choose another place with --out" if hasattr(options, "out") else "choose another place"
        return _say(f"{error.filename or 'the results'}: {error.strerror or error}; {cure}", 1)


def _say(sentence: str, status: int) -> int:
    print(f"fewshot: {sentence}", file=sys.stderr)
    return status
