"""``fewshot history`` and ``undo``, and how the commands that change a classifier say the way back."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from fewshot import FewShotImageClassifier
from fewshot.cli import main
from tests.photographs import quick_embedder, write_photos
from tests.processes import python


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("versions")
    paths = write_photos(root / "photos", 3)
    labels = [path.split("/")[-2] for path in paths]
    FewShotImageClassifier(quick_embedder(), progress=False).fit(paths, labels).save(root / "model", note="fit")
    return root


@pytest.fixture
def model(made, tmp_path):
    shutil.copytree(made / "model", tmp_path / "model")
    return tmp_path / "model"


def rows(model, capsys):
    capsys.readouterr()
    assert main(["history", str(model), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("inside", [".", "classifier"])
def test_a_zip_archive_of_a_classifier_is_to_be_unzipped_by_the_line_that_is_printed(
    made, tmp_path, capsys, monkeypatch, inside
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "model", tmp_path / "there" / inside, dirs_exist_ok=True)
    shutil.make_archive("my model", "zip", tmp_path / "there")
    for words in (["show"], ["predict", "x.png"], ["calibrate", "--clear"], ["history"], ["add", "c", "x.png"]):
        assert main([words[0], "my model.zip", *words[1:]]) == 2
        said, _, line = capsys.readouterr().err.strip().partition("unzip it first: ")
        assert said == "fewshot: my model.zip is a zip archive; expected the folder of a saved classifier: "
    subprocess.run(line.replace("python3", sys.executable, 1), shell=True, check=True)
    assert main(["show", "my model" if inside == "." else inside]) == 0


def test_every_command_that_changes_a_classifier_says_how_to_go_back(made, model, tmp_path, capsys):
    shutil.copytree(made / "model", tmp_path / "both")
    image, photos = str(made / "photos" / "temple" / "00.png"), str(made / "photos")
    network = ["--backbone", "conv4", "--weights", "random", "--size", "28"]
    commands = [
        (["add", str(model), "heron", image], model, "add 1 image of heron"),
        (["rename", str(model), "heron", "grey heron"], model, "rename heron to grey heron"),
        (["merge", str(model), str(made / "model")], model, "merge 1 classifier"),
        (["calibrate", str(model), photos, "--episodes", "2"], model, "calibrate"),
        (["remove", str(model), "temple", "--images", image], model, "remove 1 image of temple"),
        (["remove", str(model), "grey heron"], model, "remove grey heron"),
        (["fit", photos, "--out", str(model), "--force", *network], model, "fit 6 images"),
        (["merge", str(made / "model"), str(made / "model"), "--out", str(tmp_path / "both"), "--force"],
         tmp_path / "both", "merge 1 classifier"),
    ]  # fmt: skip
    for command, folder, note in commands:
        before = FewShotImageClassifier.load(folder).n_support_.tolist()
        capsys.readouterr()
        assert main([*command, "--quiet"]) == 0
        said = capsys.readouterr().out
        assert said.count(f"; to go back: fewshot undo {folder}\n") == 1
        assert rows(folder, capsys)[-1]["what"] == note
        assert main(["undo", str(folder)]) == 0
        assert FewShotImageClassifier.load(folder).n_support_.tolist() == before
        number = rows(folder, capsys)[-1]["version"]
        assert main(["undo", str(folder), "--to", str(number)]) == 0
    assert len(rows(model, capsys)) == 8
    assert main(["fit", photos, "--out", str(tmp_path / "new"), *network, "--quiet"]) == 0
    assert "to go back" not in capsys.readouterr().out


def test_history_is_a_table_and_undo_a_sentence(model, made, capsys):
    main(["remove", str(model), "temple"])
    capsys.readouterr()
    assert main(["history", str(model)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["version", "saved", "what", "classes", "images", "current"]
    assert lines[1].split()[3:] == ["remove", "temple", "1", "3", "yes"]
    assert lines[-1] == f"to go back: fewshot undo {model}, or --to a version"
    assert main(["undo", str(model)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{model} is version 1 (fit) of 20")
    assert said.endswith(f"again: 2 classes from 6 images; to return: fewshot undo {model} --to 2\n")
    assert main(["undo", str(model)]) == 2
    assert "no earlier version to go back to: it keeps 2" in capsys.readouterr().err
    main(["show", str(model)])
    assert f"history      1 other version: fewshot history {model}" in capsys.readouterr().out
    assert main(["history", str(model), "--clear"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert len(list(model.iterdir())) == 4


def test_a_killed_command_leaves_a_classifier_that_answers(made, model):
    image = str(made / "photos" / "temple" / "00.png")
    code = "import os, signal; os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "import sys; from fewshot.cli import main; main(sys.argv[1:])"
    for arguments in (["add", str(model), "heron", image, "--quiet"], ["undo", str(model)]):
        assert python(code, *arguments).returncode == -signal.SIGKILL
        assert FewShotImageClassifier.load(model).classes_.tolist() == ["flower", "temple"]
        if arguments[0] == "add":
            assert main(arguments) == 0
            assert main(["undo", str(model)]) == 0
            assert main(["undo", str(model), "--to", "2"]) == 0
            FewShotImageClassifier.load(model).remove_class("heron").save(model)
    assert main(["predict", str(model), image]) == 0


def test_processes_that_add_and_undo_at_once_take_turns(made, model):
    image = str(made / "photos" / "temple" / "00.png")
    children = []
    for i in range(4):
        children.append(os.fork())
        if not children[-1]:
            status = 99
            try:
                status = main(["add", str(model), f"new{i}", image, "--quiet"]) + main(["undo", str(model)])
            finally:
                os._exit(status)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    history = FewShotImageClassifier.history(model)
    assert sorted(one.note for one in history) == sorted(["fit", *(f"add 1 image of new{i}" for i in range(4))])
    assert len(FewShotImageClassifier.load(model).classes_) == next(one.n_classes for one in history if one.is_current)
