"""Messages: any text on any terminal, in the words of the command line, which are flags instead of parameters.

No work fails because its message cannot be printed.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from fewshot.utils.text import printable, shortened

#: Parameters whose flag has another name.
_CALLED = {
    "img_size": "size",
    "n_episodes": "episodes",
    "n_jobs": "jobs",
    "n_query": "query",
    "n_shot": "shot",
    "n_way": "way",
    "on_error": "skip_unreadable",
    "overwrite": "force",
}
#: Colours of errors and warnings, as terminals number them.
_RED, _YELLOW = "31", "33"
#: Phrases that cannot be translated word by word.
_PHRASES = {
    "weights='reference'": "--reference",
    " augment is ": " augmentation (Distortion: --distort, Mirror and Light: --photo) is ",
    " learn_temperature is ": " training of the temperature (--temperature) is ",
    "train it with MetaTrainer, or pass load_learner(checkpoint)": "train it with fewshot train, and give --from",
    "move it there, or give LabeledImages.from_table another root, or allow_outside=True": (
        "give the folder above it as --root to fit, test, predict or calibrate, or move it"
    ),
    "give the learner temperature=None, or scale embeddings to unit length": (
        "choose --learner cosine-prototypical or discriminant, or run fewshot calibrate"
    ),
    "call calibrate(X, y) with held-out classes first": "run fewshot calibrate with held-out classes or --reject none",
    "import its plug-in first": "name its file with --plugin",
    "register it with register_backbone first": "name the file that registers it with --plugin",
    "convert them, e.g. by train.decoded(size=28, grey=True)": "give --grey",
    "repeat them, e.g. by LabeledImages(np.repeat(images[..., None], 3, -1), labels)": "give colour images, no --grey",
    "call reclassify(model, store)": "run fewshot annotate again with --force",
    "give it with token=...": "give the file that holds it with --token",
    "use TransductiveClassifier": "fewshot evaluate and bench measure it",
    "make one with save(), or fewshot fit": "make one with fewshot fit",
    " of LabeledImages.from_table": "",
    "give items of one unknown kind as reject_examples": "give images of one unknown kind as --none-of-these",
}
#: The cure of a table whose paths begin elsewhere, and that for commands without ``--root``.
_ELSEWHERE = "give the folder where its paths begin as root=FOLDER, or put the table there"
_PUT_THERE = "put the table into the folder where its paths begin"
#: How the flag begins that gives a setting by its name.
SET = "--set "
#: ``name=value``, and names with underscores, but not inside paths, quotes and calls.
_PARAMETER = re.compile(
    r"(?<!--set )(?<![\w/.'\"=(-])(?:(?P<name>[a-z]+(?:_[a-z]+)*)=(?P<value>'[^']*'|\"[^\"]*\"|[\w.]*\w|\.\.\.|)"
    r"|(?P<alone>[a-z]+(?:_[a-z]+)+))(?![\w/'\"=(]|\.\w)"
)
#: The beginning of a message about a name that a flag may have given.
_UNKNOWN = re.compile(r"^no (\w+) is called ")
#: Settings made once, by ``fewshot fit``, for commands that have no such flag.
_OF_FIT = {name: (f"fewshot fit --{name}", True) for name in ("backbone", "bits", "crop", "size", "views", "weights")}
_AFTER_FIT = ("models", "saved", "trust", "retrieval", "labelling")
#: Characters that separate words or mean something in a shell, and those that do also between double quotes.
_SPECIAL, _NEVER_IN_QUOTES = re.compile(r"[\s&|;<>()*?\[\]{}'#~]"), re.compile(r"[\"$`!]")
#: Flags by the names of their values, and whether they take one.
Flags = Mapping[str, tuple[str, bool]]
#: Options of the running commands, latest last. Not thread-local, because other threads decode images and warn.
_running: list[argparse.Namespace] = []
#: As a file name: standard output.
STANDARD_OUTPUT = "-"


def say(*lines: object) -> None:
    """Print lines about work that is done or under way: on standard error, if standard output carries CSV or JSON.

    If standard output fails, for example because the disk is full, the work is still done: the last line goes to
    standard error, with the reason.
    """
    if _running and is_piped(_running[-1]):
        for line in lines:
            note(line)
        return
    try:
        put("".join(f"{printable(line)}\n" for line in lines))
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        complain(f"{lines[-1] if lines else ''} (standard output cannot be written: {reason})")


def is_piped(options: argparse.Namespace) -> bool:
    """Whether standard output carries CSV or JSON for a program, so that nothing else may go there."""
    return any(is_standard_output(getattr(options, name, None)) for name in ("csv", "json"))


def is_standard_output(target: str | None) -> bool:
    """Whether a file name means standard output."""
    if target in (None, STANDARD_OUTPUT):
        return target is not None
    from fewshot.persistence.files import descriptor_of  # takes longer to import than --help takes

    return descriptor_of(str(target)) == 1


def put(text: str) -> None:
    """Print requested output, such as a table; characters that the terminal lacks become backslash escapes.

    Raises
    ------
    OSError
        If standard output fails.
    """
    stream = sys.stdout
    if stream is None or getattr(stream, "closed", False):  # e.g. a service without a console
        return
    if _is_terminal(stream):
        text = printable(text, keep="\n\t")
    try:
        stream.write(_encodable(text, stream))
        stream.flush()
    except OSError as error:
        _discard(stream)
        raise type(error)(error.errno, error.strerror, "standard output") from None


def complain(sentence: object) -> None:
    """Print an error message on standard error, if there is one."""
    note(f"fewshot: {shortened(printable(in_flags(str(sentence))))}", _RED)


def note(line: object, colour: str = "") -> None:
    """Print a line on standard error, if there is one; its first word in a colour, if that is a terminal."""
    if sys.stderr is not None:  # print() would use standard output instead
        try:
            sys.stderr.write(_encodable(f"{_coloured(printable(line), colour)}\n", sys.stderr))
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            _discard(sys.stderr)


def way_back(folder: str) -> str:
    """Return how to undo a change, as the end of a sentence about it."""
    return f"; to go back: fewshot undo {typed(folder)}"


def typed(name: object) -> str:
    """Return a name as it is typed in a command: in quotation marks if it has blanks or what shells take for their own.

    Examples
    --------
    >>> typed("model"), typed("my model"), typed("R&D")
    ('model', '"my model"', '"R&D"')
    """
    text = str(name)
    return f'"{text}"' if _SPECIAL.search(text) and not _NEVER_IN_QUOTES.search(text) else text


def plugged(options: argparse.Namespace) -> str:
    """Return the plug-ins of a command as the end of one that follows it, which needs them, too."""
    return "".join(f" --plugin {typed(one)}" for one in options.plugin)


def quoted(label: Any) -> str:
    """Return a label, quoted for a sentence."""
    return f"'{shortened(printable(label), 100)}'" if isinstance(label, str) else repr(label)


@contextmanager
def ready_streams() -> Iterator[None]:
    """Inside the block, show warnings as sentences, and keep the descriptors of closed standard streams occupied."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    before = warnings.formatwarning, sys.stderr
    warnings.formatwarning = _as_sentence
    if getattr(sys.stderr, "closed", False):
        sys.stderr = None  # a warning would end the command
    try:
        yield
    finally:
        warnings.formatwarning, sys.stderr = before


