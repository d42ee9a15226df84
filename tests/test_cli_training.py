"""``fewshot train``: settings, interruption, pages."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fewshot import PrototypicalLearner, load_learner
from fewshot.cli import main, make_parser
from fewshot.cli.training import read_config
from fewshot.data.packed import write_packed
from fewshot.learners import registry
from tests.training_data import TRAIN, VAL

FEW = ("--episodes", "6", "--way", "5", "--query", "3", "--val-way", "4", "--set", "val_n_query=3", "--quiet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Bars as prepared data, whose labels have groups."""
    folder = tmp_path_factory.mktemp("data") / "bars"
    tables = [
        pd.DataFrame({"path": "made", "label": [f"g{i % 2}/{i}" for i in part.labels], "split": split})
        for split, part in (("train", TRAIN), ("val", VAL))
    ]
    write_packed(folder, np.concatenate([TRAIN.images, VAL.images]), pd.concat(tables, ignore_index=True), {})
    return folder


class FixedLearner(PrototypicalLearner):
    name = "test-fixed"

    def __init__(self):
        super().__init__()


class PowerLearner(PrototypicalLearner):
    name = "test-power"

    def __init__(self, power: float = 0.7, steps: int = 3):
        super().__init__()
        self.power, self.steps = power, steps


def config(*arguments):
    return read_config(make_parser().parse_args(["train", "data", "--out", "out", *arguments]))


def test_precedence_of_defaults_file_set_and_options(tmp_path):
    (tmp_path / "a.toml").write_text("n_way = 30\nlr = 0.1\nn_query = 9\n")
    assert (config().n_way, config().n_query) == (20, 5)
    found = config("--config", str(tmp_path / "a.toml"), "--set", "lr=0.2", "--set", "seed = 3", "--query", "7")
    assert (found.n_way, found.lr, found.seed, found.n_query) == (30, 0.2, 3, 7)


