"""The parsers: options are defined only for the command that is used, and mistakes name the nearest right word."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from fewshot._version import __version__
from fewshot.cli.commands import COMMANDS, GROUPS
from fewshot.cli.purposes import OWN, PURPOSES, purpose_of
from fewshot.cli.quoting import unquoted
from fewshot.errors import brief
from fewshot.utils.text import closest, printable, shortened, wrapped

#: Options whose values are stored under another name.
_NAMES = {"checkpoint": "from", "frozen": "episodes"}
_STATUS = {
    "0": "done; also if the reader of a pipe, such as head, has left",
    "1": "failed: a file is damaged, a disk full; or an image got no answer (predict, annotate, search) or has no "
    "usable label (import-labels), or a unit of a grid failed (bench)",
    "2": "a mistake in the command, such as a file that is not there; nothing was changed",
    "130": "interrupted (Ctrl-C)",
    "143": "terminated (SIGTERM); train has saved its state",
}


class Parser(argparse.ArgumentParser):
    """A parser that can print its messages on any terminal, whatever the user typed."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options; refuse empty values, which come from unset shell variables."""
        options = super().parse_args(args, namespace)
        for name, value in vars(options).items():
            if value == "" or (isinstance(value, list) and "" in value):
                self.error(f"{_NAMES.get(name, name)} is empty; give a value, or leave it out")
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options; refuse unknown ones here, where the usage of the right command is known."""
        if self._subparsers is None:  # first, since a mistyped flag may be the one that is required
            self._refuse_unknown_flags(args or [])
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = unquoted(args or []) if not unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {brief(' '.join(unknown))}{hint}")
        return options, unknown

    def _refuse_unknown_flags(self, words: Sequence[str]) -> None:
        known = [flag for flag in self._option_string_actions if flag.startswith("--")]
        for word in words:
            flag = word.partition("=")[0]
            if word == "--":
                return
            if flag.startswith("--") and not any(other.startswith(flag) for other in known):
                alike = [other for other in known if closest(flag[2:], [other[2:]])]  # the dashes are in all
                self.error(f"unrecognized arguments: {brief(flag)}{closest(flag, alike)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = closest(str(value), known) or f"; choose from {', '.join(known)}"
            raise argparse.ArgumentError(action, f"invalid choice: {brief(repr(value))}{hint}")

    def error(self, message: str) -> NoReturn:
        """Print what the command requires and a sentence, and exit with status 2."""
        needed = [group for group in self._mutually_exclusive_groups if group.required]
        chosen = [action for group in needed for action in group._group_actions]
        shown = [a for a in self._actions if not a.option_strings or a.required or a in chosen]
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, shown, needed)
        self._print_message(formatter.format_help(), sys.stderr)
        self.exit(2, f"{self.prog}: error: {shortened(printable(message))} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        with suppress(ValueError):  # a closed stream; argparse handles only a missing or full one
            super()._print_message(message, file)


class MainParser(Parser):
    """The parser of the command line, whose help groups the commands by purpose."""

    def format_help(self) -> str:
        """Return the commands by purpose, each group with an example."""
        lines = [f"usage: {self.prog} COMMAND ...", "", str(self.description)]
        width = max(map(len, COMMANDS)) + 2
        for purpose, commands in GROUPS.items():
            lines += ["", f"{purpose}, such as: {next(iter(commands.values())).example}"]
            lines += [f"  {name:{width}}{command.help}" for name, command in commands.items()]
        lines += ["", "options:", "  --help, --version", "", "exit status:"]
        lines += [f"  {status:5}{meaning}" for status, meaning in _STATUS.items()]
        lines += ["", "Each command has --help with an example."]
        most = shutil.get_terminal_size().columns - 2  # as argparse
        return "".join(f"{wrapped(line, most)}\n" for line in lines)


class CommandParser(Parser):
    """The parser of one command; it has options only once it is used, so that the command line starts quickly."""

    def __init__(self, command: str, **settings: Any) -> None:
        super().__init__(description=f"{COMMANDS[command].help[:1].upper()}{COMMANDS[command].help[1:]}.", **settings)
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
        self.add_argument(
            "-v", "--verbose", action="count", default=0, help="say what takes long or may surprise; -vv: say more"
        )
        getattr(import_module(f"fewshot.cli.{command.options}"), f"{in_python(self.command)}_options")(self)
        flags = {}
        for action in self._actions:
            if span := getattr(action.type, "span", None):
                action.help = f"{action.help} [{span}]"
            if action.option_strings:
                flags[action.dest] = (action.option_strings[-1], action.nargs != 0)
        self.set_defaults(module=command.module, flags=flags)

    def sections(self) -> dict[str, list[argparse.Action]]:
        """Return the arguments, and the options by purpose, under their titles."""
        flags = {action.option_strings[-1]: action for action in self._actions if action.option_strings}
        sections = {"arguments": [action for action in self._actions if not action.option_strings]}
        sections[OWN] = [action for flag, action in flags.items() if purpose_of(flag) == OWN]
        for purpose, known in PURPOSES.items():
            sections[purpose] = [flags[flag] for flag in known if flag in flags]
        return {title: actions for title, actions in sections.items() if actions}

    def format_help(self) -> str:
        """Return the help, the options by purpose, with an example."""
        shown = self._get_formatter()
        shown.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        shown.add_text(self.description)
        for title, actions in self.sections().items():
            shown.start_section(title)
            shown.add_arguments(actions)
            shown.end_section()
        shown.add_text(self.epilog)
        return f"{shown.format_help()}\nexample:\n  {COMMANDS[self.command].example}\n"


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = MainParser(
        prog="fewshot",
        description="Few-shot classification: learn new classes from one to five examples, with no gradient step.",
    )
    parser.add_argument("--version", action="version", version=f"fewshot {__version__}")
    commands: Any = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, command=name)
    return parser


def in_python(command: str) -> str:
    """Return the name of a command in Python."""
    return command.replace("-", "_")
