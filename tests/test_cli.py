"""The command line, run as a process."""

import subprocess
import sys

import pytest


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


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("demo", "--out", str(tmp_path / "file" / "demo"))
    assert result.returncode == 1
    assert "Not a directory; choose another place with --out" in result.stderr
    assert "Traceback" not in result.stderr
