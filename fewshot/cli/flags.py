"""Messages in the words of the command line: flags instead of the parameters they set."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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
#: Phrases that cannot be translated word by word.
_PHRASES = {
    "weights='reference'": "--reference",
    "train it with MetaTrainer, or pass load_learner(checkpoint)": "train it with fewshot train, and give --from",
    "move it there, give another root, or allow_outside=True": "move it there, or the table above it",
    "use TransductiveClassifier": "fewshot evaluate and bench measure it",
    "make one with save(), or fewshot fit": "make one with fewshot fit",
}
#: ``name=value``, and names with underscores, but not inside paths, quotes and calls.
_PARAMETER = re.compile(
    r"(?<!--set )(?<![\w/.'\"=(-])(?:(?P<name>[a-z]+(?:_[a-z]+)*)=(?P<value>'[^']*'|\"[^\"]*\"|[\w.]*\w|\.\.\.|)"
    r"|(?P<alone>[a-z]+(?:_[a-z]+)+))(?![\w/'\"=(]|\.\w)"
)
#: Settings made once, by ``fewshot fit``, for commands that have no such flag.
_OF_FIT = {name: (f"fewshot fit --{name}", True) for name in ("backbone", "bits", "size", "weights")}
_AFTER_FIT = ("models", "editing", "trust", "retrieval")
#: Flags by the names of their values, and whether they take one.
Flags = Mapping[str, tuple[str, bool]]
#: Flags of the running commands, latest last. Not thread-local, because other threads decode images and warn.
_running: list[Flags] = []


@contextmanager
def speaking(options: argparse.Namespace) -> Iterator[None]:
    """Tell `in_flags` the flags of the command that runs inside the block."""
    flags = (_OF_FIT if options.module in _AFTER_FIT else {}) | options.flags()
    _running.append(flags)
    try:
        yield
    finally:
        _running.remove(flags)


def flags_of(command: argparse.ArgumentParser) -> dict[str, tuple[str, bool]]:
    """Return the flags of a command; see `Flags`."""
    return {
        action.dest: (action.option_strings[-1], action.nargs != 0)
        for action in command._actions
        if action.option_strings
    }


def in_flags(sentence: str) -> str:
    """Return a message of the library with parameters replaced by flags of the running command.

    Examples
    --------
    >>> in_flags("give pretrained=True")  # no command is running
    'give pretrained=True'
    """
    if not _running:
        return sentence
    flags = _running[-1]
    for phrase, translation in _PHRASES.items():
        sentence = sentence.replace(phrase, translation)

    def flag(match: re.Match[str]) -> str:
        name = match["name"] or match["alone"]
        own, takes_value = flags.get(name) or flags.get(_CALLED.get(name, "")) or (None, False)
        if own is None:
            return match[0]
        value = (match["value"] or "").strip("'\"")
        return f"{own} {shlex.quote(value)}" if takes_value and value else own

    return _PARAMETER.sub(flag, sentence)
