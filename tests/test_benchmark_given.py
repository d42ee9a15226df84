"""Data of a grid that are embeddings already."""

import json

import numpy as np
import pytest

from fewshot import DiscriminantLearner, PrototypicalLearner, evaluate, run_benchmark
from fewshot.benchmark.given import GivenEmbeddings, read_given
from fewshot.cli import main
from fewshot.errors import ArtifactError

rng = np.random.default_rng(0)
LABELS = np.repeat(["billing", "login", "parcel", "refund", "speed", "voice"], 12)
X = rng.normal(size=(72, 8)) + 2 * rng.normal(size=(6, 8))[np.repeat(np.arange(6), 12)]
GRID = {
    "n_shot": [2],
    "n_episodes": 20,
    "n_query": 4,
    "learners": [{"learner": "prototypical"}, {"learner": "matching"}],
}


@pytest.fixture
def tickets(tmp_path):
    np.savez(tmp_path / "tickets.npz", embeddings=X, labels=LABELS, network="MiniLM")
    return str(tmp_path / "tickets.npz")


def bench(out, datasets, **more):
    return run_benchmark({**GRID, "datasets": datasets, **more}, out, executor="serial", progress=False)


def test_embeddings_are_measured_as_they_are_beside_images(tmp_path, tickets):
    datasets = [{"source": "digits"}, {"source": tickets, "n_query": 10}]
    frame = bench(tmp_path / "out", datasets, backbones=[{"backbone": "pixels"}])
    places = list(frame[["dataset", "backbone", "learner"]].itertuples(index=False, name=None))
    assert places == [
        ("digits", "pixels", "prototypical"),
        ("digits", "pixels", "matching"),
        ("tickets", "MiniLM", "prototypical"),
        ("tickets", "MiniLM", "matching"),
    ]
    asked = evaluate(PrototypicalLearner(), X.astype(np.float32), LABELS, n_shot=2, n_query=10, n_episodes=20)
    assert frame["accuracy"][2] == pytest.approx(asked.mean)
    assert frame["external"].tolist() == [False, False, True, True]  # what made them may have seen anything
    assert "MiniLM" in (tmp_path / "out" / "report.html").read_text()
    again = bench(tmp_path / "out", datasets, backbones=[{"backbone": "pixels"}])
    assert again.attrs["resumed"] == 4


def test_a_grid_of_embeddings_alone_needs_no_backbone(tmp_path, tickets):
    frame = bench(tmp_path / "out", [{"source": tickets}])
    assert frame["backbone"].tolist() == ["MiniLM"] * 2
    with pytest.raises(ValueError, match=r"the grid has no \[\[backbones\]\]; give at least one"):
        bench(tmp_path / "other", [{"source": tickets}, {"source": "digits"}])


def test_the_default_learner_keeps_numbers_of_both_signs_as_the_classifier_does(tmp_path, tickets):
    frame = bench(tmp_path / "out", [{"source": tickets}], learners=[{"learner": "discriminant"}])
    asked = evaluate(DiscriminantLearner(power=1), X.astype(np.float32), LABELS, n_shot=2, n_query=4, n_episodes=20)
    assert frame["accuracy"][0] == pytest.approx(asked.mean)


