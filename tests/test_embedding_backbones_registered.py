"""Networks of the user's own, by name: embedded with, trained, saved, and built again in another process."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import (
    Embedder,
    FewShotImageClassifier,
    LabeledImages,
    MetaTrainer,
    TrainConfig,
    create_backbone,
    digits,
    register_backbone,
)
from fewshot.embedding.backbones import registered
from fewshot.embedding.checkpoint import Checkpoint
from fewshot.errors import ArtifactError, UnknownNameError
from tests.processes import python

DATA = digits()
SUPPORT, QUERIES = DATA[:40], DATA.images[40:60]
PLUGIN = """
from torch import nn
from fewshot import register_backbone

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))

register_backbone("mine.small", Small, mean=0.2, std=0.3, size=28, channels=1)
"""


class Small(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch):
    monkeypatch.setattr(registered, "_REGISTERED", {})


@pytest.fixture
def small():
    register_backbone("mine.small", Small, mean=0.2, std=0.3, size=28, channels=1)


def test_a_registered_network_is_prepared_for_as_it_says(small):
    network = create_backbone("mine.small", seed=3)
    assert not network.training
    seen = Embedder("mine.small").preprocessing
    assert (seen.channels, seen.height, seen.width, seen.mean, seen.std) == (1, 28, 28, (0.2,), (0.3,))
    x = torch.from_numpy((QUERIES[:, None] / 255).astype(np.float32))
    with torch.no_grad():
        expected = create_backbone("mine.small")((x - 0.2) / 0.3).numpy()
    np.testing.assert_allclose(Embedder("mine.small").transform(QUERIES), expected, atol=1e-5)
    assert not torch.equal(network.conv.weight, create_backbone("mine.small").conv.weight)


def test_it_is_saved_with_its_weights_and_built_again_by_its_name(small, tmp_path):
    trained = create_backbone("mine.small")
    nn.init.normal_(trained.conv.weight, generator=torch.Generator().manual_seed(7))
    model = FewShotImageClassifier(trained, progress=False).fit(SUPPORT)
    model.save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(QUERIES), model.predict_proba(QUERIES), atol=1e-6)
    assert loaded.partial_fit(QUERIES[:2], [0, 99]).classes_[-1] == 99


@pytest.mark.parametrize("name", ["mine.small", "mine.flat"])
def test_it_is_trained_by_its_name_and_the_checkpoint_says_what_is_missing(name, small, tmp_path, monkeypatch):
    def flat(img_size=20):
        return nn.Sequential(nn.Flatten(), nn.Linear(img_size**2, 5))

    register_backbone("mine.flat", flat, channels=1)
    config = TrainConfig(n_episodes=2, n_way=3, val_n_episodes=2, val_n_query=1)
    known, new = DATA.with_classes(range(6)), DATA.with_classes(range(6, 10))
    MetaTrainer(name, config=config).fit(known, new, out=tmp_path, progress=False)
    checkpoint = str(tmp_path / "best.safetensors")
    assert Checkpoint.open(checkpoint).training["began"] == "random"
    model = FewShotImageClassifier(checkpoint, progress=False).fit(SUPPORT)
    model.save(tmp_path / "model")
    assert FewShotImageClassifier.load(tmp_path / "model").predict(QUERIES[:3]).shape == (3,)
    coloured = LabeledImages(np.repeat(known.images[..., None], 3, -1), known.labels)
    with pytest.raises(ValueError, match=r"have 3 channels and the network takes 1; convert them, .*grey=True"):
        MetaTrainer(name, config=config).fit(coloured, progress=False)
    monkeypatch.setattr(registered, "_REGISTERED", {})
    missing = f"saved with the network '{name}', which neither timm nor a plug-in has; register it .* first$"
    with pytest.raises(UnknownNameError, match=missing):
        Checkpoint.open(checkpoint).network()
    with pytest.raises(ArtifactError, match=missing):  # and not to restore it from a copy
        FewShotImageClassifier.load(tmp_path / "model").predict(QUERIES[:1])


def test_weights_come_from_the_factory_or_a_file_and_can_be_saved_by_name_alone(small, tmp_path):
    model = FewShotImageClassifier("mine.small", progress=False).fit(SUPPORT)
    model.save(tmp_path / "named", weights="reference")
    named = FewShotImageClassifier.load(tmp_path / "named")
    np.testing.assert_array_equal(named.predict_proba(QUERIES), model.predict_proba(QUERIES))
    other = create_backbone("mine.small", seed=9)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    embedder = Embedder("mine.small", weights=tmp_path / "other.pt")
    np.testing.assert_allclose(embedder.transform(QUERIES), Embedder(other).transform(QUERIES), atol=1e-6)
    with pytest.raises(ValueError, match="are those that its factory returns; omit pretrained"):
        create_backbone("mine.small", pretrained=True)


def test_another_factory_of_the_name_takes_effect_and_an_old_folder_says_so(small, tmp_path):
    FewShotImageClassifier("mine.small", progress=False).fit(SUPPORT).save(tmp_path / "model")
    kept = Embedder("mine.small").load()
    register_backbone("mine.small", lambda: Small(9), mean=0.2, std=0.3, size=28, channels=1)
    assert Embedder("mine.small").transform(QUERIES).shape == (20, 9)
    assert kept.transform(QUERIES).shape == (20, 6)
    with pytest.raises(Exception, match="does not hold the weights of the network that it names"):
        FewShotImageClassifier.load(tmp_path / "model")


def test_a_network_that_is_there_already_stays_as_it_is(tmp_path):
    with torch.random.fork_rng():
        mine = Small().train()
    register_backbone("mine.fixed", lambda: mine, 0.2, 0.3, 28, channels=1)
    model = FewShotImageClassifier("mine.fixed", progress=False).fit(SUPPORT)
    model.save(tmp_path / "model")
    FewShotImageClassifier.load(tmp_path / "model").embedder_.network.conv.weight.data.zero_()
    assert mine.training
    assert mine.conv.weight.requires_grad
    assert mine.conv.weight.abs().sum() > 0
    assert not hasattr(mine, "fewshot_spec")


def test_the_size_of_the_images_is_passed_on_if_the_factory_takes_it():
    def flat(img_size=28):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * img_size**2, 5))

    register_backbone("mine.flat", flat, size=28)
    assert Embedder("mine.flat", img_size=16).transform(QUERIES).shape == (20, 5)
    register_backbone("mine.small", Small, 0.5, 0.5, 28, channels=1)
    assert Embedder("mine.small", img_size=40).preprocessing.height == 40


def test_a_classification_layer_that_was_left_on_is_told():
    import torchvision

    register_backbone("mine.squeeze", lambda: torchvision.models.resnet18(num_classes=3), size=32)
    with pytest.warns(UserWarning, match=r"remove the layer: network\.fc = torch\.nn\.Identity"):
        Embedder("mine.squeeze").transform(QUERIES[:1])


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (("resnet18", Small), ValueError, "'resnet18' is a network of timm"),
        (("conv4", Small), ValueError, "'conv4' is a network of timm or fewshot"),
        (("dinov2-small", Small), ValueError, "expected letters, digits"),
        (("hf-hub:me/net", Small), ValueError, "expected letters, digits"),
        (("./mine", Small), ValueError, "expected letters, digits"),
        (("mine", 3), TypeError, "factory is a int; expected a function or class"),
        (("mine", Small, (0.1, 0.2)), ValueError, r"mean is \(0\.1, 0\.2\); expected one number, or 3"),
        (("mine", Small, 0.5, 0), ValueError, "std is 0; expected numbers above 0"),
        (("mine", Small, 0.5, 0.5, 0), ValueError, "size is 0; expected a whole number"),
    ],
)
def test_what_cannot_be_registered_is_told_in_a_sentence(given, error, match):
    with pytest.raises(error, match=match):
        register_backbone(*given)


@pytest.mark.parametrize(
    ("given", "match"),
    [({"channels": 4}, "channels is 4"), ({"crop_pct": 2}, "crop_pct is 2"), ({"interpolation": "cubic"}, "'bicubic'")],
)
def test_settings_out_of_range_are_told_in_a_sentence(given, match):
    with pytest.raises(ValueError, match=match):
        register_backbone("mine", Small, **given)


def test_what_is_no_network_is_told_in_a_sentence():
    with torch.random.fork_rng():
        network = Small()
    with pytest.raises(TypeError, match="factory is a network; pass what makes it"):
        register_backbone("mine", network)
    register_backbone("mine", lambda: 3)
    with pytest.raises(TypeError, match="the factory of 'mine' returned a int"):
        create_backbone("mine")
    with pytest.raises(UnknownNameError, match="no backbone is called 'mine.smal'") as caught:
        create_backbone("mine.smal")
    assert "register_backbone" in caught.value.__notes__[0]


def test_another_process_needs_the_registration_which_a_plug_in_may_hold(small, tmp_path):
    folder = tmp_path / "model"
    model = FewShotImageClassifier("mine.small", progress=False).fit(SUPPORT)
    model.save(folder)
    (tmp_path / "mine.py").write_text(PLUGIN)
    np.save(tmp_path / "queries.npy", QUERIES)
    code = (
        "import sys, numpy as np; from fewshot import FewShotImageClassifier as F; "
        "print(F.load(sys.argv[1]).predict(np.load(sys.argv[2])).tolist())"
    )
    process = code, folder, tmp_path / "queries.npy"
    without = python(*process)
    assert "saved with the network 'mine.small', which neither timm nor a plug-in has; register it" in without.stderr
    environment = {**os.environ, "FEWSHOT_PLUGINS": str(tmp_path / "mine.py")}
    found = python(*process, env=environment)
    assert found.stdout.strip() == str(model.predict(QUERIES).tolist())
