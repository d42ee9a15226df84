"""``fewshot evaluate``, after ``fewshot train``."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import Embedder, LabeledImages, embed, evaluate, glyphs, load_learner
from fewshot.benchmark.result_files import read_results
from fewshot.cli import main
from fewshot.data.packed import write_packed
from fewshot.embedding.checkpoint import Checkpoint

FEW = ("--episodes", "6", "--way", "5", "--val-way", "5", "--val-every", "3", "--quiet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Glyphs as prepared data with splits."""
    folder = tmp_path_factory.mktemp("data") / "glyphs"
    parts = {split: glyphs(split) for split in ("train", "val", "test")}
    parts = {split: part.with_classes(part.classes[:12]) for split, part in parts.items()}
    tables = [pd.DataFrame({"path": "made", "label": part.labels, "split": split}) for split, part in parts.items()]
    write_packed(folder, np.concatenate([p.images for p in parts.values()]), pd.concat(tables, ignore_index=True), {})
    return folder


def test_train_writes_a_checkpoint_that_evaluate_takes(data, tmp_path, capsys):
    # A real process, whose command the manifest tells.
    command = [sys.executable, "-m", "fewshot", "train", str(data), "--out", str(tmp_path / "run"), *FEW]
    trained = subprocess.run(command, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    assert "kept the weights after episode" in trained.stdout
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.safetensors",
        "log.csv",
        "manifest.json",
        "state.safetensors",
    ]
    facts = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert facts["config"]["n_episodes"] == 6
    assert facts["manifest"]["command"].startswith("fewshot train ")

    checkpoint = tmp_path / "run" / "best.safetensors"
    measure = ["evaluate", str(data), "--from", str(checkpoint), "--episodes", "20", "--query", "3", "--json", "-"]
    assert main([*measure, "--quiet"]) == 0
    results = json.loads(capsys.readouterr().out)
    test = LabeledImages.open(data, "test")
    for row in results["results"]:
        embeddings = embed(Checkpoint.open(checkpoint).network(), test.images)
        expected = evaluate(
            load_learner(checkpoint), embeddings, test.labels, n_shot=row["shot"], n_query=3, n_episodes=20
        )
        assert row["accuracy %"] == pytest.approx(100 * expected.mean, abs=0.7)
        assert row["ci95 %"] > 0
    assert [row["shot"] for row in results["results"]] == [1, 5]
    assert results["split"] == "test"
    with pytest.warns(UserWarning, match=r"was trained or selected on 12 classes of these, .* measure on others"):
        assert main([*measure, "--quiet", "--split", "val"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (len(seen["seen_classes"]), results["seen_classes"]) == (12, [])
    (tmp_path / "seen.json").write_text(json.dumps(seen))
    with pytest.raises(ValueError, match=r"seen\.json, its network was trained or selected on 12 classes of the data"):
        read_results([tmp_path / "seen.json"])


def test_training_on_a_folder_of_images_in_grey(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label in "abcdef":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.png")
    args = ["train", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--episodes", "2", "--way", "3", "--quiet"]
    assert main(args) == 2
    assert "give the size to train on, e.g. --size 84" in capsys.readouterr().err
    assert main([*args, "--size", "16", "--grey"]) == 0
    assert "val:   none; the last weights are kept" in capsys.readouterr().out
    seen = Checkpoint.open(tmp_path / "run" / "best.safetensors").preprocessing
    assert (seen.channels, seen.height, seen.width) == (1, 16, 16)


def test_evaluate_prints_a_table(data, capsys):
    args = ["evaluate", str(data), "--backbone", "conv4", "--weights", "random", "--size", "16", "--episodes", "5"]
    assert main([*args, "--shot", "1", "--query", "3", "--learner", "matching", "--split", "val", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("the split val of")
    assert lines[1].split()[:4] == ["way", "shot", "accuracy", "%"]
    assert lines[2].split()[0] == "5"
    assert lines[2].endswith("matching, cosine, temperature 0.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "{data}", "--split", "tset"), "tset"),
        (("evaluate", "{data}", "--way", "99", "--shot", "1", "--query", "2"), "99"),
        (("evaluate", "{gone}"), "does not exist"),
        (("evaluate", "{data}", "--learner", "matchin"), "did you mean 'matching'"),
        (("train", "{data}", "--out", "{gone}", "--learner", "matchin"), "did you mean 'matching'"),
        (("train", "{data}", "--out", "{gone}", "--backbone", "conv5"), "did you mean 'conv4'"),
        (("train", "{data}", "--out", "{gone}", "--set", "lr=-1"), "lr"),
        (("train", "{data}", "--out", "{gone}", "--way", "99"), "99"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, data, tmp_path, capsys):
    quick = ("--backbone", "conv4", "--weights", "random", "--size", "16") if arguments[0] == "evaluate" else ()
    given = [argument.format(data=data, gone=tmp_path / "gone") for argument in arguments]
    assert main([*given, *quick, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_sizes_that_do_not_fit_are_told_before_images_are_embedded(tmp_path, capsys):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.new("L", (16, 16), 40 * i).save(tmp_path / label / f"{i}.png")
    (tmp_path / "a" / "0.png").write_bytes(b"embedding would stop at this one")
    args = ["evaluate", str(tmp_path), "--backbone", "conv4", "--weights", "random", "--size", "16", "--way", "2"]
    assert main([*args, "--query", "2", "--shot", "1", "5", "--quiet"]) == 2
    assert "fewer than the 7 rows that an episode needs" in capsys.readouterr().err


def test_small_classes_are_reported_or_dropped(data, capsys):
    args = ["evaluate", str(data), "--backbone", "conv4", "--weights", "random", "--size", "16", "--episodes", "2"]
    args += ["--way", "2", "--shot", "1", "--query", "19", "--csv", "-", "--quiet"]
    assert main(args) == 2
    assert "--small-classes drop" in capsys.readouterr().err
    assert main([*args, "--small-classes", "drop"]) == 0
    assert capsys.readouterr().out.startswith("way,shot,")


def test_evaluate_compares_the_places_of_images_for_a_learner_that_does(data, tmp_path, capsys):
    how = ["--backbone", "conv4", "--weights", "random", "--size", "32"]
    sizes = ["--episodes", "10", "--query", "3", "--shot", "1", "--way", "5"]
    assert main(["evaluate", str(data), *how, *sizes, "--learner", "dn4", "--json", "-", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)["results"][0]["accuracy %"]
    test = LabeledImages.open(data, "test")
    maps = Embedder("conv4", weights="random", img_size=32, pool=None, progress=False).transform(test)
    assert found == pytest.approx(100 * evaluate("dn4", maps, test.labels, n_query=3, n_episodes=10).mean)


def test_one_episode_has_no_interval(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(60, 4)) + 1
    np.savez(tmp_path / "d.npz", embeddings=x, labels=np.repeat(list("abcdef"), 10))
    given = ["evaluate", str(tmp_path / "d.npz"), "--episodes", "1", "--query", "3", "--shot", "1"]
    assert main([*given, "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out.split()
    assert "none" in printed
    assert "nan" not in printed
    assert json.loads((tmp_path / "found.json").read_text())["results"][0]["ci95 %"] is None
