"""Grids: valid settings, and messages for invalid ones."""

import os

import pytest

from fewshot import Grid
from fewshot.benchmark.grid_file import Backbone
from fewshot.benchmark.ready import ready_grids
from fewshot.cli.bench import EXAMPLE

GRIDS = ready_grids()
SMALL = {
    "datasets": [{"source": "digits"}],
    "backbones": [{"backbone": "pixels"}],
    "learners": [{"learner": "prototypical"}, {"learner": "prototypical", "metric": "cosine"}],
}


def test_default_names_and_baseline():
    grid = Grid.from_dict({**SMALL, "n_way": 5, "seeds": [0, 1]})
    assert [method.name for method in grid.learners] == ["prototypical", "prototypical (metric=cosine)"]
    assert (grid.datasets[0].name, grid.backbones[0].name, grid.baseline) == ("digits", "pixels", "prototypical")
    even = "balanced"
    assert grid.cells == [(5, 1, even, 0), (5, 1, even, 1), (5, 5, even, 0), (5, 5, even, 1)]
    both = Grid.from_dict({**SMALL, "sampler": ["fixed", "varied"], "n_shot": 1, "query_classes": ["dirichlet", 2]})
    assert both.cells == [(5, 1, "dirichlet", 0), (5, 1, 2, 0), (0, 0, even, 0)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datasets": []}, r"the grid has no datasets; give at least one"),
        ({"learners": 3}, r"the grid has no \[\[learners\]\]; give at least one"),
        ({"learner": [{"learner": "prototypical"}], "learners": []}, r"called 'learner'; did you mean 'learners'"),
        ({"datasets": {"source": "digits"}}, r"\[datasets\] is one table; write \[\[datasets\]\] before each of them"),
        ({"episods": 3}, r"no setting of the grid is called 'episods'; did you mean 'n_episodes'"),
        ({"n_way": [1]}, r"n_way is 1; expected an integer from 2 to 1000000"),
        ({"n_shot": ["1"]}, r"n_shot is '1'; expected an integer from 1"),
        ({"n_episodes": 1}, r"n_episodes is 1; expected an integer from 2"),
        ({"n_shot": [1, 1]}, r"n_shot has 1 twice; give one of the two another"),
        ({"sampler": "vared"}, r"no sampler is called 'vared'; did you mean 'varied'"),
        (
            {"query_classes": 6},
            r"query_classes is 6; expected 'balanced', 'dirichlet', 'single' or a number",
        ),
        ({"query_classes": ["dirichlet"], "n_way": [2, 1]}, r"n_way is 1"),
        ({"baseline": "matching"}, r"the baseline 'matching' is not among the learners: prototypical, "),
        ({"datasets": [{"sorce": "digits"}]}, r"no setting of datasets is called 'sorce'; did you mean 'source'"),
        ({"datasets": [{"name": "digits"}]}, r"datasets: .*missing 1 required positional argument: 'source'"),
        ({"datasets": [{"source": "digits", "n_query": 0}]}, r"n_query is 0; expected an integer from 1"),
        ({"datasets": [{"source": "digits"}] * 2}, r"datasets has 'digits' twice"),
        ({"learners": [{"name": "a"}]}, r"expected a table that names a learner"),
        (
            {"backbones": [{"backbone": "conv4", "train": {"n_way": 5}}]},
            r"has training settings but no training data",
        ),
        (
            {"backbones": [{"backbone": "conv4", "train_on": "glyphs", "train": {"nway": 5}}]},
            r"no field is called 'nway'",
        ),
        ({"backbones": [{"backbone": "conv4", "train_on": "glyphs", "img_size": 5}]}, r"trained from scratch"),
        (
            {"learners": [{"learner": "own", "metric": "dot"}]},
            r"from the checkpoint; leave metric out",
        ),
        ({"backbones": [{"backbone": "conv4", "weights": 3}]}, r"weights is 3; expected a string"),
        ({"backbones": [{"backbone": "pixels", "img_size": 3}]}, r"'pixels' has no network; leave img_size out"),
        (
            {"datasets": [{"source": ["d"]}]},
            r"source is a list; expected a string, such as the path of a folder or of a CSV",
        ),
        ({"datasets": [{"source": "digits", "name": ["x"]}]}, r"name is \['x'\]; expected a string"),
        ({"learners": [{"learner": "matching", "name": 3}]}, r"name of the learner 'matching' is 3; expected a string"),
    ],
)
def test_a_mistake_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        Grid.from_dict({**SMALL, **change})


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.toml does not exist; expected a grid, a TOML file"):
        Grid.from_toml(tmp_path / "nothing.toml")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\); expected a grid, a TOML file"):
        Grid.from_toml(tmp_path)
    (tmp_path / "bad.toml").write_text("n_way = [")
    with pytest.raises(ValueError, match=r"bad.toml: "):
        Grid.from_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize("old", ["way", "shot", "query", "episodes"])
def test_an_old_key_is_answered_with_its_new_name(old):
    with pytest.raises(ValueError, match=f"no setting of the grid is called '{old}'; did you mean 'n_{old}'"):
        Grid.from_dict({**SMALL, old: 5})


@pytest.mark.parametrize("path", GRIDS, ids=str)
def test_the_ready_grids_can_be_read(path):
    assert Grid.from_toml(path).learners


def test_a_name_that_no_ready_grid_has_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no grid is called 'quik'; did you mean 'quick'"):
        Grid.from_toml("quik")


def test_the_grid_that_help_shows_can_be_read(tmp_path):
    (tmp_path / "grid.toml").write_text(EXAMPLE.split("\n", 1)[1])
    grid = Grid.from_toml(tmp_path / "grid.toml")
    assert grid.backbones[1].train == {"n_episodes": 500}
    assert grid.learners[1].needs_base


@pytest.mark.parametrize("what", ["backbone", "weights"])
@pytest.mark.parametrize(
    "address", ["hf-hub:x/y", "hf_hub:x/y", "local-dir:/x", "http://x.org/y", "s3://x/y", "file:///x"]
)
def test_a_grid_names_no_address(what, address):
    with pytest.raises(ValueError, match=f"{what} is '{address}', an address; a grid takes only"):
        Backbone(**{"backbone": "conv4", "weights": "random", what: address})


def test_deep_nesting_and_pipes_are_refused(tmp_path):
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ValueError, match="nested too deeply"):
        Grid.from_toml(tmp_path / "deep.toml")
    with pytest.raises(ValueError, match=r"cannot be read \(it is not a regular file\)"):
        Grid.from_toml(tmp_path / "pipe.toml")


def test_checkpoints_are_told_apart_by_the_folders_of_their_trainings():
    names = [
        Backbone(path).name for path in ("runs/a/best.safetensors", "runs/b/best.safetensors", "runs/mine.safetensors")
    ]
    assert names == ["a/best.safetensors", "b/best.safetensors", "mine.safetensors"]
