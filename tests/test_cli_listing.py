"""What there is: methods, networks, and completion of words."""

import json
import subprocess
import sys

import pytest

from fewshot import list_learners
from fewshot.cli import main
from fewshot.cli.commands import COMMANDS
from fewshot.cli.listing import BACKBONES
from fewshot.embedding.backbones import check_backbone
from fewshot.embedding.backbones.presets import PRESETS
from fewshot.embedding.sources import OFFLINE
from fewshot.learners.registry import learner_class
from tests.processes import fewshot


def test_every_method_of_the_package_is_listed_with_one_line(capsys, monkeypatch):
    monkeypatch.delenv("FEWSHOT_PLUGINS", raising=False)
    assert main(["learners", "--json", "-"]) == 0
    rows = {row["learner"]: row for row in json.loads(capsys.readouterr().out)}
    built_in = {name for name in list_learners() if learner_class(name).__module__.startswith("fewshot.learners.")}
    assert rows.keys() == built_in
    for name, row in rows.items():
        assert 10 < len(row["about"]) < 120
        for other in filter(None, row["also"].split(", ")):
            assert learner_class(other) is learner_class(name)


def test_a_method_of_a_plug_in_is_listed(tmp_path):
    code = "from fewshot import Learner, register_learner\n@register_learner('mine')\nclass Mine(Learner):\n"
    (tmp_path / "mine.py").write_text(code + '    "Answer with the first class."\n')
    listed = fewshot("learners", "--plugin", tmp_path / "mine.py").stdout
    assert any(line.split() == ["mine", "Answer", "with", "the", "first", "class"] for line in listed.splitlines())


def test_every_short_name_is_listed_and_every_listed_network_exists(capsys):
    assert main(["backbones"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == list(BACKBONES)
    assert PRESETS.keys() | OFFLINE.keys() <= set(listed)
    for name in listed:
        check_backbone(PRESETS.get(name, name))


NO_NETWORK = """
import contextlib, os, sys
from fewshot.cli import main
os.chdir(sys.argv[1])
for words in sys.argv[2:]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        main(words.split())
    if found := {"torch", "timm", "sklearn", "matplotlib"} & set(sys.modules):
        sys.exit(f"fewshot {words} loads {found}")
"""


def test_what_needs_no_network_loads_no_torch(tmp_path):
    """Nor does the help of any command; `test_cli_editing.py` tries show, rename and the like on a classifier."""
    commands = [
        "--version", "--help", "dmeo", "learners", "backbones", "completion bash", "show gone", "history gone",
        "undo gone", "rename gone a b", "remove gone a", "calibrate gone --clear",
        "check gone", "predict gone a.jpg", "add gone a b.jpg", "test gone pool", "suggest gone pool",
        "export gone --out x", "annotate pool --model gone --out a.csv", "search a.csv b.jpg --model gone",
        "export-labels --model gone --out x",
        *(f"{name} --help" for name in COMMANDS), *(f"{name} --tpo" for name in COMMANDS), "data omniglot --help",
    ]  # fmt: skip
    ran = [sys.executable, "-c", NO_NETWORK, str(tmp_path), *commands]
    assert subprocess.run(ran, stderr=subprocess.PIPE, text=True, check=False).stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_a_shell_completes_commands_and_options(shell, capsys, tmp_path):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "--skip-unreadable" in script
    if shell == "bash":
        (tmp_path / "fewshot.bash").write_text(script)
        asked = f"source {tmp_path}/fewshot.bash; COMP_WORDS=(fewshot pre); COMP_CWORD=1; _shtab_fewshot; "
        asked += "echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["predict"]
