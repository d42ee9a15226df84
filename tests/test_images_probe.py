"""A network of one's own whose code is edited: caches, grids, trainings and saved models notice."""

import importlib.util
import sys

import numpy as np
import pytest

from fewshot import Embedder, FewShotImageClassifier, MetaTrainer, TrainConfig, digits
from fewshot.benchmark.backbones import backbone_key, train_backbone
from fewshot.benchmark.grid_file import Backbone
from fewshot.embedding.backbones import registered
from fewshot.images.probe import probe_of, warn_of_code
from fewshot.training.callbacks import Callback
from tests.test_benchmark_sources import prepared

CODE = """
from torch import nn
from fewshot import register_backbone

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)

    def forward(self, x):
        return self.conv(x).{}().mean((2, 3))

register_backbone("mine.edited", Mine, size=28, channels=1)
"""
DATA = digits()
QUICK = TrainConfig(n_episodes=4, n_way=3, n_query=2, save_every=1, validate_every=4, val_n_query=2, val_n_episodes=2)


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Write the file of the network and run it, as ``--plugin`` does, with another non-linearity."""
    monkeypatch.setattr(registered, "_REGISTERED", dict(registered._REGISTERED))
    path = tmp_path / "mine_edited.py"

    def run(name):
        path.write_text(CODE.format(name))
        spec = importlib.util.spec_from_file_location("mine_edited", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine_edited", module)
        spec.loader.exec_module(module)

    return run


def test_caches_and_grids_compute_again(edit, tmp_path):
    edit("sigmoid")
    MetaTrainer("mine.edited", "prototypical", QUICK).fit(
        pixels(range(5)), pixels(range(5, 8)), out=tmp_path / "run", progress=False
    )
    weights = str(tmp_path / "run" / "best.safetensors")
    before, key = Embedder(weights, cache=tmp_path / "cache"), backbone_key(Backbone(weights))
    known, one = before.transform(DATA.images[:3]), before.identity
    edit("sigmoid")
    assert Embedder(weights).identity == one
    edit("tanh")
    after = Embedder(weights, cache=tmp_path / "cache")
    assert after.fingerprint == before.fingerprint
    assert after.identity != one
    assert backbone_key(Backbone(weights)) != key
    np.testing.assert_array_equal(after.transform(DATA.images[:3]), Embedder(weights).transform(DATA.images[:3]))
    assert np.abs(after.transform(DATA.images[:3]) - known).max() > 0.1
    assert Embedder("conv4", weights="random").code == ""


def test_a_grid_trains_again(edit, tmp_path):
    prepared(tmp_path / "data", {"train": list("abcd"), "val": list("efg"), "test": ["x", "y"]})
    settings = {"n_episodes": 2, "n_way": 3, "n_query": 2, "val_n_query": 2, "val_n_episodes": 2}
    one, found = Backbone("mine.edited", train_on=str(tmp_path / "data"), train=settings), []
    for name in ("sigmoid", "sigmoid", "tanh"):
        edit(name)
        found.append(train_backbone(one, tmp_path / "out", False).backbone)
    assert found[0] == found[1] != found[2]


def test_a_training_that_resumes_says_so(edit, tmp_path, recwarn):
    edit("sigmoid")
    train(tmp_path, 2)
    edit("sigmoid")
    train(tmp_path, 3)
    assert not [one for one in recwarn if "code" in str(one.message)]
    edit("tanh")
    with pytest.warns(UserWarning, match="the code of the network, learner or augmentation has changed since training"):
        train(tmp_path, 4)


def test_a_saved_model_says_so(edit, tmp_path, recwarn):
    edit("sigmoid")
    FewShotImageClassifier("mine.edited", progress=False).fit(DATA[:20]).save(tmp_path / "model")
    edit("sigmoid")
    FewShotImageClassifier.load(tmp_path / "model")
    assert not [one for one in recwarn if "otherwise" in str(one.message)]
    edit("tanh")
    with pytest.warns(
        UserWarning, match=r"the network mine\.edited, 28 x 28 grey computes otherwise than when this model"
    ):
        FewShotImageClassifier.load(tmp_path / "model")


def test_what_a_stranger_wrote_is_checked(edit):
    edit("sigmoid")
    embedder = Embedder("mine.edited")
    warn_of_code(embedder, probe_of(embedder))
    for forged in ([], [1.0], "text", {"a": 1}, [None] * 8):
        with pytest.raises(ValueError, match="its numbers of an embedding are not those of its network"):
            warn_of_code(embedder, forged)
    with pytest.warns(UserWarning, match="computes otherwise"):
        warn_of_code(embedder, [float("nan")] * 8)
    assert probe_of(Embedder("conv4", weights="random")) is None


def pixels(classes):
    return DATA.with_classes(list(classes)).decoded(size=28, grey=True)


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def step(self, record, result):
        if len(result.records) == self.steps:
            raise RuntimeError("power is gone")


def train(folder, steps):
    """Train until a number of steps is done, and stop there."""
    trainer = MetaTrainer("mine.edited", "prototypical", QUICK, callbacks=[StopAfter(steps)])
    with pytest.raises(RuntimeError, match="power is gone"):
        trainer.fit(pixels(range(5)), pixels(range(5, 8)), out=folder, progress=False, resume=steps > 2)
