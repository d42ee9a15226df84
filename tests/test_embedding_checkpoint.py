import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fewshot import (
    Embedder,
    FEATLearner,
    FewShotImageClassifier,
    MatchingLearner,
    PrototypicalLearner,
    create_backbone,
    load_learner,
    load_weights,
)
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.checkpoint import FORMAT, Checkpoint, build_learner, save_weights
from fewshot.errors import UnknownNameError
from fewshot.persistence import tensors as stored
from fewshot.utils.isolation import seeded
from tests.forging import confined


@pytest.fixture
def path(tmp_path):
    save_weights(
        tmp_path / "best.safetensors",
        create_backbone("conv4", in_chans=1, img_size=28, seed=2),
        MatchingLearner(temperature=0.3),
    )
    return tmp_path / "best.safetensors"


def test_a_file_says_how_to_build_what_it_holds(path):
    checkpoint = Checkpoint.open(path)
    assert checkpoint.backbone == {"name": "conv4", "kwargs": {"in_chans": 1, "img_size": 28}}
    assert (checkpoint.preprocessing.channels, checkpoint.preprocessing.height) == (1, 28)
    expected = create_backbone("conv4", in_chans=1, img_size=28, seed=2).state_dict()
    network = checkpoint.network()
    assert not network.training
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    learner = load_learner(path)
    assert type(learner) is MatchingLearner
    assert learner.temperature.item() == pytest.approx(0.3)


def changed(path, **values):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["fewshot"])
    save_file(load_file(path), path, {"fewshot": json.dumps({**described, **values})})


def test_a_newer_format_is_refused(path):
    changed(path, format=FORMAT + 1, version="9.9")
    with pytest.raises(ValueError, match=r"written by fewshot 9\.9, which is newer"):
        Checkpoint.open(path)


@pytest.mark.parametrize("values", [{"format": "one"}, {"preprocessing": {}}, {"preprocessing": None}])
def test_a_description_that_cannot_be_read_is_damage(values, path):
    changed(path, **values)
    with pytest.raises(ValueError, match=r"best\.safetensors is damaged: its description"):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    "backbone",
    [{"name": "conv4", "kwargs": {"img_sise": 28}}, {"name": "conv4", "kwargs": {"img_size": 84}}, {"name": "conv4"}],
)
def test_weights_of_another_network_than_it_names_are_told(backbone, path):
    changed(path, backbone=backbone)
    with pytest.raises(ValueError, match="does not hold the weights of the network that it names") as caught:
        Checkpoint.open(path).network()
    assert "\n" not in str(caught.value)


def test_bare_weights_are_no_checkpoint(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert not Checkpoint.is_one(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not name their network; name it"):
        Checkpoint.open(tmp_path / "w.safetensors")


def test_a_network_made_by_hand_cannot_be_rebuilt(tmp_path):
    with seeded(0):
        save_weights(tmp_path / "w.safetensors", nn.Linear(2, 3), PrototypicalLearner())
    with pytest.raises(ValueError, match="trained with a network that create_backbone did not build"):
        Checkpoint.open(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b"x"), "not a complete file"),
        (lambda p: p.mkdir(), "a folder"),
        (lambda p: None, "does not exist"),
    ],
)
def test_what_is_no_file_of_weights_is_told(make, reason, tmp_path):
    make(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=reason):
        Checkpoint.open(tmp_path / "w.safetensors")


# ---- what a stranger may have written ------------------------------------------------------------------------------

FAR = {"url": "http://127.0.0.1:9/x.pth", "file": "/etc/passwd", "hf_hub_id": "x/y", "source": "hf-hub"}
NETWORKS = [
    {"pretrained": True},
    {"pretrained": True, "pretrained_cfg": FAR, "cache_dir": "@FOLDER@/cache"},
    {"pretrained": True, "pretrained_cfg_overlay": FAR},
    {"pretrained_cfg": FAR},
    {"pretrained_cfg": "x"},
    {"pretrained_cfg_overlay": {"file": "/etc/passwd"}},
    {"checkpoint_path": "/etc/passwd"},
    {"checkpoint_path": ""},
    {"cache_dir": "@FOLDER@/cache"},
    {"features_only": True},
    {"scriptable": True},
    {"exportable": True},
    {"no_jit": True},
    {"pretrained_strict": False},
    {"num_classes": 10**6},
    {"hf_hub": "x"},
    {"kwargs_filter": ["in_chans"]},
    {"in_chans": -1},
    {"in_chans": True},
    {"in_chans": 1.0},
    {"in_chans": "1"},
    {"in_chans": 10**9},
    {"in_chans": None},
    {"in_chans": [1] * 1000},
    {"width": 0},
    {"width": 10**12},
    {"width": 60_000},
    {"img_size": 5000},
    {"img_size": [28, {"x": 1}]},
    {"img_size": []},
    {"drop_rate": 2},
    {"drop_rate": float("nan")},
    {"act_layer": "../x"},
    {"act_layer": "http://x.org"},
    {"global_pool": {"x": 1}},
    {"norm_layer": "os.system"},
    {"block_fn": "eval"},
    {"__class__": "x"},
]
NAMES = [
    "hf-hub:timm/resnet18.a1_in1k",
    "hf_hub:timm/resnet18.a1_in1k",
    "local-dir:/tmp",
    "timm/resnet18.a1_in1k",
    "/etc/passwd",
    "../conv4",
    "./conv4",
    "http://x.org/conv4",
    "conv4\n",
    "",
    "conv4 ",
    "a" * 1000,
    None,
    7,
    ["conv4"],
    {"name": "conv4"},
]
FORGED = [{"name": "conv4", "kwargs": kwargs} for kwargs in NETWORKS] + [{"name": n, "kwargs": {}} for n in NAMES]
FORGED += ["conv4", ["conv4"], {"name": "conv4"}, {"kwargs": {}}, {"name": "conv4", "kwargs": [], "more": 1}, 3]


