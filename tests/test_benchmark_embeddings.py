"""Embeddings of a run: computed once, checked for damage, and failures reported."""

import numpy as np
import pandas as pd
import pytest

from fewshot import Grid, run_benchmark
from fewshot.benchmark import embeddings
from fewshot.data.packed import write_packed

RNG = np.random.default_rng(0)
GRID = {
    "backbones": [{"backbone": "pixels"}],
    "learners": [{"learner": "prototypical"}],
    "n_shot": 1,
    "n_query": 3,
    "n_episodes": 5,
}

CONV4 = {"backbone": "conv4", "weights": "random", "img_size": 28}


@pytest.fixture
def data(tmp_path):
    labels, split = np.repeat(list("abcdefg"), 8), np.repeat(["train", "train", *["test"] * 5], 8)
    images = RNG.integers(0, 256, (len(labels), 16, 16), dtype=np.uint8)
    write_packed(tmp_path / "data", images, pd.DataFrame({"path": "made", "label": labels, "split": split}), {})
    return str(tmp_path / "data")


def bench(out, **changes):
    return run_benchmark(Grid.from_dict({**GRID, **changes}), out, executor="serial", progress=False)


def test_data_listed_twice_are_embedded_once(tmp_path, data):
    datasets = [{"source": data, "name": "q2", "n_query": 2}, {"source": data, "name": "q3"}]
    backbones = [{"backbone": "pixels", "name": name} for name in ("one", "two")]
    frame = bench(tmp_path / "out", datasets=datasets, backbones=backbones)
    assert (frame["error"] == "").all()
    assert frame["accuracy"][:2].tolist() == frame["accuracy"][2:].tolist()
    (path,) = (tmp_path / "out" / "embeddings").iterdir()
    assert np.load(path).shape == (40, 784)


def test_a_network_is_loaded_once_however_many_parts_it_embeds(tmp_path, data, monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 7)
    make, made = embeddings.backbone_embedder, []

    def counted(*arguments, **options):
        made.append(arguments)
        return make(*arguments, **options)

    monkeypatch.setattr(embeddings, "backbone_embedder", counted)
    embeddings._loaded.clear()
    bench(tmp_path / "out", datasets=[{"source": data}], backbones=[CONV4])
    assert len(made) == 1  # for six parts


def test_damaged_embeddings_are_recomputed(tmp_path, data):
    datasets = [{"source": data}]
    frame = bench(tmp_path / "out", datasets=datasets)
    (path,) = (tmp_path / "out" / "embeddings").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", b"junk"):
        path.write_bytes(damaged)
        for unit in (tmp_path / "out" / "units").iterdir():
            unit.unlink()
        pd.testing.assert_frame_equal(
            bench(tmp_path / "out", datasets=datasets).drop(columns="ms_per_episode"),
            frame.drop(columns="ms_per_episode"),
        )
        assert path.read_bytes() == whole


def test_a_failed_base_split_fails_only_the_learners_that_need_it(tmp_path, data, monkeypatch):
    embed = embeddings.embed_part

    def broken(images, *network):
        if len(images) == 16:
            raise OSError("the disk is gone")
        return embed(images, *network)

    monkeypatch.setattr(embeddings, "embed_part", broken)
    centred = {"learner": "simpleshot", "normalization": "CL2N", "center": "base"}
    frame = bench(tmp_path / "out", datasets=[{"source": data}], learners=[{"learner": "prototypical"}, centred])
    assert frame["error"].tolist() == ["", "embedding failed: OSError: the disk is gone"]
    assert "failed: simpleshot" in (tmp_path / "out" / "results.md").read_text()
