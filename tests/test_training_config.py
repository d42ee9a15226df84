import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from fewshot import TrainConfig


def test_a_file_sets_fields(tmp_path):
    (tmp_path / "a.toml").write_text('n_way = 60\nlr = 1\nrotate_support = false\nprecision = "bf16"\n')
    values = TrainConfig.from_toml(tmp_path / "a.toml")
    assert values == {"n_way": 60, "lr": 1.0, "rotate_support": False, "precision": "bf16"}
    config = TrainConfig(**values)
    assert (config.n_way, config.n_query) == (60, 5)


def test_strings_are_parsed_as_toml():
    parsed = TrainConfig.parse({"n_way": "7", "lr": "1e-3", "rotate_support": "false", "batch_norm": "frozen"})
    assert parsed == {"n_way": 7, "lr": 1e-3, "rotate_support": False, "batch_norm": "frozen"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_wya": 3}, "no field is called 'n_wya'; did you mean 'n_way'"),
        ({"n_way": "many"}, "n_way is 'many'; expected a whole number"),
        ({"n_way": 2.5}, "n_way is 2.5; expected a whole number"),
        ({"lr": "true"}, "lr is True; expected a number"),
        ({"rotate_support": 1}, "rotate_support is 1; expected true or false"),
        ({"precision": 16}, "precision is 16; expected a string"),
    ],
)
def test_an_invalid_field_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.parse(values)


def test_a_file_that_is_not_toml_is_an_error(tmp_path):
    (tmp_path / "a.toml").write_text("n_way: 60")
    with pytest.raises(ValueError, match=r"a\.toml is not a TOML file"):
        TrainConfig.from_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"batch_norm": "off"}, "no batch_norm is called 'off'; known are"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; expected above 0, at most 1"),
        ({"embed_chunk": -1}, "embed_chunk is -1; expected at least 0"),
        ({"n_episodes": 10, "meta_batch": 4}, "n_episodes is 10; expected a multiple of meta_batch=4"),
        ({"lr": "fast"}, "lr is 'fast'; expected a number"),
        ({"lr": None}, "lr is None; expected a number"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"n_way": 5.0}, "n_way is 5.0; expected a whole number"),
        ({"n_shot": True}, "n_shot is True; expected a whole number"),
        ({"rotate_support": 1}, "rotate_support is 1; expected true or false"),
        ({"max_skipped": 0}, "max_skipped is 0; expected at least 1"),
    ],
)
def test_a_value_out_of_range_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_numbers_of_numpy_become_those_that_a_state_can_hold():
    config = TrainConfig(seed=np.int64(3), lr=np.float32(0.5), weight_decay=1)
    assert json.loads(json.dumps(asdict(config)))["seed"] == 3
    assert (type(config.lr), type(config.weight_decay)) == (float, float)


def test_every_field_is_described_with_its_default():
    described = TrainConfig.describe(n_way=20)
    assert list(described) == [f.name for f in fields(TrainConfig)]
    assert described["n_way"] == "classes per episode (default: 20)"
    assert all("(default: " in text for text in described.values())
    assert TrainConfig(n_episodes=12, meta_batch=4).n_steps == 3
