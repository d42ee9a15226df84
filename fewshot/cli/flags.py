"""The words of the command line: what the library says of its parameters is said of the flags that set them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Flags whose parameter has another name.
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
#: What no flag says by its name alone.
_PHRASES = {
    "weights='reference'": "--reference",
    "train it with MetaTrainer, or pass load_learner(checkpoint)": "train it with fewshot train, and name it by --from",
    "move it there, give another root, or allow_outside=True": "move it there, or the table above it",
    "use TransductiveClassifier": "fewshot evaluate and bench measure it",
    "make one with save(), or fewshot fit": "make one with fewshot fit",
}
#: ``name=value``, and names that are no English; parts of paths, of quotations and of calls are left alone.
_PARAMETER = re.compile(
    r"(?<!--set )(?<![\w/.'\"=(-])(?:(?P<name>[a-z]+(?:_[a-z]+)*)=(?P<value>'[^']*'|\"[^\"]*\"|[\w.]*\w|\.\.\.|)"
    r"|(?P<alone>[a-z]+(?:_[a-z]+)+))(?![\w/'\"=(]|\.\w)"
)
#: What was said once, when the classifier was made, where a command itself has no such flag.
_OF_FIT = {name: (f"fewshot fit --{name}", True) for name in ("backbone", "bits", "size", "weights")}
_AFTER_FIT = ("models", "editing", "trust", "retrieval")
#: Names of values, the flags that set them, and whether these take a value.
Flags = Mapping[str, tuple[str, bool]]
#: Those of the commands that run, the latest last; not of one thread, as images are decoded, and warned of, in others.
_running: list[Flags] = []


@contextmanager
def speaking(options: argparse.Namespace) -> Iterator[None]:
    """Let `in_flags` know the flags of the command that runs inside the block."""
    flags = (_OF_FIT if options.module in _AFTER_FIT else {}) | options.flags()
    _running.append(flags)
    try:
        yield
    finally:
        _running.remove(flags)


def flags_of(command: argparse.ArgumentParser) -> dict[str, tuple[str, bool]]:
    """Return the flags of a command by the names of their values, and whether they take one."""
    return {
        action.dest: (action.option_strings[-1], action.nargs != 0)
        for action in command._actions
        if action.option_strings
    }


def in_flags(sentence: str) -> str:
    """Return a sentence of the library with flags of the running command in the place of its parameters.

    Examples
    --------
    >>> in_flags("give pretrained=True")  # no command runs
    'give pretrained=True'
    """
    if not _running:
        return sentence
    flags = _running[-1]
    for phrase, own in _PHRASES.items():
        sentence = sentence.replace(phrase, own)

    def flag(match: re.Match[str]) -> str:
        name = match["name"] or match["alone"]
        own, takes_value = flags.get(name) or flags.get(_CALLED.get(name, "")) or (None, False)
        if own is None:
            return match[0]
        value = (match["value"] or "").strip("'\"")
        return f"{own} {shlex.quote(value)}" if takes_value and value else own

    return _PARAMETER.sub(flag, sentence)