def refused(folder, use):
    """Return the sentence; nothing is reached, and nothing written outside of the folder."""
    (folder / "in").mkdir(exist_ok=True)
    with confined(folder / "in") as reached, pytest.raises(ValueError, match=r".") as caught:
        use()
    assert reached == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("backbone", FORGED, ids=range(len(FORGED)))
def test_a_network_is_built_from_a_plain_name_and_plain_arguments_alone(backbone, path, tmp_path):
    said = json.loads(json.dumps(backbone).replace("@FOLDER@", str(tmp_path / "chosen")))
    changed(path, backbone=said)
    assert "does not hold the weights" in refused(tmp_path, lambda: Checkpoint.open(path).network())
    refused(tmp_path, lambda: Embedder(path, progress=False).transform([np.zeros((28, 28), np.uint8)]))
    assert not (tmp_path / "chosen").exists()


LEARNED = [
    {"name": "os.system", "params": {}},
    {"name": "fewshot.learners.matching:MatchingLearner", "params": {}},
    {"name": "../matching", "params": {}},
    {"name": "", "params": {}},
    {"name": None, "params": {}},
    {"name": ["matching"], "params": {}},
    {"name": "matching", "params": {"path": "/etc/passwd"}},
    {"name": "matching", "params": {"metric": "http://x.org"}},
    {"name": "matching", "params": {"metric": ["cosine"]}},
    {"name": "matching", "params": {"temperature": True}},
    {"name": "matching", "params": {"temperature": "0.1"}},
    {"name": "matching", "params": {"temperature": float("nan")}},
    {"name": "matching", "params": {"temperature": 1e308}},
    {"name": "matching", "params": {"max_support": 1.5}},
    {"name": "matching", "params": {"max_support": 10**30}},
    {"name": "matching", "params": {"self": 1}},
    {"name": "matching", "params": []},
    {"name": "matching", "params": {}, "module": "os"},
    {"name": "feat", "params": {"d": 10**6}},
    {"name": "relation", "params": {"d": 64, "hidden": 10**9}},
    {"name": "soft-k-means", "params": {"n_iterations": 10**9}},
    {"name": "multi-prototypical", "params": {"n_prototypes": 10**9}},
    {"name": "simpleshot", "params": {"normalization": "CL2N", "center": "x"}},
    {"name": "simpleshot", "params": {"normalization": "CL2N", "center": [[1.0]]}},
    "matching",
    None,
]


@pytest.mark.parametrize("learner", LEARNED, ids=range(len(LEARNED)))
def test_a_learner_is_built_from_a_registered_name_and_plain_arguments_alone(learner, path, tmp_path):
    changed(path, learner=learner)
    refused(tmp_path, lambda: load_learner(path))


PREPARED = [
    {"height": 10**9},
    {"width": True},
    {"channels": 10**6},
    {"channels": 1.0},
    {"mean": [float("inf")]},
    {"std": [0.0]},
    {"std": ["1"]},
    {"interpolation": "../x"},
    {"crop_pct": 1e-300},
    {"background": [-1, 0, 0]},
    {"background": [0.5, 0, 0]},
    {"max_pixels": -1},
    {"more": 1},
]


@pytest.mark.parametrize("values", PREPARED, ids=range(len(PREPARED)))
def test_a_preprocessing_is_in_range(values, path, tmp_path):
    good = Checkpoint.open(path).preprocessing.to_dict()
    changed(path, preprocessing={**good, **values})
    assert "its description cannot be read" in refused(tmp_path, lambda: Checkpoint.open(path))


