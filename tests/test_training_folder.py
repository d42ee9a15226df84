"""Training replaces and removes no foreign files."""

import json
import os

import pytest

from fewshot import MetaTrainer, TrainConfig
from fewshot.cli import main
from fewshot.training.folder import refuse_foreign_files, remove_leftovers
from tests.training_data import TRAIN

HEADER = "episode,loss,accuracy,lr,seconds,val_accuracy,val_ci95\n"
MANIFEST = json.dumps({"manifest": {"command": "fewshot train"}, "config": {}})


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": '{"format": 2, "kind": "classifier"}', "memory-0123456789abcdef.safetensors": "x"},
        {"manifest.json": '{"name": "a web page"}'},
        {"manifest.json": "not JSON", "state.safetensors": "x"},
        {"manifest.json": '{"format": 2}', "best.safetensors": "x", "log.csv": HEADER},
        {"thesis.txt": "mine"},
        {"units/a.json": "mine"},
        {"log.csv": "date,hours\n"},
    ],
)
@pytest.mark.parametrize("option", [(), ("--force",), ("--resume",)])
def test_a_foreign_folder_is_refused_and_not_touched(tmp_path, capsys, files, option):
    out = tmp_path / "out"
    put(out, files)
    assert main(["train", str(tmp_path), "--out", str(out), *option]) == 2
    assert f"{out}" in capsys.readouterr().err
    assert contents(out) == files


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".DS_Store": "x", ".tmp/notes": "x"},
        {"log.csv": ""},
        {"log.csv": HEADER, ".log.csv.1-2.partial": "x"},
        {"state.safetensors": "x", "notes.txt": "mine"},
        {"best.safetensors": "x", "log.csv": HEADER, "manifest.json": MANIFEST},
    ],
)
def test_a_folder_of_a_training_is_accepted(tmp_path, files):
    put(tmp_path, files)
    refuse_foreign_files(tmp_path)
    refuse_foreign_files(tmp_path / "new")


def test_only_leftovers_of_a_killed_training_are_removed(tmp_path):
    tensors = (2).to_bytes(8, "little").decode() + "{}"
    ours = {
        ".state.safetensors.99999999-34.partial": "x",
        ".tmp000000": "",
        ".log.csv.99999999-2.partial": "x",
        ".tmpAb3x9Z": tensors,
    }
    others = {
        ".tmp-notes.txt": "x", ".draft.partial": "x", ".tmp/a": "x", ".tmpfile": "x", ".tmpabcdef": "notes",
        ".mine.csv.1-2.partial": "x", ".tmpabcdefg": tensors,
    }  # fmt: skip
    put(tmp_path, ours | others)
    (tmp_path / ".best.safetensors.1-2.partial").mkdir()
    remove_leftovers(tmp_path)
    assert contents(tmp_path) == others


@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors", "log.csv", "manifest.json"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_a_training_writes_through_no_link_in_its_folder(tmp_path, name, kind):
    folder, mine = tmp_path / "folder", tmp_path / "mine.txt"
    put(tmp_path, {"mine.txt": "mine", f"folder/{'log.csv' if name != 'log.csv' else 'best.safetensors'}": HEADER})
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(mine if kind == "link" else tmp_path / "new")
    trainer = MetaTrainer(config=TrainConfig(n_episodes=1, n_way=3, n_query=1))
    reason = rf"{name} is a link or not a regular file, and would be written to; remove it"
    for call in (lambda: refuse_foreign_files(folder), lambda: trainer.fit(TRAIN, out=folder, progress=False)):
        with pytest.raises(ValueError, match=reason):
            call()
    assert mine.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_foreign_log_is_not_replaced(tmp_path):
    put(tmp_path, {"log.csv": "date,hours\n", ".draft.partial": "x"})
    trainer = MetaTrainer(config=TrainConfig(n_episodes=1, n_way=3, n_query=1))
    with pytest.raises(ValueError, match=r"log\.csv is not the log of a training"):
        trainer.fit(TRAIN, out=tmp_path, progress=False)
    (tmp_path / "log.csv").unlink()
    trainer.fit(TRAIN, out=tmp_path, progress=False)
    assert (tmp_path / ".draft.partial").exists()
