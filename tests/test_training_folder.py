"""Training replaces and removes no foreign files, and reads its state as it was written."""

import json
import os

import pytest
import torch

from fewshot import MetaTrainer, TrainConfig
from fewshot.cli import main
from fewshot.training.folder import STATE, TrainingState, refuse_foreign_files, remove_leftovers, restore_optimizer
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


RUN = {"config": {"lr": 0.003, "n_way": 5}, "train": "abc", "val": None}


def saved(folder):
    state = TrainingState(
        RUN, {"steps": 3}, {"backbone.w": torch.arange(3.0)}, {"backbone.w": torch.ones(3)},
        {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(3, generator=torch.Generator().manual_seed(0))}},
    )  # fmt: skip
    state.save(folder)
    return state


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert TrainingState.load(tmp_path, RUN) is None
    state = saved(tmp_path)
    loaded = TrainingState.load(tmp_path, RUN)
    assert loaded.progress == {"steps": 3}
    assert torch.equal(loaded.model["backbone.w"], torch.arange(3.0))
    assert torch.equal(loaded.best["backbone.w"], torch.ones(3))
    assert torch.equal(loaded.optimizer[0]["exp_avg"], state.optimizer[0]["exp_avg"])
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_the_state_of_the_optimiser_is_restored(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight], 0.1)
    state = saved(tmp_path)
    state.optimizer[0]["exp_avg_sq"] = torch.ones(3)
    restore_optimizer(state, optimizer)
    assert torch.equal(optimizer.state[weight]["exp_avg"], state.optimizer[0]["exp_avg"])
    assert optimizer.state[weight]["step"] == 3


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    saved(tmp_path)
    content, told = (tmp_path / STATE).read_bytes(), []
    for i, place in enumerate(range(0, len(content), 5)):
        (tmp_path / STATE).write_bytes(content[:place] + bytes([content[place] ^ 1 << i % 8]) + content[place + 1 :])
        try:
            loaded = TrainingState.load(tmp_path, RUN)
        except ValueError as error:
            told.append(str(error))
        else:
            assert (loaded.run, loaded.progress) == (RUN, {"steps": 3})
            assert torch.equal(loaded.model["backbone.w"], torch.arange(3.0))
    assert len(told) > 0.95 * len(content) / 5
    assert all(str(tmp_path / STATE) in one and ("instead of resume" in one or "upgrade" in one) for one in told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"lr": 0.1, "n_way": 5}}, "lr is 0.1 here and was 0.003"),
        ({"config": {"lr": 0.003, "n_way": 5, "new": 1}}, "new is 1 here and was None"),
        ({"config": {"lr": 0.003, "n_way": 5, "swap_shots": True}}, "swap_shots is True here and was False"),
        ({"config": {"lr": 0.003, "n_way": 5, "n_episodes": 99}}, "n_episodes is 99 here and was 500"),
        ({"train": "xyz"}, "train holds other images or labels"),
        ({"val": "v"}, "val is 'v' here and was None"),
        (
            {"config": {"lr": 0.1, "n_way": 9}, "augment": "Chain(steps=(Mirror(), Light(by=0.2)))"},
            "augment is Mirror and Light here and was None, lr is 0.1 here and was 0.003, n_way is 9 here and was 5",
        ),
    ],
)
def test_the_state_of_another_run_is_refused_with_the_difference(change, message, tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError, match=f"{message}; use the same settings, or start again"):
        TrainingState.load(tmp_path, {**RUN, **change})


def test_a_state_without_the_first_temperature_of_its_learner_is_resumed_with_any(tmp_path):
    learner = {"name": "prototypical", "params": {"learn_temperature": True}}
    TrainingState({**RUN, "learner": learner}, {}, {}, {}, {}).save(tmp_path)
    now = {**learner, "params": {"learn_temperature": True, "temperature": 0.5}}
    assert TrainingState.load(tmp_path, {**RUN, "learner": now}) is not None
    fixed = {**learner, "params": {"learn_temperature": False, "temperature": 0.5}}
    with pytest.raises(ValueError, match="training: learn_temperature is False here and was True; use"):
        TrainingState.load(tmp_path, {**RUN, "learner": fixed})


def test_a_setting_that_is_newer_than_the_state_had_the_effect_of_its_default(tmp_path):
    saved(tmp_path)
    assert TrainingState.load(tmp_path, {**RUN, "config": {**RUN["config"], "swap_shots": False}}).run["train"] == "abc"


def test_damage_and_newer_formats_are_errors(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("fewshot.training.folder.FORMAT", 2)
        saved(tmp_path)
    with pytest.raises(ValueError, match="which is newer"):
        TrainingState.load(tmp_path, RUN)
    whole = (tmp_path / STATE).read_bytes()
    for data in (whole[:-3], b"", b"x" * 100):
        (tmp_path / STATE).write_bytes(data)
        with pytest.raises(ValueError, match="is not a complete training state"):
            TrainingState.load(tmp_path, RUN)


def test_a_failed_save_leaves_the_old_state(tmp_path, monkeypatch):
    saved(tmp_path)
    before = (tmp_path / STATE).read_bytes()
    monkeypatch.setattr("fewshot.training.folder.sync", lambda path: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path)
    assert (tmp_path / STATE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
