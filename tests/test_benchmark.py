"""Whole runs of grids: the same table with every executor, repeated or interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fewshot import Grid, PrototypicalLearner, digits, evaluate, list_learners, register_learner, run_benchmark
from fewshot.benchmark import embeddings, run_grid
from fewshot.embedding import embedder
from fewshot.errors import MissingExtraError
from fewshot.learners import registry
from fewshot.learners.registry import learner_class
from tests.abandoned import leave_partial
from tests.processes import fewshot
from tests.test_benchmark_sources import prepared

GRID = {
    "n_shot": [1, 5],
    "n_episodes": 12,
    "n_query": 5,
    "datasets": [{"source": "digits"}],
    "backbones": [{"backbone": "pixels"}],
    "learners": [{"learner": "prototypical"}, {"learner": "pt-map"}, {"learner": "linear-probe"}],
}
TOML = """
n_shot = [1, 5]
seeds = {seeds}
n_episodes = {episodes}
n_query = 5
datasets = [{{source = "digits"}}]
backbones = [{{backbone = "pixels"}}]
learners = [{{learner = "prototypical"}}, {{learner = "{one}"}}, {{learner = "{other}"}}]
"""


def bench(out, grid=GRID, **options):
    return run_benchmark(Grid.from_dict(grid), out, **{"executor": "serial", "progress": False, **options})


def without_times(frame):
    return frame.drop(columns="ms_per_episode")


def test_a_row_is_what_evaluate_finds_on_the_pixels(tmp_path):
    frame = bench(tmp_path)
    data = digits()
    first: dict[bytes, int] = {}
    keep = [first.setdefault(image.tobytes(), i) == i for i, image in enumerate(data.images)]
    X, y = data.images[keep].reshape(sum(keep), -1).astype(np.float32) / np.float32(255), data.labels[keep]
    expected = evaluate(PrototypicalLearner(), X, y, n_shot=5, n_query=5, n_episodes=12)
    found = frame[(frame["learner"] == "prototypical") & (frame["n_shot"] == 5)].iloc[0]
    assert (found["accuracy"], found["ci95"]) == pytest.approx((expected.mean, expected.ci95))
    assert frame["gradient"].tolist() == [False] * 4 + [True] * 2
    assert not frame["external"].any()


def test_all_result_files_are_written(tmp_path):
    frame = bench(tmp_path)
    stored = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(stored, frame, check_dtype=False)
    facts = json.loads((tmp_path / "results.json").read_text())
    assert {"command", "seed", "threads", "versions"} <= facts["manifest"].keys()
    assert facts["learners"]["pt-map"]["params"]["prior"] == "estimated"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") > 10
    assert "http" not in page.replace("http://www.w3.org", "")
    ranks = page[page.index("Over data sets") :]
    assert ranks.index("Mean rank") < ranks.rindex("pt-map †", 0, ranks.index("Confusions"))
    for heading in ("Accuracy", "Shots and ways", "Over data sets", "Confusions", "Time", "Run it again"):
        assert f"<h2>{heading}</h2>" in page


def test_stored_units_are_kept_and_damaged_ones_answered_again(tmp_path, monkeypatch):
    frame, answered = bench(tmp_path), []
    answer = run_grid.answer

    def counted(unit, *rest):
        answered.append(unit)
        return answer(unit, *rest)

    monkeypatch.setattr(run_grid, "answer", counted)
    pd.testing.assert_frame_equal(bench(tmp_path), frame)
    assert not answered
    paths = sorted((tmp_path / "units").iterdir())
    paths[0].write_text(paths[0].read_text()[:-9])
    paths[1].unlink()
    stored = json.loads(paths[2].read_text())
    changed = stored["found"] | {"trace": "another"}
    paths[2].write_text(json.dumps({**stored, "found": changed}))
    again = bench(tmp_path)
    assert len(answered) == 3
    pd.testing.assert_frame_equal(without_times(again), without_times(frame))


@pytest.mark.slow
def test_damaged_embeddings_are_recomputed_and_leftovers_of_a_kill_removed(tmp_path):
    grid = GRID | {"learners": GRID["learners"][:1], "n_shot": [1]}
    frame = bench(tmp_path, grid)
    (embedded,) = (tmp_path / "embeddings").iterdir()
    content = embedded.read_bytes()
    embedded.write_bytes(content[:200] + bytes([content[200] ^ 64]) + content[201:])
    for unit in (tmp_path / "units").iterdir():
        unit.unlink()
    for name in ("results.csv", "units/0.json", "embeddings/0.npy"):
        leave_partial(tmp_path / name)
    others = leave_partial(tmp_path / "notes.txt")
    pd.testing.assert_frame_equal(without_times(bench(tmp_path, grid)), without_times(frame))
    assert embedded.read_bytes() == content
    assert list(tmp_path.rglob(".*")) == [others]


def test_embeddings_are_shared_through_a_cache(tmp_path, monkeypatch):
    grid = {**GRID, "backbones": [{"backbone": "conv4", "weights": "random", "img_size": 28}], "n_shot": 1}
    one = bench(tmp_path / "one", grid, cache=tmp_path / "cache")

    embed_items = embedder.embed_items

    def only_nothing(loaded, items, **options):
        assert not len(items), "an image was embedded again"
        return embed_items(loaded, items, **options)

    monkeypatch.setattr(embedder, "embed_items", only_nothing)
    two = bench(tmp_path / "two", grid, cache=tmp_path / "cache")
    pd.testing.assert_frame_equal(without_times(two), without_times(one))


def test_a_mapping_is_a_grid_and_a_foreign_folder_is_refused(tmp_path):
    frame = run_benchmark(GRID, executor="serial", progress=False)
    assert len(frame) == 6
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"photos holds other files, such as 'a.txt'; choose an empty folder"):
        bench(tmp_path / "photos")
    (tmp_path / "project" / "embeddings").mkdir(parents=True)
    (tmp_path / "project" / "results.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"project holds other files"):
        bench(tmp_path / "project")
    with pytest.raises(ValueError, match=r"a.txt is a file; expected a folder"):
        bench(tmp_path / "photos" / "a.txt")
    with pytest.raises(ValueError, match="no learner is called"):
        bench(tmp_path / "new", {**GRID, "learners": [{"learner": "protypical"}]})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", run_grid.WRITTEN)
def test_results_are_not_written_through_a_link(tmp_path, name):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "episodes.json").touch()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "new")
    with pytest.raises(ValueError, match=rf"{name} is a link or not a regular file, and would be written to"):
        bench(folder)
    assert not (tmp_path / "new").exists()


def test_a_grid_may_grow_in_its_folder(tmp_path):
    one = bench(tmp_path)
    more = bench(tmp_path, {**GRID, "n_shot": [1, 3, 5]})
    both = without_times(more[more["n_shot"] != 3]).reset_index(drop=True)
    pd.testing.assert_frame_equal(both, without_times(one))


def test_a_unit_that_fails_is_reported_while_the_others_finish(tmp_path):
    learners = [{"learner": "prototypical"}, {"learner": "simpleshot", "normalization": "CL2N", "center": [1.0, 2.0]}]
    frame = bench(tmp_path, {**GRID, "learners": learners})
    assert frame["error"][:2].tolist() == ["", ""]
    assert "learners" in json.loads((tmp_path / "results.json").read_text())["traces"][frame["key"][2]]
    assert frame["error"][2:].str.contains("center has 2 numbers and the embeddings 784 dimensions").all()
    assert "center has 2 numbers" in (tmp_path / "report.html").read_text()


def test_a_backbone_that_cannot_embed_is_reported_while_the_others_finish(tmp_path, monkeypatch):
    embed = embeddings.embed_part

    def broken(images, backbone, *more):
        if backbone.name == "bad":
            raise OSError("the disk is gone")
        return embed(images, backbone, *more)

    monkeypatch.setattr(embeddings, "embed_part", broken)
    both = {**GRID, "backbones": [{"backbone": "pixels"}, {"backbone": "conv4", "weights": "random", "name": "bad"}]}
    frame = bench(tmp_path, both)
    failed = frame[frame["backbone"] == "bad"]
    assert (failed["error"] == "embedding failed: OSError: the disk is gone").all()
    assert (frame[frame["backbone"] == "pixels"]["error"] == "").all()


def test_an_invalid_learner_fails_before_anything_runs(tmp_path):
    for learner, said in (
        ({"learner": "protypical"}, "no learner is called"),
        ({"learner": "matching", "k": 1}, "'k'"),
        ({"learner": "relation"}, "'relation' has learned parameters and must be trained first; take 'own'"),
    ):
        with pytest.raises(ValueError, match=said):
            bench(tmp_path / "out", {**GRID, "learners": [learner]})
    assert not (tmp_path / "out").exists()


def test_mistakes_are_found_before_anything_is_trained_or_written(tmp_path, monkeypatch):
    bench(tmp_path / "out")
    frozen = (tmp_path / "out" / "episodes.json").read_bytes()
    monkeypatch.setattr(registry, "_LEARNERS", {name: learner_class(name) for name in list_learners()})

    @register_learner("forgetful")
    class Forgetful(PrototypicalLearner):
        def __init__(self, strength: float = 1.0) -> None:
            super().__init__()

    def train(*arguments):
        raise AssertionError("a backbone was trained before the mistake was found")

    monkeypatch.setattr(run_grid, "train_backbone", train)
    monkeypatch.setitem(sys.modules, "ray", None)
    data = str(tmp_path / "data")
    prepared(data, {"train": list("abcde"), "val": list("fghij"), "test": list("klmno")})
    trained = {"backbone": "conv4", "train_on": data}
    for changes, options, said in (
        ({"learners": [{"learner": "protypical"}]}, {}, "no learner is called"),
        ({"learners": [{"learner": "forgetful"}]}, {}, "no attribute of that name; store it as self.strength"),
        ({"learners": [{"learner": "feat", "d": 64}]}, {}, "must be trained first"),
        ({"backbones": [{"backbone": "conf4", "train_on": data}]}, {}, "no backbone is called 'conf4'"),
        ({"backbones": [trained, {"backbone": "convv"}]}, {}, "no backbone is called 'convv'"),
        ({"backbones": [{**trained, "learner": "protypical"}]}, {}, "no learner is called 'protypical'"),
        ({"backbones": [{**trained, "train_on": "digits"}]}, {}, "digits has no split 'train'"),
        ({}, {"executor": "ray"}, "ray is missing"),
    ):
        grid = {**GRID, "datasets": [{"source": data}], "backbones": [trained], "n_query": 1, "n_shot": 1, **changes}
        with pytest.raises((ValueError, MissingExtraError), match=said):
            bench(tmp_path / "out", grid, **options)
    with pytest.raises(ValueError, match="the learner 'own' needs a checkpoint, and no backbone is one"):
        bench(tmp_path / "out", {**GRID, "learners": [{"learner": "own"}]})
    assert (tmp_path / "out" / "episodes.json").read_bytes() == frozen


@pytest.mark.slow
def test_a_base_split_and_n_query_of_a_dataset(tmp_path):
    learners = [{"learner": "simpleshot", "normalization": "CL2N", "center": "base"}, {"learner": "prototypical"}]
    grid = {
        **GRID,
        "datasets": [{"source": "glyphs", "n_query": 3}],
        "learners": learners,
        "sampler": ["fixed", "varied"],
    }
    frame = bench(tmp_path, {**grid, "n_shot": 1})
    assert frame["n_way"].tolist() == [5, 0, 5, 0]
    described = json.loads((tmp_path / "results.json").read_text())["learners"]
    assert next(iter(described.values()))["params"]["center"] == "base"
    assert (frame["accuracy"] > 0.3).all()


def test_different_frozen_episodes_are_refused(tmp_path):
    bench(tmp_path / "one")
    frozen = tmp_path / "one" / "episodes.json"
    bench(tmp_path / "two", episodes=frozen)
    assert (tmp_path / "two" / "episodes.json").read_bytes() == frozen.read_bytes()
    with pytest.raises(ValueError, match=r"has no .*'n_shot': 3.* of 'digits'"):
        bench(tmp_path / "three", {**GRID, "n_shot": 3}, episodes=frozen)
    text = json.loads(frozen.read_text())
    for place, value, said in (
        (("cells", 0, "sha256"), "0", "differs from the episodes of"),
        (("sha256",), "0", "digits is not the data that"),
    ):
        changed = json.loads(json.dumps(text))
        part = changed["datasets"]["digits"]
        for step in place[:-1]:
            part = part[step]
        part[place[-1]] = value
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=said):
            bench(tmp_path / "four", episodes=tmp_path / "changed.json")
    with pytest.raises(ValueError, match="holds no frozen episodes"):
        bench(tmp_path / "four", episodes=tmp_path / "nothing.json")
    for cell in text["datasets"]["digits"]["cells"]:
        del cell["protocol"]["sampler"]  # manifests of the first sampler have no version
    frozen.write_text(json.dumps(text))
    for folder, episodes in (("four", frozen), ("one", None)):
        with pytest.raises(ValueError, match="frozen by a version of fewshot that drew different episodes of 'digits'"):
            bench(tmp_path / folder, episodes=episodes)


def bench_command(grid, out, *more):
    return fewshot("bench", grid, "--out", out, "--quiet", *more)


def command(grid, out, *more):
    return [sys.executable, "-m", "fewshot", "bench", str(grid), "--out", str(out), "--quiet", *more]


def written(tmp_path, episodes, seeds=(0, 1, 2, 3), learners=("lifelong", "linear-probe")):
    path = tmp_path / "grid.toml"
    one, other = learners
    path.write_text(TOML.format(episodes=episodes, seeds=list(seeds), one=one, other=other))
    return path


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_and_gives_the_same_table(tmp_path):
    grid = written(tmp_path, 300)
    whole = subprocess.run(command(grid, tmp_path / "whole", "--executor", "serial"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    deaths = 0
    for wait in (3.0, 3.5, 4.5, 6.0):
        running = subprocess.Popen(command(grid, tmp_path / "killed", "--executor", "joblib", "--jobs", "2"),
                                   stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        time.sleep(wait)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            deaths += 1
        running.wait()
    last = subprocess.run(command(grid, tmp_path / "killed", "--executor", "serial"), capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert deaths
    one, other = (without_times(pd.read_csv(tmp_path / name / "results.csv")) for name in ("whole", "killed"))
    pd.testing.assert_frame_equal(one, other)


NODES = """
import pathlib, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from fewshot import run_benchmark

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
started = len([n for n in ray.nodes() if n["Alive"]])

