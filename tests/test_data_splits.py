import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import LabeledImages
from fewshot.data.packed import write_packed
from fewshot.data.splits import check_total, list_splits, read_splits

SPLITS = {"train": ["wolf", "red fox"], "val": ["001"], "test": ["NA"]}


def test_a_json_file_and_a_folder_of_lists_say_the_same(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({**SPLITS, "name": "mine"}))
    for split, classes in SPLITS.items():
        (tmp_path / f"{split}.txt").write_bytes("\r\n".join(["", *classes, "", ""]).encode())
    assert read_splits(tmp_path / "s.json") == read_splits(tmp_path) == SPLITS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", r"cannot be read as splits .*; expected a JSON file with the lists train, val and test, or a folder"),
        ("[1, 2]", "cannot be read as splits"),
        (b"\xff\xfe", "cannot be read as splits"),
        (json.dumps({"train": [], "val": []}), "cannot be read as splits .*'test'"),
        (json.dumps({"train": "abc", "val": [], "test": []}), "train is no list of class names"),
        (json.dumps({"train": [], "val": [["a"]], "test": []}), "val is no list of class names"),
        (json.dumps({"train": [], "val": [], "test": [1]}), "test is no list of class names"),
        (json.dumps({"train": ["a"], "val": [], "test": ["a"]}), "has the class 'a' in train and in test"),
        (json.dumps({"train": ["a", "a"], "val": [], "test": []}), "has the class 'a' in train and in train"),
    ],
)
def test_a_file_that_is_no_split_is_told_in_a_sentence(tmp_path, text, reason):
    (tmp_path / "s.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"s\.json .*" + reason if "class 'a'" not in reason else reason):
        read_splits(tmp_path / "s.json")


def test_what_is_not_there_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ValueError, match="No such file"):
            read_splits(path)


def test_counts_are_held_against_the_published_ones():
    check_total("classes", 3, 3)
    with pytest.raises(ValueError, match="found 2 classes, expected 3; the archive is not the published one"):
        check_total("classes", 2, 3)


def test_the_splits_of_every_form_of_data_are_listed(tmp_path):
    for split in ("val", "train"):
        (tmp_path / "folders" / split / "cat").mkdir(parents=True)
        Image.new("L", (3, 3)).save(tmp_path / "folders" / split / "cat" / "1.png")
    (tmp_path / "folders" / "test").mkdir()
    assert list_splits(tmp_path / "folders") == ["train", "val"]
    table = pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"], "split": ["train", "test"]})
    write_packed(tmp_path / "packed", np.zeros((2, 3, 3), np.uint8), table, {})
    table.to_csv(tmp_path / "t.csv", index=False)
    table[["path", "label"]].to_csv(tmp_path / "plain.csv", index=False)
    assert list_splits(tmp_path / "packed") == list_splits(tmp_path / "t.csv") == ["train", "test"]
    for nothing in ("plain.csv", "none.csv", "none", "folders/train"):
        assert list_splits(tmp_path / nothing) == []


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3)).save(root / name)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/cat/1.png", "test/dog/1.png"], ["train", "test"]),
        (["TEST/cat/1.png", "Train/dog/1.png", "Validation/owl/1.png"], ["train", "val", "test"]),
        (["training/cat/1.png", "testing/dog/1.png", "valid/owl/1.png"], ["train", "val", "test"]),
        (["valid/cat/1.png", "validation/owl/1.png"], ["val", "validation"]),
        (["train/cat/1.png"], ["train"]),
        (["train/cat/1.png", "test/cat/1.png", "unlabeled/1.png"], ["train", "test"]),
    ],
)
def test_folders_of_splits_are_splits_and_not_classes(tmp_path, names, splits):
    put(tmp_path, *names)
    found = list_splits(tmp_path)
    assert found == splits
    with pytest.raises(ValueError, match=r"holds the splits .*, not classes; name one, such as split='(train|val)'"):
        LabeledImages.open(tmp_path)
    with pytest.raises(ValueError, match="holds the splits"):
        LabeledImages.from_folder(tmp_path)
    for split in found:
        assert set(LabeledImages.open(tmp_path, split).labels) <= {"cat", "dog", "owl"}
    with pytest.raises(ValueError, match="has no split 'tset'; it has"):
        LabeledImages.open(tmp_path, "tset")


@pytest.mark.parametrize(
    "names",
    [
        ["train/1.png", "bus/1.png"],
        ["train/steam/1.png", "bus/1.png"],
        ["train/steam/1.png", "bus/double/1.png", "car/1.png"],
        ["trains/old/1.png", "tests/a/1.png"],
    ],
)
def test_folders_of_classes_are_classes(tmp_path, names):
    put(tmp_path, *names)
    assert list_splits(tmp_path) == []
    assert sorted(LabeledImages.open(tmp_path).classes) == sorted(name.partition("/")[0] for name in names)


def test_classes_that_are_called_as_splits_are_learned_with_a_warning(tmp_path):
    put(tmp_path, "train/1.png", "test/1.png")
    with pytest.warns(UserWarning, match=r"are called 'test' and 'train'; if these are splits, put a folder for each"):
        assert len(LabeledImages.open(tmp_path).classes) == 2