def test_help_documents_every_field(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in config().__dict__)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "n_way"), "--set n_way: expected KEY=VALUE"),
        (("--set", "n_wya=3"), "did you mean 'n_way'"),
        (("--set", "precision=bf61"), "--set precision: no precision is called 'bf61'; did you mean 'bf16'"),
        (("--config", "gone.toml"), "gone.toml cannot be read (No such file or directory); expected a TOML file"),
        (("--way", "1"), "--way is 1; expected at least 2"),
        (("--set", "seed=99999999999999999999"), "seed is 99999999999999999999; expected from 0"),
        (("--set", "val_n_way=abc"), "fewshot: --set val_n_way is 'abc'; expected a whole number"),
        (("--set", "swap_shots=2"), "fewshot: --set swap_shots is 2; expected true or false"),
        (("--set", "lr=-1"), "fewshot: --set lr is -1.0; expected above 0"),
        (("--set", "n_way=1", "--way", "1"), "fewshot: --way is 1; expected at least 2"),
        (("--set", "n_shot=99", "--small-classes", "drop"), "--set n_shot=99 and --query 3 need, fewer than --way 5"),
        (("--set", "meta_batch=4"), "fewshot: --episodes is 6; expected a multiple of --set meta_batch=4"),
        (("--device", "warp"), "use 'auto' or 'cpu'"),
        (("--by-group", "--way", "7"), "no group is large enough"),
        (("--backbone", "resnet12", "--weights", "gone.pth"), "gone.pth does not exist; expected a file of weights"),
        (("--metric", "cosinus"), "did you mean 'cosine'"),
        (("--learner", "test-fixed", "--temperature", "2"), "learner 'test-fixed' takes no temperature"),
        (("--from", "gone.safetensors"), "gone.safetensors"),
        (("--from", "gone.safetensors", "--weights", "random"), "omit --weights random"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(registry._LEARNERS, "test-fixed", FixedLearner)
    status = main(["train", str(data), "--out", str(tmp_path / "run"), *FEW, *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert status == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_n_way = 'abc'", "{file}: val_n_way is 'abc'; expected a whole number"),
        ("val_n_shot = 0", "{file}: val_n_shot is 0; expected at least 1"),
        ("val_n_wya = 3", "{file}: no field is called 'val_n_wya'; did you mean 'val_n_way'"),
        ("n_shot = 99", "; lower n_shot"),
        ("precision = 'bf61'", "{file}: no precision is called 'bf61'; did you mean 'bf16'"),
        ("n_way = 1.5", "{file}: n_way is 1.5; expected a whole number"),
    ],
)
def test_a_mistake_in_a_file_of_settings_is_told_in_its_words(line, message, data, tmp_path, capsys):
    (file := tmp_path / "own.toml").write_text(line)
    assert main(["train", str(data), "--out", str(tmp_path / "run"), *FEW, "--config", str(file)]) == 2
    assert message.format(file=file) in capsys.readouterr().err


def test_every_kind_of_episode_and_the_page(data, tmp_path, capsys):
    for i, kind in enumerate(((), ("--varied",), ("--by-group",), ("--by-group", "--varied", "--photo", "--distort"))):
        report = ("--report", str(tmp_path / "page.html"), "--tensorboard", str(tmp_path / "board"))
        assert main(["train", str(data), "--out", str(tmp_path / str(i)), *FEW, *kind, *report]) == 0
    capsys.readouterr()
    assert "Learning curves" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert list((tmp_path / "board").iterdir())
    logs = {(tmp_path / str(i) / "log.csv").read_text().splitlines()[1].rpartition(",")[0] for i in range(4)}
    assert len({line.split(",")[1] for line in logs}) == 4


@pytest.mark.parametrize(
    ("signum", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_in_order_and_resume_continues(signum, status, data, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", str(data), "--out", str(run), *FEW, "--episodes", "4000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fewshot", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    end = time.time() + 120
    while time.time() < end and not ((run / "log.csv").is_file() and (run / "log.csv").read_text().count("\n") > 5):
        time.sleep(0.05)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert "stopped after episode" in error
    assert "Traceback" not in error
    assert (run / "state.safetensors").is_file()
    done = (run / "log.csv").read_text().count("\n") - 1
    assert main([*command, "--episodes", "9"]) == 2
    assert "already holds a training; continue with --resume, replace it with --force" in capsys.readouterr().err
    assert main([*command, "--episodes", "9", "--force"]) == 0
    assert main([*command, "--resume"]) == 2
    assert "--episodes is 4000 here and was 9" in capsys.readouterr().err
    assert main([*command, "--episodes", "9", "--resume"]) == 0
    assert "resumed after episode 9; " in capsys.readouterr().out
    assert done >= 5
    facts = json.loads((run / "manifest.json").read_text())
    assert facts["config"]["n_episodes"] == 9
    assert facts["skipped"] == []


def test_metric_and_temperature_of_the_learner(data, tmp_path):
    out = tmp_path / "run"
    assert main(["train", str(data), "--out", str(out), *FEW, "--metric", "cosine", "--temperature", "0.2"]) == 0
    learner = load_learner(out / "best.safetensors")
    assert (learner.metric, learner.learn_temperature) == ("cosine", True)
    assert learner.temperature.item() == pytest.approx(0.2, rel=0.1)


def test_a_resumed_training_keeps_its_first_temperature(data, tmp_path, capsys):
    fixed = ["train", str(data), "--out", str(tmp_path / "a"), *FEW]
    learned = ["train", str(data), "--out", str(tmp_path / "b"), *FEW, "--temperature"]
    assert (main(fixed), main([*learned, "1"])) == (0, 0)
    assert main([*fixed, "--resume", "--temperature", "0.1"]) == 2
    told = "training of the temperature (--temperature) is True here and was False, temperature is 0.1 here and was 1.0"
    assert told in capsys.readouterr().err
    assert main([*learned, "0.1", "--resume"]) == 2
    assert "another training: temperature is 0.1 here and was 1.0; use" in capsys.readouterr().err
    assert main([*learned, "1.0", "--resume"]) == 0


def test_the_manifest_has_all_parameters_of_the_learner(data, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._LEARNERS, "test-power", PowerLearner)
    page, runs = tmp_path / "page.html", {"test-power": tmp_path / "a", "ridge": tmp_path / "b"}
    told = {}
    for name, out in runs.items():
        assert main(["train", str(data), "--out", str(out), *FEW, "--learner", name, "--report", str(page)]) == 0
        told[name] = json.loads((out / "manifest.json").read_text())["config"]["learner"]
    assert told["test-power"] == {"name": "test-power", "params": {"power": 0.7, "steps": 3}}
    assert told["ridge"]["params"].items() >= {"regularization": 1.0, "temperature": 0.1}.items()
    assert "regularization" in page.read_text(encoding="utf-8")


def test_training_continues_from_a_checkpoint_with_its_learner(data, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", str(data), "--out", str(first), *FEW, "--learner", "matching"]) == 0
    command = ["train", str(data), "--out", str(second), *FEW, "--set", "lr=1e-9", "--set", "batch_norm=frozen"]
    assert main([*command, "--from", str(first / "best.safetensors")]) == 0
    capsys.readouterr()
    facts = json.loads((second / "manifest.json").read_text())["config"]
    assert facts["learner"]["name"] == "matching"
    assert facts["backbone"] == str(first / "best.safetensors")
    one, two = (load_file(folder / "best.safetensors") for folder in (first, second))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_torchrun_trains_on_two_processes(data, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "fewshot"]
    run = subprocess.run(
        [*command, "train", str(data), "--out", str(tmp_path / "run"), *FEW, "--set", "meta_batch=2"],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("kept the weights after episode") == 1
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_the_learner_of_a_checkpoint_is_kept_with_another_metric(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", str(data), "--out", str(first), *FEW, "--learner", "matching"]) == 0
    command = ["train", str(data), "--out", str(second), *FEW, "--from", str(first / "best.safetensors")]
    assert main([*command, "--metric", "sqeuclidean", "--temperature", "0.5"]) == 0
    learner = load_learner(second / "best.safetensors")
    assert (learner.name, learner.metric) == ("matching", "sqeuclidean")


def test_train_does_not_suggest_measuring_on_its_training_data(data, tmp_path, capsys):
    assert main(["train", str(data), "--out", str(tmp_path / "run"), *FEW]) == 0
    assert "fewshot evaluate DATA-OF-OTHER-CLASSES --from" in capsys.readouterr().out


def test_the_best_weights_alone_are_not_overwritten_by_accident(data, tmp_path, capsys):
    command = ["train", str(data), "--out", str(tmp_path / "run"), *FEW]
    assert main(command) == 0
    (tmp_path / "run" / "state.safetensors").unlink()
    assert main(command) == 2
    assert "already holds a training" in capsys.readouterr().err


def test_small_classes_are_dropped_on_request(data, tmp_path, capsys):
    command = ["train", str(data), "--out", str(tmp_path / "run"), *FEW, "--query", "9"]
    assert main(command) == 2
    assert capsys.readouterr().err.endswith("; lower --query to 7\n")  # no class would be left
    assert main([*command, "--small-classes", "use"]) == 0


def test_a_network_of_ones_own_is_told_to_be_unfit_or_is_trained_from_scratch(data, tmp_path, capsys):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from torch import nn\nfrom fewshot import register_backbone\n"
        "register_backbone('cli.map', lambda: nn.Conv2d(1, 8, 5), size=16, channels=1)\n"
        "register_backbone('cli.wide', lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 8)), size=16, channels=1)\n"
    )
    out, found = tmp_path / "run", tmp_path / "found.json"
    with_plugin = ["--plugin", str(plugin), "--quiet"]
    given = ["train", str(data), "--out", str(out), *FEW, "--plugin", str(plugin)]
    assert main([*given, "--backbone", "cli.map"]) == 2
    assert capsys.readouterr().err.strip().endswith("(2, 8, 12, 12); expected (n, d), one embedding per image")
    assert main([*given, "--backbone", "cli.wide"]) == 0
    sizes = ["--split", "val", "--way", "4", "--query", "3", "--shot", "1", "--episodes", "2", "--json", str(found)]
    assert main(["evaluate", str(data), "--from", str(out / "best.safetensors"), *sizes, *with_plugin]) == 0
    assert json.loads(found.read_text())["external"] is False