def _as_sentence(message: Warning | str, *where: Any, **more: Any) -> str:
    return f"{_coloured(f'fewshot: {printable(in_flags(str(message)))}', _YELLOW)}\n"


def terminal_width() -> int | None:
    """Return the columns of the terminal to which tables are printed; None if standard output is none."""
    return shutil.get_terminal_size().columns if _is_terminal(sys.stdout) else None


def _coloured(line: str, colour: str) -> str:
    """Return a line with its first word in a colour, if standard error has colours and the line has one."""
    if not (colour and _has_colours()):
        return line
    first, space, rest = line.partition(" ")
    return f"\x1b[{colour}m{first}\x1b[0m{space}{rest}"


def _has_colours() -> bool:
    """Whether standard error is a terminal with colours, unless ``$NO_COLOR`` or ``$FORCE_COLOR`` decide it."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"


def _encodable(text: str, stream: Any) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _discard(stream: Any) -> None:
    """Discard what a stream still buffers: Python would try to write it again at exit, and fail."""
    with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


class _Notes(logging.Handler):
    """Print what the library logs as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
            with suppress(OSError, ValueError):
                sys.stderr.write("\r\x1b[K")  # over a progress bar, which draws itself again below
        note(record.getMessage())


@contextmanager
def speaking(options: argparse.Namespace) -> Iterator[None]:
    """Tell `in_flags` and `say` the options of the command that runs inside the block; log as ``--verbose`` asks."""
    _running.append(options)
    root, log, notes = logging.getLogger(), logging.getLogger("fewshot"), _Notes()
    level = log.level
    if options.verbose:
        log.setLevel(logging.DEBUG if options.verbose > 1 else logging.INFO)
        root.addHandler(notes)  # the service replaces it by its own
    try:
        yield
    finally:
        root.removeHandler(notes)
        log.setLevel(level)
        _running.remove(options)


def in_flags(sentence: str) -> str:
    """Return a message of the library with parameters replaced by flags of the running command.

    Examples
    --------
    >>> in_flags("give pretrained=True")  # no command is running
    'give pretrained=True'
    """
    if not _running:
        return sentence
    options = _running[-1]
    flags: Flags = (_OF_FIT if options.module in _AFTER_FIT else {}) | options.flags
    for phrase, translation in _PHRASES.items():
        sentence = sentence.replace(phrase, translation)
    if "root" not in flags:
        sentence = sentence.replace(_ELSEWHERE, _PUT_THERE)

    def flag(match: re.Match[str]) -> str:
        name = match["name"] or match["alone"]
        own, takes_value = flags.get(name) or flags.get(_CALLED.get(name, "")) or (None, False)
        if own in (None, name):  # or given by a file, which calls it so
            return match[0]
        value = (match["value"] or "").strip("'\"")
        return f"{own}{'=' if own.startswith(SET) else ' '}{shlex.quote(value)}" if takes_value and value else own

    if (unknown := _UNKNOWN.match(sentence)) and (given := flags.get(unknown[1]) or flags.get(f"{unknown[1]}s")):
        sentence = f"{given[0]}: {sentence}"
    if unknown and unknown[1] == "learner" and not options.plugin:
        sentence += "; one of your own needs --plugin FILE.py"
    return _PARAMETER.sub(flag, sentence)
