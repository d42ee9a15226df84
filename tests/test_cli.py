"""The command line, run as a process."""

import shlex
import subprocess
import sys

import pytest

from fewshot.cli import main, make_parser
from fewshot.cli.commands import COMMANDS


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "fewshot", *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_help_names_the_commands():
    result = run("--help")
    assert result.returncode == 0
    assert "demo" in result.stdout
    assert "--train-episodes" in run("demo", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: COMMAND"),
        (("dmeo",), "invalid choice: 'dmeo'"),
        (("demo", "--episodes", "none"), "expected a whole number from 1 to 10000000, not 'none'"),
        (("demo", "--seed", "-1"), "expected a whole number from 0 to 4294967295, not '-1'"),
    ],
)
def test_a_users_mistake_is_exit_status_2_and_one_sentence(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "usage", "hint"),
    [
        ("dmeo", "fewshot COMMAND ...", "'dmeo'; did you mean demo?"),
        ("fit photos --outt model", "fewshot fit --out DIR FOLDER", "--outt; did you mean --out?"),
        ("predict model a.jpg --covrage=0.9", "fewshot predict DIR IMAGES", "--covrage; did you mean --coverage?"),
        ("suggest x --strategy herdin", "fewshot suggest [DIR] FOLDER", "'herdin'; did you mean herding?"),
        ("data omniglo", "fewshot data DATASET ...", "'omniglo'; did you mean omniglot?"),
        ("data folder x --min-image=2 --mn-images 2", "fewshot data folder --out CSV FOLDER", "--min-images?"),
        ("rename model a b c", "fewshot rename DIR LABEL NEW", "unrecognized arguments: c (see fewshot rename --help)"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest_and_the_usage_of_its_command(words, usage, hint, capsys):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith(f"usage: {usage}")
    assert hint in told


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_an_example_that_it_understands(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    example = capsys.readouterr().out.split("example:\n")[1].strip()
    assert make_parser().parse_args(shlex.split(example)[1:]).command == name


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("demo", "--out", str(tmp_path / "file" / "demo"))
    assert result.returncode == 1
    assert "Not a directory; choose another place with --out" in result.stderr
    assert "Traceback" not in result.stderr