@pytest.mark.parametrize(
    "training", [{"classes": [[1]]}, {"classes": "x"}, {"images": [{}]}, {"began": []}, [1], "x", 3]
)
def test_what_it_says_of_its_training_is_of_the_types_that_are_written(training, path, tmp_path):
    changed(path, training=training)
    assert "its description cannot be read" in refused(tmp_path, lambda: Checkpoint.open(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_not_finite_or_overflow_make_no_learner(value, tmp_path):
    learner = FEATLearner(d=64)
    nn.init.constant_(learner.norm.weight, value)
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    assert "is not finite" in refused(tmp_path, lambda: load_learner(tmp_path / "w.safetensors"))


def test_weights_that_are_not_numbers_make_no_network(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = {"fewshot": file.metadata()["fewshot"]}
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if name.startswith("backbone.") and value.is_floating_point())
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"its weight '.+' is NaN"):
        Embedder(path).transform([np.zeros((28, 28), np.uint8)])


def test_no_flipped_bit_is_used(path):
    """One of each byte of the header, and of some of the weights."""
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 7), *rng.integers(header, len(whole), 40)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"best\.safetensors"):
            Checkpoint.open(path)


def test_a_checkpoint_of_before_has_no_digest_and_is_used(path):
    changed(path)
    assert b"sha256" not in path.read_bytes()[:2000]
    assert Checkpoint.open(path).network().num_features == 64


def test_a_network_with_arguments_that_no_file_may_give_is_told_so_when_it_is_saved(tmp_path):
    network = create_backbone("conv4", pretrained_cfg_overlay={"crop_pct": 1.0})
    assert spec_of(network) is None
    save_weights(tmp_path / "w.safetensors", network, PrototypicalLearner())
    with pytest.raises(ValueError, match="was trained with a network that create_backbone did not build"):
        Checkpoint.open(tmp_path / "w.safetensors")
    model = FewShotImageClassifier(network, progress=False).fit(np.zeros((2, 28, 28, 3), np.uint8), ["a", "b"])
    with pytest.raises(ValueError, match="pretrained_cfg_overlay=.* is not one that a file may give.*'reference'"):
        model.save(tmp_path / "model")


def test_tuples_come_back_as_tuples(tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("resnet12", widths=(8, 8, 8, 8)), PrototypicalLearner())
    assert Checkpoint.open(tmp_path / "w.safetensors").network().num_features == 8


def test_backbone_and_learner_come_back_bit_for_bit(tmp_path):
    backbone, learner = create_backbone("conv4", in_chans=1, seed=1), MatchingLearner(learn_temperature=True)
    torch.nn.init.constant_(learner.log_temperature, -1.5)
    save_weights(tmp_path / "w.safetensors", backbone, learner)
    other, fresh = create_backbone("conv4", in_chans=1, seed=2), MatchingLearner(learn_temperature=True)
    load_weights(tmp_path / "w.safetensors", other, fresh)
    assert all(
        torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert fresh.log_temperature.item() == -1.5
    load_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=1))


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=1), MatchingLearner())
    with pytest.raises(ValueError, match=r"w\.safetensors holds weights of another network or learner"):
        load_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=3))


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, create_backbone("conv4", in_chans=1), MatchingLearner())
    before = path.read_bytes()

    def full(tensors, partial, metadata):
        partial.write_bytes(b"some")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(stored, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(path, create_backbone("conv4", in_chans=1, seed=5), MatchingLearner())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=1, seed=9), MatchingLearner())
    network = create_backbone("conv4", in_chans=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="blocks.0.conv.weight is .64, 1, 3, 3. in the file, expected .64, 3, 3, 3."):
        load_weights(tmp_path / "w.safetensors", network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, create_backbone("conv4", in_chans=1), MatchingLearner())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"w\.safetensors is not a complete file of weights"):
        load_weights(path, create_backbone("conv4", in_chans=1))


@pytest.mark.parametrize(
    "learner",
    [PrototypicalLearner("cosine", 0.2), MatchingLearner(temperature=0.3), PrototypicalLearner(learn_temperature=True)],
)
def test_a_checkpoint_brings_its_learner_back(learner, tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors")
    assert repr(loaded) == repr(learner)
    assert loaded.arguments() == learner.arguments()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("params", [{"temperatur": 1.0}, {"metric": "cosine", "learn_temperature": False}])
def test_a_learner_that_does_not_fit_what_was_saved_is_told(params):
    learner = PrototypicalLearner("cosine", 0.2, learn_temperature=True)
    with pytest.raises(ValueError, match="cannot be built as it was saved") as caught:
        build_learner({"name": "prototypical", "params": params}, learner.state_dict())
    assert "\n" not in str(caught.value)


def test_a_learner_of_a_name_that_is_not_registered_here_is_told(tmp_path):
    learner = MatchingLearner()
    learner.name = "elsewhere"
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    with pytest.raises(UnknownNameError, match="the learner 'elsewhere', which nothing here registers") as caught:
        load_learner(tmp_path / "w.safetensors")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_tied_weights_are_written_once_for_each_name(tmp_path):
    network = create_backbone("conv4", in_chans=1)
    network.twin = network.blocks[1].conv
    save_weights(tmp_path / "w.safetensors", network, MatchingLearner())
    other = create_backbone("conv4", in_chans=1, seed=3)
    other.twin = other.blocks[1].conv
    load_weights(tmp_path / "w.safetensors", other)
    assert torch.equal(other.twin.weight, network.twin.weight)
