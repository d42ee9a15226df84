"""The command on devices, in this process."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier, digits, export
from fewshot.cli import main as fewshot
from fewshot.runtime import load
from fewshot.runtime.command import main

DATA = digits()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
    labels = np.array(["zero", "one", "two"])[DATA.labels[:3]]
    folder = tmp_path_factory.mktemp("device")
    export(FewShotImageClassifier(embedder).fit(DATA.images[:3], labels), folder / "model")
    for i in range(5):
        Image.fromarray(DATA.images[i]).save(folder / f"{i}.png")
    return folder


def test_it_learns_answers_and_forgets(exported, capsys, monkeypatch):
    monkeypatch.chdir(exported)
    assert main(["add", "model", "three", "3.png"]) == 0
    assert main(["predict", "model", "3.png", "0.png", "--json"]) == 0
    learned, _, text = capsys.readouterr().out.partition("\n")
    assert learned == "learned 1 image of 'three'; 4 classes; to go back: fewshot-runtime undo model"
    rows = json.loads(text)
    assert [(row["image"], row["label"]) for row in rows] == [("3.png", "three"), ("0.png", "zero")]
    assert all(0.25 < row["probability"] <= 1 for row in rows)
    assert main(["remove", "model", "three"]) == 0
    assert main(["show", "model"]) == 0
    forgotten = "'three' is forgotten; 3 classes left; to go back: fewshot-runtime undo model\n"
    assert capsys.readouterr().out == f"{forgotten}one   1\ntwo   1\nzero  1\n"


def test_a_wrong_picture_is_taken_back(exported, tmp_path, capsys):
    device = tmp_path / "device"
    load(exported / "model").save(device)

    def answers():
        assert main(["predict", str(device), str(exported), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    before = answers()
    assert [Path(row["image"]).name for row in before] == [f"{i}.png" for i in range(5)]
    assert main(["add", str(device), "one", str(exported / "3.png"), str(exported / "4.png")]) == 0
    capsys.readouterr()
    assert main(["add", str(device), "new", str(exported / "4.png")]) == 0
    told = capsys.readouterr()
    assert "to go back: fewshot-runtime undo" in told.out
    assert told.err.startswith("fewshot-runtime: learned already or twice, 1 of 1 image: "), "not as Python warns"
    assert answers() != before
    assert main(["undo", str(device)]) == 0
    assert capsys.readouterr().out == "undone: add 1 image of 'new'; 3 classes\n"
    assert main(["undo", str(device)]) == 0
    capsys.readouterr()
    assert answers() == before
    assert main(["undo", str(device)]) == 2
    assert "has no earlier version to go back to" in capsys.readouterr().err


def test_a_folder_of_the_day_becomes_a_table_for_excel(exported, tmp_path, capsys):
    day, table = tmp_path / "day", tmp_path / "day.csv"
    day.mkdir()
    for i in range(3):
        shutil.copy(exported / f"{i}.png", day)
    (day / "half.jpg").write_bytes(b"no image")
    given = ["predict", str(exported / "model"), str(day), "--csv", str(table)]
    assert main([*given, "--decimal-comma"]) == 1
    told = capsys.readouterr()
    assert told.out == f"4 images; written to {table}\n"
    assert told.err.startswith(f"fewshot-runtime: {day / 'half.jpg'}: ")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png", "half.jpg"]
    assert [row["label"] for row in rows] == ["zero", "one", "two", ""]
    assert "," in rows[0]["probability"]
    assert rows[3]["error"]
    assert not rows[0]["error"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("fit photos", 2, "fit needs torch; run: pip install fewshot-learn, then fewshot fit"),
        ("show gone", 2, "gone does not exist; give a folder that fewshot export has written"),
        ("show .", 2, "manifest.json"),
        ("remove model nine", 2, "nine"),
        ('add model "" gone.png', 2, "LABEL is empty; give a value"),
        ("add model 3.png 4.png", 2, "3.png is a file, but the name of the class comes before the images"),
        ("predict model gone.png", 2, "gone.png"),
        ("predict nodevice gone.png", 2, "nodevice does not exist"),
        ("predict model 3.png --spreadsheet", 2, "--spreadsheet and --decimal-comma are about --csv"),
        ("predict model 3.png --json --csv d.csv", 2, "--csv and --json are two forms of one table"),
        ("undo model3", 2, "model3 does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence(exported, capsys, monkeypatch, words, status, said):
    monkeypatch.chdir(exported)
    assert main([word.strip('"') for word in words.split()]) == status
    told = capsys.readouterr().err
    assert told.startswith("fewshot-runtime: ")
    assert said in told
    assert told.count("\n") == 1


def test_a_reader_that_goes_is_no_failure(exported):
    command = f"{sys.executable} -m fewshot.runtime show model | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=exported, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_distributions_in_one_environment_are_noticed(tmp_path, capsys, monkeypatch):
    """Other metadata than those of this environment, in which either may be installed."""
    for name in ("fewshot_learn", "fewshot_runtime"):
        (tmp_path / f"{name}-9.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 9\n"
        (tmp_path / f"{name}-9.dist-info" / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for run in (main, fewshot):
        assert run(["show", str(tmp_path / "gone")]) in (1, 2)
        told = capsys.readouterr().err.splitlines()[0]
        assert "fewshot-learn 9 and fewshot-runtime 9 are both installed and share files" in told