def kill():
    while len(list(pathlib.Path(sys.argv[2], "units").glob("*.json"))) < 3:
        time.sleep(0.1)
    cluster.remove_node(second, allow_graceful=False)

threading.Thread(target=kill, daemon=True).start()
frame = run_benchmark(sys.argv[1], sys.argv[2], executor="ray", progress=False)
print("FOUND", started, len([n for n in ray.nodes() if n["Alive"]]), int((frame["error"] != "").sum()))
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_same_table(tmp_path):
    pytest.importorskip("ray")
    grid = written(tmp_path, 500)
    whole = subprocess.run(command(grid, tmp_path / "whole", "--executor", "serial"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    ran = subprocess.run(
        [sys.executable, "-c", NODES, str(grid), str(tmp_path / "ray")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "FOUND 2 1 0" in ran.stdout.splitlines(), ran.stdout  # ray prints hints of its own there
    one, other = (without_times(pd.read_csv(tmp_path / name / "results.csv")) for name in ("whole", "ray"))
    pd.testing.assert_frame_equal(one, other)


def test_a_missing_extra_prints_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'ray is missing; run: pip install "fewshot-learn\[ray\]"'):
        bench(tmp_path, executor="ray")


PLUGIN = '''
from fewshot import Memory, Learner, Statistics, register_learner

@register_learner("first-image")
class FirstImage(Learner):
    """The nearest prototype, under another name."""

    def collect(self, support, labels, n_way, weight):
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics):
        return Memory.of_prototypes(statistics.means, statistics.count)
'''


@pytest.mark.slow
def test_a_plug_in_is_found_on_the_command_line_and_in_its_processes_which_give_the_same_table(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    grid = written(tmp_path, 5, [0], ("first-image", "linear-probe"))
    plugin = ("--plugin", str(tmp_path / "mine.py"))
    ran = bench_command(grid, tmp_path / "out", *plugin, "--jobs", "2")
    assert ran.returncode == 0, ran.stderr
    frame = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    same = [frame[frame["learner"] == name]["accuracy"].tolist() for name in ("prototypical", "first-image")]
    assert same[0] == same[1]
    of_package = tomllib.loads(grid.read_text())
    del of_package["learners"][1]
    here = without_times(bench(tmp_path / "here", of_package))
    there = without_times(frame[frame["learner"] != "first-image"].reset_index(drop=True))
    pd.testing.assert_frame_equal(there, here, check_dtype=False)
    gone = bench_command(grid, tmp_path / "out")
    assert gone.returncode == 2
    assert "no learner is called 'first-image'" in gone.stderr
    assert "; one of your own needs --plugin FILE.py\n" in gone.stderr
    (tmp_path / "broken.py").write_text("1 / 0")
    broken = bench_command(grid, tmp_path / "out", "--plugin", str(tmp_path / "broken.py"))
    assert broken.returncode == 2
    assert "broken.py cannot be loaded (ZeroDivisionError" in broken.stderr


def test_the_command_line_prints_the_table_and_a_mistake_in_a_sentence(tmp_path):
    grid = written(tmp_path, 5, [0], ("matching", "pt-map"))
    options = ("--executor", "serial", "--parquet", str(tmp_path / "t.parquet"))
    ran = bench_command(grid, tmp_path / "out", *options)
    assert ran.returncode == 0, ran.stderr
    assert "| pixels | pt-map † | " in ran.stdout
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 6
    wrong = bench_command(tmp_path / "no.toml", tmp_path / "out")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"fewshot: {Path(tmp_path) / 'no.toml'} does not exist; expected a grid")
