import argparse
import json

import numpy as np
import pandas as pd
import pytest

from fewshot.data.images import LabeledImages
from fewshot.data.preparation import arguments, finish, run, told
from fewshot.errors import DownloadError


@pytest.fixture
def prepared(tmp_path):
    """Six images, out of order: 0 and 3 are equal across splits, 2 and 4 within one."""
    images = np.arange(6, dtype=np.uint8).repeat(4).reshape(6, 2, 2)
    images[3], images[4] = images[0], images[2]
    splits = ["train", "val", "test", "test", "test", "train"]
    table = pd.DataFrame({"path": list("fedcba"), "label": list("yxwzwx"), "split": splits})
    before, lines = images.copy(), []
    finish(tmp_path / "out", images, table, {"a.zip": "00"}, lines.append)
    assert (images == before).all()
    assert list(table.columns) == ["path", "label", "split"]
    return tmp_path / "out", lines


def test_the_data_lie_by_split_label_and_path(prepared):
    folder, _ = prepared
    table = pd.read_csv(folder / "table.csv")
    assert table.values.tolist() == [
        ["a", "x", "train"],
        ["e", "x", "val"],
        ["b", "w", "test"],
        ["d", "w", "test"],
        ["c", "z", "test"],
    ]
    assert LabeledImages.open(folder).images[:, 0, 0].tolist() == [5, 1, 2, 2, 0]
    assert LabeledImages.open(folder, "test").labels.tolist() == ["w", "w", "z"]


def test_the_copies_are_listed_and_the_counts_told(prepared):
    folder, lines = prepared
    listing = pd.read_csv(folder / "duplicates.csv").sort_values("path")
    assert listing[["path", "action"]].values.tolist() == [
        ["b", "kept"],
        ["c", "kept"],
        ["d", "kept"],
        ["f", "dropped"],
    ]
    assert lines[0].startswith("2 images occur more than once (1 of them in two classes); 1 across splits, of which 1")
    assert lines[0].endswith(f"see {folder}/duplicates.csv")
    assert [line.split() for line in lines[2:5]] == [
        ["train", "1", "1", "1"],
        ["val", "1", "1", "1"],
        ["test", "2", "3", "1-2"],
    ]


def test_the_manifest_says_from_what_and_how(prepared):
    manifest = json.loads((prepared[0] / "manifest.json").read_text())
    assert manifest["sources"] == {"a.zip": "00"}
    assert manifest["splits"]["test"] == {"classes": 2, "images": 3}
    assert manifest["manifest"]["command"].startswith("python ")
    assert manifest["manifest"]["versions"]["fewshot"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (ValueError("no such split"), 2),
        (DownloadError("cannot be fetched"), 1),
        (PermissionError("denied"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_status_tells_mistakes_from_failures(monkeypatch, capsys, error, status):
    monkeypatch.setattr("sys.argv", ["x.py"])

    def prepare(options):
        if error:
            raise error

    assert run(argparse.ArgumentParser(prog="x.py"), prepare) == status
    expected = f"x.py: {error}\n" if status in (1, 2) else ""
    assert capsys.readouterr().err == expected


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x.py"])
    with pytest.raises(ZeroDivisionError):
        run(argparse.ArgumentParser(), lambda options: 1 / 0)


def test_every_script_has_the_same_options():
    options = arguments("x.py", "About.").parse_args(["--out", "o", "--quiet"])
    assert options.out == "o"
    assert told(options) == {"folder": "downloads", "progress": False}
