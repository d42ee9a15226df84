"""The accuracy benchmarks: as processes, on tiny data; what they find is the same twice."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fewshot.data.packed import write_packed
from tests.processes import python

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CLASSES = {"train": 90, "val": 20, "test": 20}
FEW = {"train": 40, "val": 6, "test": 6}


def noise(folder, side, channels, classes=CLASSES):
    """Write prepared data of classes that differ in brightness, with enough images for the cells."""
    labels = np.repeat(np.arange(sum(classes.values())), 20)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 126, (len(labels), side, side, *channels)) + labels.reshape(-1, *[1] * (2 + len(channels)))
    splits = np.repeat(list(classes), [20 * n for n in classes.values()])
    write_packed(folder, images.astype(np.uint8), pd.DataFrame({"path": "made", "label": labels, "split": splits}), {})


#: Runs a script as a program.
ONE = """
import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(script, out, *arguments):
    return run_alone(script, out, "--work", str(out) + "_work", *arguments)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder of embeddings that all scripts share, in all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    return str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "embeddings of benchmarks")


def run_alone(script, out, *arguments):
    """Run a script that trains nothing."""
    ran = python(ONE, BENCHMARKS / script, "--out", out, *arguments, path=[BENCHMARKS])
    assert ran.returncode == 0, ran.stderr
    return json.loads(Path(f"{out}.json").read_text())


