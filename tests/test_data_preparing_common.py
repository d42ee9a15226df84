import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot import LabeledImages
from fewshot.data.preparing.common import check_total, describe_duplicates, find_duplicates, finish
from fewshot.data.preparing.splits import SPLITS, read_splits


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
    assert lines[0].startswith("2 images found more than once (1 of them in two classes); 1 across splits, of which 1")
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
    assert manifest["manifest"]["command"]
    assert manifest["manifest"]["versions"]["fewshot"]


ROWS = st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("xyz"), st.sampled_from("123456")), max_size=25)


def table_of(rows):
    frame = pd.DataFrame(rows, columns=["split", "label", "hash"])
    frame["path"] = [f"{i:03d}" for i in range(len(rows))]
    return frame


@given(ROWS)
def test_row_68_no_content_is_in_two_splits_and_none_is_lost(rows):
    table = table_of(rows)
    keep, _ = find_duplicates(table, table["hash"].tolist())
    kept = table[keep]
    assert kept.groupby("hash")["split"].nunique().le(1).all()
    for content, group in table.groupby("hash"):
        dearest = max(group["split"], key=SPLITS.index)
        expected = group[group["split"] == dearest]["path"].tolist()
        assert kept[kept["hash"] == content]["path"].tolist() == expected


@given(ROWS)
def test_the_listing_holds_every_image_that_has_a_copy(rows):
    table = table_of(rows)
    keep, listing = find_duplicates(table, table["hash"].tolist())
    counts = table["hash"].map(table["hash"].value_counts())
    assert sorted(listing["path"]) == table[counts > 1]["path"].tolist()
    assert set(listing[listing["action"] == "dropped"]["path"]) == set(table[~keep]["path"])
    assert list(listing.columns) == ["content", "path", "label", "split", "action"]
    assert listing["content"].is_monotonic_increasing


def test_the_index_of_the_table_does_not_matter():
    table = table_of([("train", "x", "1"), ("test", "x", "1"), ("val", "y", "2")]).set_index(pd.Index([5, 5, 0]))
    keep, listing = find_duplicates(table, ["1", "1", "2"])
    assert keep.tolist() == [False, True, True]
    assert listing["action"].tolist() == ["dropped", "kept"]


def test_a_sentence_counts_what_was_found():
    table = table_of([("train", "x", "1"), ("val", "y", "1"), ("test", "x", "1"), ("val", "z", "2"), ("val", "z", "2")])
    _, listing = find_duplicates(table, table["hash"].tolist())
    assert describe_duplicates(listing) == (
        "2 images found more than once (1 of them in two classes); 1 across splits, of which 2 copies dropped"
    )
    assert describe_duplicates(listing[:0]) == "no image occurs twice"


PUBLISHED = {"train": ["wolf", "red fox"], "val": ["001"], "test": ["NA"]}


def test_a_json_file_and_a_folder_of_lists_say_the_same(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({**PUBLISHED, "name": "mine"}))
    for split, classes in PUBLISHED.items():
        (tmp_path / f"{split}.txt").write_bytes("\r\n".join(["", *classes, "", ""]).encode())
    assert read_splits(tmp_path / "s.json") == read_splits(tmp_path) == PUBLISHED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", r"cannot be read as splits .*; expected a JSON file with the lists train, val and test, or a folder"),
        ("[1, 2]", "cannot be read as splits"),
        (b"\xff\xfe", "cannot be read as splits"),
        (json.dumps({"train": [], "val": []}), "cannot be read as splits .*'test'"),
        (json.dumps({"train": "abc", "val": [], "test": []}), "train is not a list of class names"),
        (json.dumps({"train": [], "val": [["a"]], "test": []}), "val is not a list of class names"),
        (json.dumps({"train": [], "val": [], "test": [1]}), "test is not a list of class names"),
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
