"""The command line: ``fewshot COMMAND``.

`commands` names the modules that define the options of each command and run it. They are imported only for the command
that is given, and heavy packages only when it runs.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from fewshot.cli.exchanging import exchanged
from fewshot.cli.parser import in_python, make_parser
from fewshot.cli.quoting import unquoted
from fewshot.cli.terminal import complain, note, ready_streams, speaking
from fewshot.errors import FewshotError, ImageDecodeError, TrainingInterrupted, brief
from fewshot.utils.collector import collect_rarely
from fewshot.utils.distributions import doubled
from fewshot.utils.heap import TooLargeError
from fewshot.utils.text import shortened
from fewshot.utils.threads import wait_passively

#: Defined in `fewshot.data.decode`, which is too slow to import here.
_LIMIT = "FEWSHOT_MAX_PIXELS"
#: Commands that name a classifier with --model.
_BY_MODEL = ("annotate", "search", "export-labels")
#: Where folders of images are given.
_OF_IMAGES = ("folder", "data", "images", "none_of_these", "held_out")
_LABELLED = ("folder", "data", "held_out")
#: Commands that take a folder of images without labels.
_UNLABELLED = ("annotate", "suggest")
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
            return _run(options, sys.argv[1:] if arguments is None else arguments)


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    if clash := doubled():
        complain(clash)
    try:
        if options.plugin:
            from fewshot.learners.registry import add_plugin

            for plugin in options.plugin:
                add_plugin(plugin)
        _unpack_archives(options)
        _refuse_absent(options)
        module = import_module(f"fewshot.cli.{options.module}")
        with _largest_image(getattr(options, "max_pixels", None)):
            return int(getattr(module, in_python(options.command))(options))
    except TrainingInterrupted as stopped:
        return _fail(str(stopped), 128 + stopped.signum)
    except KeyboardInterrupt:
        resumes = options.command in ("annotate", "bench")
        return _fail("interrupted" + ("; run the same command to resume" if resumes else ""), 130)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        return 0
    except ImageDecodeError as error:
        is_slip = error.reason.startswith("no such file") and str(error.source) in words  # which is not passed over
        can_skip = error.can_skip and not is_slip and not getattr(options, "skip_unreadable", True)
        cure = unquoted(words) or ("; --skip-unreadable skips such images" if can_skip else "")
        return _fail(f"{error}{cure}", 2)
    except (ValueError, TypeError) as error:
        return _fail(exchanged(options) or f"{error}{unquoted(words)}", 2)
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


def _unpack_archives(options: argparse.Namespace) -> None:
    """Replace a zip file that is given where folders of images are taken by the folder to which it is unpacked."""
    for name in _OF_IMAGES:
        given = getattr(options, name, None)
        if isinstance(given, str):
            setattr(options, name, _unpacked(given))
        elif isinstance(given, list):
            setattr(options, name, list(map(_unpacked, given)))


def _unpacked(given: str) -> str:
    if not (given.lower().endswith(".zip") and os.path.isfile(given)):
        return given
    from fewshot.data.zipped import unpack

    folder = os.fspath(unpack(given))
    note(f"{given}: unpacked to {folder}")
    return folder


def _refuse_absent(options: argparse.Namespace) -> None:
    """Raise if the classifier or the images are not there; a command would import torch first, which takes seconds."""
    if options.command in ("serve", "remove", "data"):  # may begin a new one; names what was learned; loads no torch
        return
    named = "model" if options.command in _BY_MODEL else "dir"
    classifier = getattr(options, named, None)
    if isinstance(classifier, str):
        from fewshot.persistence.artifact import is_artifact, refuse_absent

        refuse_absent(classifier, "classifier")
        if not is_artifact(classifier):  # the command says so
            return
    if getattr(options, "server", None) is not None:  # the command checks its address first
        return
    for name in _OF_IMAGES:
        given = getattr(options, name, None)
        absent = [one for one in ([given] if isinstance(given, str) else given or []) if not os.path.lexists(one)]
        if absent:
            from fewshot.cli.inputs import refuse_absent_images

            is_labelled = name in _LABELLED and options.command not in _UNLABELLED
            refuse_absent_images(absent, is_labelled and not getattr(options, "unlabelled", False))
    if options.command == "fit":
        from fewshot.cli.inputs import refuse_existing

        refuse_existing(options)


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