#: Begins every script, in one process: to import torch takes seconds. A line says what came of each try.
BEGIN = """
import contextlib, io, json, re, runpy, sys
def run(script, *arguments):
    sys.argv, said, status = [script, *arguments], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as left:
            status = left.code or 0
    print(json.dumps([script.rpartition("/")[2], arguments, status, said.getvalue()]))
    return said.getvalue()
for script in sys.argv[1:]:
    text = run(script, "--help")
    for option in ("--data", "--cifar", "--omniglot", "--eurosat"):
        if re.search(rf"^  {option} ", text, re.M):
            run(script, option, "gone")
            if f"default: data/" in text:
                run(script)
    if "NAME=" in text:
        run(script, "mine=gone")
    elif " DATA\\n" in text:
        run(script, "gone")
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """What the scripts print about their options and about data that is not there: name, arguments, status, text."""
    scripts = [str(path) for path in sorted(BENCHMARKS.glob("*.py")) if "def main" in path.read_text()]
    assert len(scripts) > 20
    ran = python(BEGIN, *scripts, cwd=tmp_path_factory.mktemp("empty"), path=[BENCHMARKS])
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_every_script_begins_and_says_where_its_results_go_unless_a_trial_says_otherwise(begun):
    for script, arguments, status, text in begun:
        if arguments == ["--help"]:
            assert (status, text.startswith(f"usage: {script}")) == (0, True), script
            told = " ".join(text.split())
            result = (
                rf"\(default: benchmarks/results/{script[:-3]}(\.json)?, which is published: give a trial another one"
            )
            assert re.search(result, told) or script == "sentences.py", told


def test_data_that_is_not_there_is_one_sentence_with_what_makes_it(begun):
    missing = [one for one in begun if one[1] != ["--help"]]
    assert len({script for script, *_ in missing}) > 15
    for script, arguments, status, text in missing:
        place = arguments[-1].removeprefix("mine=") if arguments else "data/"
        assert (status, text.count("\n")) == (2, 1), text
        assert text.startswith(f"{script}: argument "), text
        assert place in text
        assert re.search(r"make it with: fewshot data|give a folder of class folders|download it to there", text), text
    told = next(text for script, arguments, _, text in missing if script == "cifar_fs.py" and not arguments)
    assert told.endswith("data/cifar_fs does not exist; make it with: fewshot data cifar-fs --out data/cifar_fs\n")


@pytest.mark.parametrize(
    ("script", "given", "said"),
    [
        ("cifar_fs.py", ("--data", "{}"), "data has no split 'val'; make it with: fewshot data cifar-fs --out"),
        ("adapt_or_train.py", ("mine={}",), "data has no split 'val'; it has train"),
        ("crops.py", ("mine={}@tset",), "data has no split 'tset'; it has train"),
    ],
)
def test_data_without_a_split_is_one_sentence(tmp_path, script, given, said):
    noise(tmp_path / "data", 32, (3,), {"train": 4})
    filled = [one.format(tmp_path / "data") for one in given]
    ran = python(ONE, BENCHMARKS / script, *filled, path=[BENCHMARKS])
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert said in ran.stderr


@pytest.mark.slow
def test_small_objects_are_measured_beside_large_ones(tmp_path):
    noise(tmp_path / "data", 32, (3,), FEW)
    few = ("--cifar", str(tmp_path / "data"), "--size", "64", "--images", "10", "--roles", "choose")
    rows = run_alone("small_objects.py", tmp_path / "small", *few)["rows"]
    assert [(row["area"], row["pool"]) for row in rows[:: len(rows) // 2]] == [("1/16", "auto"), ("all", "auto")]
    small, large = (row["cells"] for row in rows[:: len(rows) // 2])
    for one, other in zip(small, large, strict=True):
        assert one[0] < other[0]


@pytest.mark.slow
def test_the_index_is_measured_beside_the_others(tmp_path):
    found = run_alone("index.py", tmp_path / "index", "--sizes", "2000")
    rows = {(row["what"], row["keys"]): row for row in found["rows"]}
    assert {name for name, _ in rows} >= {"PrototypeIndex", "numpy", "FAISS flat", "scikit-learn"}
    assert all(row["recall@1"] > 0.99 for row in rows.values())
    assert rows["PrototypeIndex", 2000]["chosen"]["kind"] == "exact"
    assert "PrototypeIndex (exact)" in (tmp_path / "index.md").read_text()


@pytest.mark.slow
def test_the_service_is_measured_beside_the_embedder_alone(tmp_path):
    found = run_alone(
        "serve.py", tmp_path / "serve", "--rounds", "1", "--seconds", "1", "--clients", "2", "--images", "32",
        "--threads", "1",
    )  # fmt: skip
    (row,) = found["threads"]["1"]
    assert 0 < row["2"]["per second"] < 2 * row["alone"]
    assert row["2"]["median"] <= row["2"]["p99"]
    assert row["2"]["clients"] < row["processor"] < 2 * row["2"]["processor"]


@pytest.mark.slow
def test_methods_are_measured_beside_what_the_machine_allows_and_another_package(tmp_path):
    noise(tmp_path / "data", 32, (3,), FEW)
    found = run_alone(
        "methods.py", tmp_path / "methods", "--methods", "bd-cspn", "matching", "--rounds", "1", "--episodes", "40",
        "--accuracy", "20", "--data", str(tmp_path / "data"),
    )  # fmt: skip
    peer, alone = found["rows"]
    assert (peer["difference"], peer["difference, ci95"]) == (0, 0)
    assert 20 < peer["easyfsl, accuracy %"] <= 100
    assert "difference" not in alone
    assert found["data"]
    products = 2 * 75 * 5 * 640  # of matching: each query with each key
    assert alone["us arithmetic"] == pytest.approx(products / found["machine"]["operations per us"], abs=0.06)
    assert alone["us bytes"] == pytest.approx(80 * 640 * 4 / found["machine"]["bytes per us"], abs=0.06)
    assert alone["fewshot, us whole"] > alone["fewshot, us answering"] > max(alone["us arithmetic"], alone["us bytes"])


@pytest.mark.slow
def test_saved_classifiers_are_measured(tmp_path):
    found = run_alone("saved.py", tmp_path / "saved", "--rounds", "1", "--classes", "6000")
    cost = {row["what"]: row["cpu, in imports"][1] for row in found["commands"]}
    assert cost["predict of one image"] < 1.5
    assert max(cost[name] for name in ("show", "rename", "remove an image", "undo")) < 0.3
    assert [row["learner"] for row in found["models"]] == ["prototypical", "discriminant"]
    for row in found["models"]:
        assert row["the same bits"]
        assert row["kilobytes"][1] < 1000


@pytest.mark.slow
def test_learning_class_by_class_is_measured_and_agrees_with_one_fit(tmp_path):
    options = ("--classes", "120", "--known", "1000", "--load", "1")
    found = run_alone("incremental.py", tmp_path / "incremental", *options)
    assert [row["classes"] for row in found["rows"]] == [100, 1000]
    for row in found["rows"]:
        assert row["right"] == 1
        assert row["learn one, ms"] > 0 < row["remove, ms"]
    assert [row["classes"] for row in found["others"]] == [100, 1000]
    assert all(value == 1 for row in found["others"] for name, value in row.items() if name.endswith("right"))
    load = found["rows"][-1]["load"]
    assert [one["switch interval, ms"] for one in load] == [5, pytest.approx(0.1)]
    assert all(one["changes"] > 0 < one["reads"] and not one["wrong"] for one in load)
    one_by_one = found["one by one"]
    assert [row["classes"] for row in one_by_one["one after another"]] == [10, 100]
    assert one_by_one["largest difference of sums, by the sum of absolute values"] < 1e-12
    assert one_by_one["same answers"] == 1.0
    bounds = json.loads((tmp_path / "incremental_bounds.json").read_text())["rows"]
    assert [(row["classes"], row["shots"]) for row in bounds] == [(5, 5), (100, 5), (100, 200)]
    assert all(row["accuracy"] > 0.9 for row in bounds)


@pytest.mark.slow
def test_the_open_world_is_measured_by_score_and_promise_and_calibration_by_its_error(tmp_path, cache):
    found = run_alone("open_world.py", tmp_path / "open_world", "--draws", "1", "--cache", cache)
    assert {cell["data"] for cell in found["scores"]} == {"glyphs", "digits"}
    for cell in found["scores"]:
        assert all(0 <= value <= 100 for name in ("nearest prototype", "familiarity") for value in cell[name])
    for cell in found["promises"]:
        assert 0 <= cell["accepted"] <= 100
        assert 0 <= cell["kept"] <= 100
    assert "| familiarity, spare classes |" in (tmp_path / "open_world.md").read_text()
    cells = run_alone("calibration.py", tmp_path / "calibration", "--quick", "--cache", cache)["cells"]
    few = [cell for cell in cells if cell["spare"] < 6]
    assert few
    assert all(cell["before"] == cell["after"] for cell in few)  # too few classes to tell


@pytest.mark.slow
def test_adapting_is_measured_on_classes_that_were_not_adapted_to(tmp_path):
    noise(tmp_path / "data", 32, (3,))
    few = ("--classes", "16", "--draws", "2", "--episodes", "20")
    found = run_alone("adapt.py", tmp_path / "adapt", f"noise={tmp_path / 'data'}:test", *few)
    assert [(row["map"], row["shot"]) for row in found["rows"]] == [
        ("labelled", 1), ("unlabelled", 1), ("labelled", 5), ("unlabelled", 5)
    ]  # fmt: skip
    assert "| mean | largest | labelled | 5 |" in (tmp_path / "adapt.md").read_text()


@pytest.mark.slow
def test_adapting_and_training_are_compared_on_the_same_classes(tmp_path):
    noise(tmp_path / "data", 32, (3,))
    few = ("--size", "32", "--train-episodes", "2", "--episodes", "20", "--domain", "5")
    found = run("adapt_or_train.py", tmp_path / "out", f"noise={tmp_path / 'data'}", *few)
    names = ["", ", adapted to 5 classes", ", adapted to 50 classes"]
    assert [row["embeddings"] for row in found["rows"]] == [
        f"{network}{name}" for network in ("as it is", "meta-trained") for name in names
    ]
    assert "| meta-trained, adapted to 5 classes |" in (tmp_path / "out.md").read_text()


@pytest.mark.slow
def test_parameters_of_learners_are_compared_on_the_same_draws(tmp_path, cache):
    rows = run_alone("parameters.py", tmp_path / "parameters", "--quick", "--cache", cache)["rows"]
    kept = [row for row in rows if row["learner"] == "prototypical, temperature=None"]
    assert len(kept) == 6
    for row in kept:
        assert row["change"] == [0, 0]
        assert row["calibration error"][1] < row["calibration error"][0]


@pytest.mark.slow
def test_views_are_compared_on_the_same_draws(tmp_path):
    noise(tmp_path / "data", 32, (3,), FEW)
    few = ("--cifar", str(tmp_path / "data"), "--size", "32", "--classes", "6", "--images", "8")
    rows = run_alone("views.py", tmp_path / "views", *few)["rows"]
    assert [row["data"] for row in rows] == ["CIFAR-FS validation"] * 5 + ["CIFAR-FS test"] * 5
    one, mirrored = (row["cells"] for row in rows[:2])
    for a, b in zip(one, mirrored, strict=True):
        assert abs(b["accuracy"] - a["accuracy"] - b["gain"]) < 0.02
    assert "| CIFAR-FS test | report | mirror | 2 | " in (tmp_path / "views.md").read_text()


@pytest.mark.slow
def test_the_ladder_measures_networks_and_sizes(tmp_path):
    noise(tmp_path / "data", 32, (3,), FEW)
    few = ("--eurosat", str(tmp_path / "data"), "--classes", "6", "--images", "8")
    rungs = ("tf_efficientnet_lite0@224", "tf_efficientnet_lite0@64")
    large, small = run_alone("ladder.py", tmp_path / "ladder", *few, "--backbones", *rungs)["rows"]
    assert (large["px"], small["px"]) == (224, 64)
    assert large["ms"] > small["ms"]
    assert all(cell["gain"] == 0 for cell in large["found"]["EuroSAT"])
    (untrained,) = run_alone(
        "ladder.py", tmp_path / "hub", *few, "--backbones", "dinov2-small@56", "--weights", "random"
    )["rows"]
    assert (untrained["backbone"], untrained["px"], untrained["numbers"]) == ("dinov2-small", 56, 384)
    assert "| tf_efficientnet_lite0 | 64 | " in (tmp_path / "ladder.md").read_text()


@pytest.mark.slow
def test_the_default_is_compared_on_the_same_draws(tmp_path, cache):
    noise(tmp_path / "data", 32, (3,), FEW)
    arguments = ("--quick", "--eurosat", str(tmp_path / "data"), "--cache", cache)
    one, two = (run_alone("defaults.py", tmp_path / name, *arguments) for name in ("one", "two"))
    both = zip(one["cells"], two["cells"], strict=True)  # logistic regression rounds differently each time
    assert all(a["rows"]["discriminant"] == b["rows"]["discriminant"] for a, b in both)
    assert {cell["data"] for cell in one["cells"]} == {"glyphs", "digits", "EuroSAT"}
    for cell in one["cells"]:
        assert all(0 <= row["accuracy"][0] <= 100 for row in cell["rows"].values())
        before, rows = cell["rows"]["cosine-prototypical"]["accuracy"][0], cell["rows"].items()
        assert all(abs(row["accuracy"][0] - before - row["change"][0]) < 0.02 for _, row in list(rows)[1:])
    assert "| digits | 1 / 5 |" in (tmp_path / "one.md").read_text()


@pytest.mark.slow
def test_wrong_labels_and_copies_are_found(tmp_path, cache):
    noise(tmp_path / "data", 32, (3,), FEW)
    arguments = ("--quick", "--eurosat", str(tmp_path / "data"), "--cache", cache)
    found = run_alone("suspects.py", tmp_path / "suspects", *arguments)
    assert {cell["data"] for cell in found["cells"]} == {"glyphs", "digits", "EuroSAT"}
    assert all(0 <= cell["right ones flagged"] <= 100 for cell in found["cells"])
    assert [row["images"] for row in found["copies"]] == [100, 200]
    table = (tmp_path / "suspects.md").read_text()
    assert "report, 5 shots: wrong ones flagged" in table
    assert "| half the size |" in table


NETWORKS = ("conv4", "tf_efficientnet_lite0")


def figures(results):
    return [{name: value for name, value in row.items() if name != "minutes"} for row in results["rows"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "side", "channels", "arguments"),
    [
        ("omniglot.py", 28, (), ("--episodes", "3", "--seeds", "0", "1", "--methods", "matching")),
        ("cifar_fs.py", 32, (3,), ("--episodes", "2", "--test-episodes", "40", "--networks", *NETWORKS)),
    ],
)
def test_a_benchmark_finds_the_same_twice(script, side, channels, arguments, tmp_path):
    noise(tmp_path / "data", side, channels, FEW if script == "cifar_fs.py" else CLASSES)
    one, two = (run(script, tmp_path / name, "--data", str(tmp_path / "data"), *arguments) for name in ("one", "two"))
    assert figures(one) == figures(two)
    assert {"manifest", "episodes", "data", "published"} <= one.keys()
    table = (tmp_path / "one.md").read_text()
    assert all(f"{cell['accuracy']:.2f} ± {cell['ci95']:.2f}" in table for cell in cells(one))


@pytest.mark.slow
def test_the_recipe_of_the_larger_network_runs(tmp_path):
    noise(tmp_path / "data", 32, (3,), FEW)
    arguments = ("--data", str(tmp_path / "data"), "--episodes", "2", "--networks", "resnet12")
    found = run("cifar_fs.py", tmp_path / "one", *arguments, "--test-episodes", "30")
    assert [row["network"] for row in found["rows"]] == ["resnet12"]
    assert found["episodes"]["n"] == 30
    assert {row["n_episodes"] for row in found["results"]} == {30}


def cells(results):
    """Yield the figures of every row, wherever they stand in it."""
    for row in results["rows"]:
        for value in row.values():
            if isinstance(value, list):
                yield from value


@pytest.mark.slow
def test_the_recipe_is_chosen_without_the_test_classes(tmp_path):
    noise(tmp_path / "data", 28, ())
    table = pd.read_csv(tmp_path / "data" / "table.csv")
    images = np.load(tmp_path / "data" / "images.npy")
    keep = (table.split != "test").to_numpy()
    write_packed(tmp_path / "less", images[keep], table[keep], {})
    run_choice = [*("--episodes", "2", "--data", str(tmp_path / "less"), "--choose")]
    command = [sys.executable, str(BENCHMARKS / "omniglot.py"), "--out", str(tmp_path / "o"), "--work", str(tmp_path)]
    ran = subprocess.run([*command, *run_choice], capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "o_choice.json").read_text())["classes"] == "validation"


def test_the_names_of_published_methods_are_words():
    for path in Path("benchmarks/results").glob("*.json"):
        found = json.loads(path.read_text())
        for row in found.get("results", []) if isinstance(found, dict) else []:
            if isinstance(row, dict) and "method" in row:
                assert not set("'\"{}") & set(row["method"]), f"{path}: {row['method']}"
