import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from fewshot.data.images import LabeledImages
from fewshot.data.packed import digest, is_packed, read_packed, write_packed

LABELS = ["NA", "001", "null", 'x,"y"', "1e5", "é"]


@pytest.fixture
def folder(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    splits = ["train", "train", "val", "test", "test", "test"]
    table = pd.DataFrame({"path": list("abcdef"), "label": LABELS, "split": splits})
    write_packed(tmp_path / "deep" / "packed", images, table, {"sources": {"a.zip": "00"}})
    return tmp_path / "deep" / "packed"


def test_what_is_written_is_what_is_read(folder):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    data = LabeledImages.open(folder)
    np.testing.assert_array_equal(data.images, images)
    assert data.labels.tolist() == LABELS
    for split, rows in {"train": [0, 1], "val": [2], "test": [3, 4, 5]}.items():
        part = LabeledImages.open(folder, split)
        np.testing.assert_array_equal(part.images, images[rows])
        assert part.labels.tolist() == [LABELS[i] for i in rows]


def test_pixels_are_mapped_and_cannot_be_written_to(folder):
    images, _ = read_packed(folder, "test")
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert isinstance(images.base, np.memmap)


def test_a_split_whose_rows_are_scattered_is_read_too(tmp_path):
    images = np.arange(5, dtype=np.uint8).repeat(4).reshape(5, 2, 2)
    table = pd.DataFrame({"path": list("abcde"), "label": list("vwxyz"), "split": ["a", "b", "a", "b", "a"]})
    write_packed(tmp_path, images, table, {})
    assert read_packed(tmp_path, "a")[0][:, 0, 0].tolist() == [0, 2, 4]
    assert read_packed(tmp_path, "b")[1].tolist() == ["w", "y"]


def test_the_manifest_says_what_is_in_it(folder):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sources"] == {"a.zip": "00"}
    assert manifest["splits"]["test"] == {"classes": 3, "images": 3}
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest(folder / name)
    assert sorted(p.name for p in folder.iterdir()) == ["images.npy", "manifest.json", "table.csv"]


def test_writing_again_replaces_everything(folder):
    table = pd.DataFrame({"path": ["a"], "label": ["z"], "split": ["test"]})
    write_packed(folder, np.zeros((1, 3, 3, 3), np.uint8), table, {})
    assert repr(LabeledImages.open(folder)) == "LabeledImages(1 image of 3 x 3 x 3, 1 class)"
    assert "sources" not in json.loads((folder / "manifest.json").read_text())


def test_an_interrupted_preparation_is_not_taken_for_data(folder, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_packed(folder, np.zeros((0, 3, 3), np.uint8), pd.DataFrame(columns=["path", "label", "split"]), {})
    with pytest.raises(ValueError, match=r"has no manifest\.json: its preparation was interrupted; prepare it again"):
        LabeledImages.open(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["images.npy", "table.csv"]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pd.DataFrame({"path": ["a"], "label": ["x"], "split": ["train"]}), "has 1 row and columns"),
        (pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"]}), r"columns \['path', 'label'\]; expected path, label"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_and_nothing_written(tmp_path, table, reason):
    with pytest.raises(ValueError, match=reason):
        write_packed(tmp_path / "p", np.zeros((2, 3, 3), np.uint8), table, {})
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("kept", [0, 5, 64, 150])
def test_damaged_pixels_are_told_in_a_sentence(folder, kept):
    data = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(data[:kept])
    with pytest.raises(ValueError, match=r"images\.npy is damaged .*; prepare the data again"):
        read_packed(folder)


def test_a_table_of_other_length_is_told(folder):
    with (folder / "table.csv").open("a") as file:
        file.write("g,h,test\n")
    with pytest.raises(ValueError, match=r"table\.csv has 7 rows and images\.npy 6 images; prepare the data again"):
        read_packed(folder)


def test_an_unknown_split_is_told_with_those_there_are(folder):
    with pytest.raises(ValueError, match="has no split 'tset'; it has test, train, val"):
        LabeledImages.open(folder, "tset")


def test_a_folder_is_packed_if_pixels_and_table_are_there(folder):
    assert is_packed(folder)
    assert not is_packed(folder.parent)
    (folder / "table.csv").unlink()
    assert not is_packed(folder)


IMAGES, FRAME = np.zeros((1, 2, 2), np.uint8), pd.DataFrame({"path": ["a"], "label": ["x"], "split": ["test"]})


@pytest.mark.parametrize(
    "files", [["manifest.json"], ["thesis.txt"], ["images.npy"], ["manifest.json", "memory-0123456789abcdef.npz"]]
)
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds other files, such as '{files[0]}'; choose an empty folder"):
        write_packed(tmp_path, IMAGES, FRAME, {})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(files, "mine")


@pytest.mark.parametrize("name", ["images.npy", "table.csv", "manifest.json"])
def test_prepared_data_are_not_written_through_a_link(tmp_path, name):
    folder, mine = tmp_path / "data", tmp_path / "mine"
    write_packed(folder, IMAGES, FRAME, {})
    (folder / name).rename(mine)
    (folder / name).symlink_to(mine)
    before = mine.read_bytes()
    with pytest.raises(
        ValueError, match=rf"{name} is a link or not a regular file, and would be written to; remove it"
    ):
        write_packed(folder, IMAGES + 1, FRAME, {"more": 1})
    assert mine.read_bytes() == before


@pytest.mark.parametrize("files", [[], [".DS_Store"], ["images.npy", "table.csv"]])
def test_prepared_data_are_replaced_and_a_preparation_that_was_interrupted_is_repeated(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("half")
    for _ in range(2):
        write_packed(tmp_path, IMAGES, FRAME, {})
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".DS_Store") == [
        "images.npy", "manifest.json", "table.csv"
    ]  # fmt: skip


def test_an_image_of_mapped_data_becomes_a_tensor_without_a_warning(tmp_path):
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    write_packed(tmp_path, images, pd.DataFrame({"path": "made", "label": ["a", "b"], "split": "test"}), {})
    data = LabeledImages.open(tmp_path, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch, _ = next(iter(torch.utils.data.DataLoader(data, batch_size=2, generator=torch.Generator())))
    assert batch.tolist() == images.tolist()