def test_the_command_evaluates_embeddings_and_refuses_what_is_about_images(tmp_path, tickets, capsys):
    short = ["--shot", "2", "--query", "4", "--episodes", "20"]
    assert main(["evaluate", tickets, *short, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    asked = evaluate(DiscriminantLearner(power=1), X.astype(np.float32), LABELS, n_shot=2, n_query=4, n_episodes=20)
    assert found["results"][0]["accuracy %"] == pytest.approx(100 * asked.mean)
    np.testing.assert_allclose(found["results"][0]["accuracies"], asked.accuracies)
    assert (found["backbone"], found["external"]) == ("MiniLM", True)
    assert "transductive" not in capsys.readouterr().out
    assert main(["evaluate", tickets, *short, "--learner", "bd-cspn"]) == 0
    assert ", transductive" in capsys.readouterr().out
    for wrong, told in (
        (["--from", "best.safetensors"], "holds embeddings, and --from is about images; leave it out"),
        (["--backbone", "conv4"], "holds embeddings, and --backbone is about images; leave it out"),
        (["--skip-unreadable"], "holds embeddings, and --skip-unreadable is about images; leave it out"),
        (["--shot", "20"], "classes"),
    ):
        assert main(["evaluate", tickets, *short, *wrong]) == 2
        message = capsys.readouterr().err.strip()
        assert message.startswith("fewshot: ")
        assert told in message
        assert "\n" not in message


def test_equal_rows_count_once(tmp_path):
    np.savez(tmp_path / "twice.npz", embeddings=[*X, X[0]], labels=[*LABELS, "billing"])
    frame = bench(tmp_path / "out", [{"source": str(tmp_path / "twice.npz")}])
    assert frame["backbone"].tolist() == ["given embeddings"] * 2
    assert '"dropped": {\n  "twice": 1' in (tmp_path / "out" / "results.json").read_text()


def test_a_mean_of_other_classes_is_told_to_need_splits(tmp_path, tickets):
    learner = {"learner": "simpleshot", "normalization": "CL2N", "center": "base"}
    with pytest.raises(ValueError, match="a split 'train' of tickets, which has no splits; leave that learner out"):
        bench(tmp_path / "out", [{"source": tickets}], learners=[learner])


def test_a_learner_of_maps_is_refused(tmp_path, tickets):
    with pytest.raises(ValueError, match="compares maps of features, which 'given embeddings' are not; leave one out"):
        bench(tmp_path / "out", [{"source": tickets}], learners=[{"learner": "dn4"}])


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"X": X, "y": LABELS}, "it has no array 'embeddings', but X, y"),
        ({"embeddings": X}, "it has no array 'labels', but embeddings"),
        ({"embeddings": X, "labels": LABELS[1:]}, "there are 72 embeddings and 71 labels; expected one label for each"),
        ({"embeddings": X[0], "labels": LABELS[:8]}, "the embeddings have shape (8,) and dtype float64; expected"),
        ({"embeddings": X.astype(str), "labels": LABELS}, "and dtype <U"),
        ({"embeddings": np.where(X > 2, np.nan, X), "labels": LABELS}, "the array of embeddings contains NaN at row"),
        ({"embeddings": X * 1e30, "labels": LABELS}, "values above 1e+18 overflow when squared"),
        ({"embeddings": X, "labels": LABELS.astype(object)}, "array 'labels' holds Python objects, as columns"),
        ({"embeddings": X, "labels": LABELS, "split": LABELS}, "'split', but all rows of a file are"),
        ({"embeddings": X, "labels": np.where(LABELS == "login", np.nan, 1.0)}, "the list of labels"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it_and_says_how_it_is_written(tmp_path, arrays, told):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(ArtifactError) as caught:
        read_given(str(path))
    assert str(caught.value).startswith(f"{path} cannot be used: ")
    assert told in str(caught.value)
    assert "; write it by np.savez(path, embeddings=X, labels=y), X of shape" in str(caught.value)


def test_a_file_that_is_missing_damaged_or_no_archive_is_told(tmp_path):
    path = tmp_path / "some.npz"
    with pytest.raises(ValueError, match=r"some\.npz does not exist; write it by np\.savez"):
        read_given(str(path))
    np.savez_compressed(path, embeddings=X, labels=LABELS)
    whole = path.read_bytes()
    for broken in (whole[:300], whole[:200] + b"\0" * 80 + whole[280:], b"", b"path,label\n"):
        path.write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"some\.npz cannot be used: "):
            read_given(str(path))
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(ArtifactError, match="it is no .npz file; write it by"):
        read_given(str(path))


def test_some_rows_are_embeddings_with_their_network():
    some = GivenEmbeddings(X, LABELS, "MiniLM")[3:5]
    assert (type(some), some.network, len(some)) == (GivenEmbeddings, "MiniLM", 2)
