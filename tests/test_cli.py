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


def test_as_a_process_it_tells_mistakes_in_a_sentence():
    result = run()
    assert result.returncode == 2
    assert "required: COMMAND" in result.stderr
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
