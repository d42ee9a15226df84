"""The help of a command shows the options of one purpose together."""

import pytest

from fewshot.cli import main
from fewshot.cli.commands import COMMANDS
from fewshot.cli.parser import CommandParser
from fewshot.cli.purposes import OWN, PURPOSES, purpose_of


def flags_of(command):
    parser = CommandParser(command, prog="fewshot")
    parser.define()
    return [action.option_strings[-1] for action in parser._actions if action.option_strings]


def helped(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_is_listed_once_below_what_it_is_for(command, capsys):
    title, found = None, {}
    for line in helped(command, capsys).splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line[:-1]
        elif line.startswith("  -") and title != "example":
            words = [word.rstrip(",") for word in line.split("  ")[1].split()]
            flag = [word for word in words if word.startswith("-")][-1]
            assert flag not in found
            found[flag] = title
    assert found == {flag: purpose_of(flag) for flag in flags_of(command)}


def test_the_example_of_a_grid_comes_after_the_options(capsys):
    said = helped("bench", capsys)
    assert said.index("every command:") < said.index("[[datasets]]") < said.index("example:\n  fewshot bench")


def test_each_purpose_has_options_of_several_commands_and_none_twice():
    every = [flags_of(command) for command in COMMANDS]
    listed = [flag for flags in PURPOSES.values() for flag in flags]
    assert len(set(listed)) == len(listed)
    assert {flag for flag in listed if not any(flag in flags for flags in every)} == set()
    assert OWN not in PURPOSES


def test_the_help_of_fit_in_order(capsys):
    titles = [line[:-1] for line in helped("fit", capsys).splitlines() if line.endswith(":") and line[0] != " "]
    want = ["arguments", "options", "which images", "network", "unknown images", "output", "every command", "example"]
    assert titles == want
