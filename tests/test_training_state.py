import pytest
import torch

from fewshot.training.state import STATE, TrainingState, restore_optimizer

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
    assert all(str(tmp_path / STATE) in one and ("without resume" in one or "upgrade" in one) for one in told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"lr": 0.1, "n_way": 5}}, "lr is 0.1 here and was 0.003"),
        ({"config": {"lr": 0.003, "n_way": 5, "new": 1}}, "new is 1 here and was None"),
        ({"train": "xyz"}, "train is 'xyz' here and was 'abc'"),
        ({"val": "v"}, "val is 'v' here and was None"),
    ],
)
def test_the_state_of_another_run_is_refused_with_the_difference(change, message, tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError, match=f"{message}; use the same settings, or start again"):
        TrainingState.load(tmp_path, {**RUN, **change})


def test_damage_and_newer_formats_are_errors(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("fewshot.training.state.FORMAT", 2)
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
    monkeypatch.setattr("fewshot.training.state.sync", lambda path: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path)
    assert (tmp_path / STATE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
