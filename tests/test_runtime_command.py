"""The command on devices, in this process."""

import json

import numpy as np
import pytest
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier, digits, export
from fewshot.cli import main as fewshot
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
    assert learned == "learned 1 image of 'three'; 4 classes"
    rows = json.loads(text)
    assert [(row["image"], row["label"]) for row in rows] == [("3.png", "three"), ("0.png", "zero")]
    assert all(0.25 < row["probability"] <= 1 for row in rows)
    assert main(["remove", "model", "three"]) == 0
    assert main(["show", "model"]) == 0
    assert capsys.readouterr().out == "'three' is forgotten; 3 classes left\none   1\ntwo   1\nzero  1\n"


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
    ],
)
def test_what_is_wrong_is_one_sentence(exported, capsys, monkeypatch, words, status, said):
    monkeypatch.chdir(exported)
    assert main([word.strip('"') for word in words.split()]) == status
    told = capsys.readouterr().err
    assert told.startswith("fewshot-runtime: ")
    assert said in told
    assert told.count("\n") == 1


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
