"""``fewshot annotate`` and ``search``: names that are not Unicode, filters, and empty results."""

import json
import os

import pytest
from PIL import Image

from fewshot import FewShotImageClassifier
from fewshot.cli import main
from tests.photographs import write_photos

FIT = ["fit", "--backbone", "conv4", "--weights", "random", "--size", "32", "--out", "model", "--quiet"]
ANNOTATE = ["annotate", "photos", "--model", "model", "--quiet", "--out"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write images, a classifier and a table."""
    monkeypatch.chdir(tmp_path)
    paths = write_photos(tmp_path / "photos", 3)
    assert main([*FIT, "photos"]) == 0
    assert main([*ANNOTATE, "all.parquet"]) == 0
    return paths


def search(*arguments):
    return main(["search", "all.parquet", *arguments, "--model", "model", "--quiet", "--json", "-"])


def test_of_several_values_of_one_name_any_passes(made, capsys):
    capsys.readouterr()
    for filters, n in ((["flower"], 3), (["flower", "temple"], 6)):
        assert search(made[0], "-k", "9", *(part for label in filters for part in ("--where", f"label={label}"))) == 0
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) == n
        assert {row["label"] for row in rows} == set(filters)
    assert search(made[0], "-k", "9", "--where", "unknown=[true]", "--where", "unknown=false") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 6
    assert search(made[0], "-k", "9", "--where", "probability>0.0", "--where", "probability<=1") == 0
    assert json.loads(capsys.readouterr().out) == rows
    assert search(made[0], "-k", "9", "--where", "probability>=2") == 1


@pytest.mark.filterwarnings("ignore:reject=")
def test_an_image_like_no_class_is_searched_among_all_labels_and_that_is_said(made, capsys):
    model = FewShotImageClassifier.load("model")
    model.set_params(reject=0.999999).save("model")  # nothing but the learned images themselves is that similar
    Image.effect_noise((64, 64), 200).save("noise.png")
    capsys.readouterr()
    assert search("noise.png", "-k", "6", "--by-label") == 0
    shown = capsys.readouterr()
    assert {row["label"] for row in json.loads(shown.out)} == {"flower", "temple"}
    assert shown.err == "fewshot: 1 of 1 image like no class, first noise.png; searched among all labels\n"
    assert search("noise.png", "-k", "6") == 0
    assert capsys.readouterr().err == ""


def test_mistakes_are_reported(made, tmp_path, capsys):
    annotate = ["annotate", str(tmp_path), "--model", "model", "--out", str(tmp_path / "t.parquet"), "--decimal-comma"]
    assert main(annotate) == 2
    assert "are about CSV; leave them out, or write to" in capsys.readouterr().err
    (tmp_path / "archive.csv").touch()
    assert main(["search", str(tmp_path / "archive.csv"), str(tmp_path / "photos"), "--model", "model"]) == 2
    assert "archive.csv is CSV, which holds no vectors to search; make a table that does" in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"no image")
    capsys.readouterr()
    for arguments, status, message in (
        ([made[0], "--where", "lable=e"], 2, "all.parquet has no column 'lable' for --where; did you mean label?"),
        ([made[0], "--where", "price<5"], 2, "all.parquet has no column 'price' for --where; expected one of label, "
         "likeliest, nearest, probability, similarity, unknown, or a column of your own, joined to the table by id"),
        ([made[0], "--where", "x=" + "[" * 100_000], 2, "--where x is nested too deeply; expected a value or a list"),
        ([made[0], "--where", "probability=>0.9"], 2, "--where is 'probability=>0.9'; expected NAME=VALUE or NAME>N"),
        ([made[0], "--where", "probability>=high"], 2, "--where is 'probability>=high'; expected a number after the"),
        ([made[0], "--where", "probability>1", "--where", "probability>2"], 2, "--where probability is bound twice by"),
        ([made[0], "--where", "probability>1", "--where", "probability=2"], 2, "--where probability has both a value "),
        (["bad.png"], 1, "bad.png: this is not an image that Pillow knows"),
    ):  # fmt: skip
        assert search(*arguments) == status
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith(f"fewshot: {message}")
    with pytest.warns(UserWarning, match=r"no record has label='flowr'; did you mean flower\?"):
        assert search(made[0], "--where", "label=flowr") == 1
    assert capsys.readouterr().err == f"fewshot: {made[0]}: nothing was found\n"


def test_names_that_are_no_unicode(made, tmp_path, capsys):
    os.rename("photos/temple", b"photos/caf\xe9")
    out = os.fsdecode(b"\xe9.parquet")
    assert main([*FIT, "photos", "--force"]) == 0
    assert main([*ANNOTATE, out]) == 0
    assert "written to \\xe9.parquet" in capsys.readouterr().out
    os.rename(out, "all.parquet")
    for condition in (["--by-label"], ["--where", "label=caf\udce9"], ["--where", "nearest=caf\udce9"]):
        assert search("photos/caf\udce9/00.png", *condition, "--csv", "found.csv") == 0, condition
