"""Networks of the hub, in a cache that a test has filled: the hub itself cannot be reached."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf

from fewshot import Embedder, FewShotImageClassifier, PrototypicalLearner, create_backbone
from fewshot.cli import main
from fewshot.embedding.backbones import check_backbone, is_sized, spec_of
from fewshot.embedding.backbones.presets import PRESETS
from fewshot.embedding.checkpoint import save_weights
from fewshot.embedding.sources import Source
from fewshot.errors import DownloadError, UnknownNameError
from fewshot.images.learned import default_learner
from tests.photographs import write_photos

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)


def published(folder, network="test_vit", **arguments):
    """Write a network of timm as it is published, with a head, and return its embeddings' network."""
    torch.manual_seed(7)
    made = timm.create_model(network, num_classes=3, **arguments)
    save_for_hf(made, folder, model_args=arguments, safe_serialization=True)
    return made


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng():
        yield


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("fewshot.embedding.backbones.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub_cache(no_network, tmp_path, monkeypatch):
    """A function that puts a network into the cache of the hub, as a download leaves it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # Before 0.25 the hub's client copied the constant on import.
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)

    def fill(repository, revision="main", **how):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        commit = "0123456789abcdef0123456789abcdef01234567"
        network = published(folder / "snapshots" / commit, **how)
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / revision).write_text(commit)
        return network

    return fill


def same_weights(network, other):
    wanted = other.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:", "HF-Hub:"])
@pytest.mark.parametrize(("repository", "revision"), [("me/net", "main"), ("me/net@v2", "v2")])
def test_a_repository_that_was_fetched_before_works_without_the_hub(prefix, repository, revision, hub_cache):
    wanted = hub_cache(repository.partition("@")[0], revision, in_chans=1)
    embedder = Embedder(prefix + repository, pretrained=True, progress=False)
    same_weights(embedder.network, wanted)
    spec = spec_of(embedder.network)
    assert (spec["name"], spec["kwargs"]["in_chans"]) == ("test_vit", 1)
    assert embedder.preprocessing.channels == 1
    assert np.isfinite(embedder.transform(IMAGES)).all()


@pytest.mark.parametrize("name", ["timm/test_vit.r160_in1k", "hf-hub:timm/test_vit.r160_in1k", "test_vit.r160_in1k"])
def test_repositories_of_timm_are_its_networks(name, hub_cache):
    wanted = hub_cache("timm/test_vit.r160_in1k")
    network = create_backbone(name, pretrained=True)
    same_weights(network, wanted)
    assert spec_of(network) == {"name": "test_vit.r160_in1k", "kwargs": {}}
    assert spec_of(create_backbone(name)) == spec_of(network)


def test_timm_publishes_under_other_names_too(hub_cache):
    wanted = hub_cache("timm/ViT-Tiny-Test")
    same_weights(create_backbone("timm/ViT-Tiny-Test", pretrained=True), wanted)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_published_network_of_timm(name):
    config = check_backbone(name).get_pretrained_cfg(PRESETS[name])
    assert config.has_weights
    assert is_sized(name) == config.fixed_input_size


def test_a_preset_takes_its_weights_from_the_hub_and_is_saved_by_the_name_that_timm_knows(
    hub_cache, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS, "tiny", "test_vit.r160_in1k")
    with pytest.raises(DownloadError, match=r"the weights of 'test_vit.r160_in1k' could not be downloaded .* weights="):
        Embedder("tiny", progress=False).transform(IMAGES)
    wanted = hub_cache("timm/test_vit.r160_in1k")
    same_weights(Embedder("tiny").network, wanted)
    same_weights(create_backbone("tiny", pretrained=True), wanted)
    assert spec_of(create_backbone("tiny"))["name"] == "test_vit.r160_in1k"
    untrained = Embedder("tiny", weights="random", img_size=32, progress=False)
    assert untrained.preprocessing.height == 32
    assert np.isfinite(untrained.transform(IMAGES)).all()
    model = FewShotImageClassifier("tiny", progress=False).fit(IMAGES, ["a", "b"] * 2)
    model.save(tmp_path / "m", weights="reference")
    source = json.loads((tmp_path / "m" / "manifest.json").read_text())["source"]
    assert (source["backbone"], source["pretrained"]) == ("test_vit.r160_in1k", True)
    loaded = FewShotImageClassifier.load(tmp_path / "m")
    np.testing.assert_allclose(loaded.predict_proba(IMAGES), model.predict_proba(IMAGES), atol=1e-6)


def test_size_and_normalisation_of_a_preset_are_those_of_timm():
    config = timm.get_pretrained_cfg("vit_small_patch14_dinov2.lvd142m")
    preprocessing = Embedder("dinov2-small", weights="random", img_size=28).preprocessing
    assert (preprocessing.mean, preprocessing.std, preprocessing.height) == (config.mean, config.std, 28)
    assert preprocessing.interpolation == config.interpolation


def test_a_name_that_is_nearly_a_preset_is_told_so():
    with pytest.raises(UnknownNameError, match="did you mean 'dinov2-small'"):
        create_backbone("dinov2-smal")


def test_a_folder_in_the_layout_of_the_hub_brings_its_weights(no_network, tmp_path):
    wanted = published(tmp_path / "net")
    embedder = Embedder(f"local-dir:{tmp_path / 'net'}", progress=False)
    same_weights(embedder.network, wanted)
    assert spec_of(embedder.network)["name"] == "test_vit"
    sized = Embedder(f"local-dir:{tmp_path / 'net'}", img_size=64, progress=False)
    assert sized.preprocessing.height == 64
    assert sized.transform(IMAGES).shape == (4, 64)
    published(tmp_path / "net")
    os.utime(tmp_path / "net" / "model.safetensors", (1, 1))
    assert Source(embedder.backbone).stamps() != Source("conv4").stamps()


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_a_saved_classifier_needs_neither_the_hub_nor_the_folder(where, hub_cache, tmp_path):
    if where == "hub":
        hub_cache("me/net")
    else:
        published(tmp_path / "hub")
    backbone = {"folder": f"local-dir:{tmp_path / 'hub'}", "hub": "hf-hub:me/net"}[where]
    model = FewShotImageClassifier(backbone, pretrained=where == "hub", progress=False).fit(IMAGES, ["a", "b"] * 2)
    model.save(tmp_path / "model")
    wanted = model.predict_proba(IMAGES)
    shutil.rmtree(tmp_path / "hub")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), wanted)
    assert loaded.embedder_.fingerprint == model.embedder_.fingerprint


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "hf-hub:me/net",
            DownloadError,
            r"weights of 'me/net' could not be downloaded .*cannot be reached.*or give weights=PATH",
        ),
        ("hf-hub:timm/resnet18.a1_in1k", DownloadError, "cannot be reached"),
        ("timm/resnet18.a1_in1k", DownloadError, "cannot be reached"),
        ("timm/resnet81", UnknownNameError, "did you mean 'resnet18'"),
        ("timm/resnet18.a1_in2k", DownloadError, "cannot be reached"),
        ("resnet18.a1_in2k", UnknownNameError, "did you mean 'resnet18.a1_in1k'"),
        ("hf-hup:me/net", UnknownNameError, "no source of backbones is called 'hf-hup'; did you mean 'hf-hub'"),
        ("hf-hub:net", ValueError, "is not a repository of the hub; write hf-hub:OWNER/NAME"),
        ("hf-hub:../../etc/passwd", ValueError, "is not a repository of the hub"),
        ("me/net", ValueError, "write 'hf-hub:me/net' or './me/net'"),
        ("local-dir:", ValueError, "has no path"),
        ("local-dir:gone", ValueError, "gone has no config.json"),
        ("./resnet18", ValueError, "does not exist; expected a file of weights"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(name, error, message, no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # Before 0.25 the hub's client copied the constant on import.
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    is_path = name.startswith("./")
    with pytest.raises(error, match=message) as caught:
        Embedder(name, pretrained=not is_path, progress=False).transform(IMAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "does not describe a timm network"),
        ("[]", "does not describe a timm network"),
        ({"architecture": "os.system", "pretrained_cfg": {}}, "no backbone is called 'os.system'"),
        (
            {"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {"checkpoint_path": "/etc/passwd"}},
            "checkpoint_path='/etc/passwd' is not one that a file may give",
        ),
        (
            {"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {"pretrained_cfg": {"url": "http://x"}}},
            "is not one that a file may give",
        ),
        ({"architecture": "conv4", "pretrained_cfg": {}}, "does not hold the weights of 'conv4'"),
    ],
)
def test_a_folder_that_describes_something_else_is_refused(config, message, no_network, tmp_path):
    published(tmp_path)
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        create_backbone(f"local-dir:{tmp_path}", pretrained=True)
    assert "\n" not in str(caught.value)


def test_a_file_named_like_a_network_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = Embedder("conv4", weights="random", progress=False).fingerprint
    save_weights("best.safetensors", create_backbone("conv4", seed=5), PrototypicalLearner())
    for name in ("conv4", "random", "offline"):
        shutil.copy("best.safetensors", name)
    embedder = Embedder("conv4", weights="random", progress=False)
    assert embedder.fingerprint == wanted
    assert default_learner(embedder).name == "discriminant"
    assert Embedder("conv4", weights=Path("random"), progress=False)._source().weights == "./random"
    for path in ("./conv4", Path("conv4")):
        assert Source(Embedder(path)._source().backbone).is_checkpoint


@pytest.mark.parametrize("how", ["best.safetensors", "./best.safetensors", Path("best.safetensors"), "absolute"])
def test_a_path_means_a_checkpoint(how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("best.safetensors", create_backbone("conv4", seed=5), PrototypicalLearner("dot"))
    embedder = Embedder(str(tmp_path / "best.safetensors") if how == "absolute" else how, progress=False)
    same_weights(embedder.network, create_backbone("conv4", seed=5))
    assert default_learner(embedder).metric == "dot"


def test_the_command_line_takes_the_same_names(no_network, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # Before 0.25 the hub's client copied the constant on import.
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    published(tmp_path / "net")
    write_photos(tmp_path / "photos", 3)
    fit = ["fit", "photos", "--quiet", "--out", "model", "--backbone"]
    assert main([*fit, "local-dir:net"]) == 0
    write_photos(tmp_path / "data" / "train", 3)
    train = ["train", "data", "--quiet", "--out", "run", "--size", "28", "--way", "2", "--backbone", "dinov2-small"]
    train += ["--shot", "1", "--query", "1"]
    for command in ([*fit, "timm/resnet18.a1_in1k", "--pretrained", "--force"], [*fit, "clip-base", "--force"], train):
        assert main(command) == 1
        assert "cannot be reached" in capsys.readouterr().err
    assert main(["show", "model"]) == 0
    assert "test_vit" in capsys.readouterr().out
