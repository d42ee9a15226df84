"""Folders of classifiers that anyone can have written: refused in one sentence, or they answer with finite numbers."""

import json
import os
from itertools import islice

import numpy as np
import pytest
import torch

from fewshot import Embedder, FewShotImageClassifier, create_backbone, digits
from fewshot.errors import ArtifactError, ImageDecodeError
from fewshot.learners.registry import learner_class, list_learners
from tests.forging import (
    MISSING,
    VALUES,
    changed,
    confined,
    copied,
    forgeries,
    manifest_of,
    places,
    put,
    put_tensors,
    seal,
    tensors_of,
    wrong_tensors,
)

DATA = digits()
QUERIES = DATA.images[:5]
LEARNERS = [name for name in list_learners() if not learner_class(name).transductive]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a classifier of each learner, made when first asked for."""
    made = {}

    def get(name):
        if name not in made:
            learner = learner_class(name)().sized(64)
            network = create_backbone("conv4", in_chans=1, img_size=16, width=64)
            embedder = Embedder(network, progress=False)
            model = FewShotImageClassifier(embedder, learner, progress=False)
            model.fit(DATA.images[:40], DATA.labels[:40].astype(str))
            if name == "prototypical":
                model.calibrate(DATA.images[40:400], np.array(list("abcdefghij"))[DATA.labels[40:400]])
            made[name] = tmp_path_factory.mktemp("saved") / name
            model.save(made[name])
        return made[name]

    return get


def refused_or_right(folder, tmp_path):
    """Return the error; None where the folder was loaded, and answers."""
    with confined(tmp_path) as reached:
        try:
            model = FewShotImageClassifier.load(folder, device="cpu")
            proba = model.predict_proba(QUERIES)
            assert np.isfinite(proba).all()
            np.testing.assert_allclose(proba.sum(1), 1, atol=1e-3)
            assert set(model.predict(QUERIES).tolist()) <= {*model.classes_.tolist(), model.unknown_label, "unknown"}
            error = None
        except ArtifactError as caught:
            error = str(caught)
            assert error.isprintable()
            assert len(error) < 1500
        except ImageDecodeError as caught:  # the largest image that it reads is a setting like others
            error = None if "above the limit of" in str(caught) else pytest.fail(str(caught))
    assert reached == []
    return error


def refused(folder, tmp_path, match="."):
    with pytest.raises(ArtifactError, match=match):
        FewShotImageClassifier.load(folder, device="cpu")
    assert refused_or_right(folder, tmp_path)


def described(folder):
    from safetensors import safe_open

    with safe_open(folder / manifest_of(folder)["files"]["weights"]["name"], framework="pt") as file:
        return json.loads(file.metadata()["fewshot"])


def forged(source, target):
    """Yield folders in each of which one thing is wrong."""
    yield from forgeries(source, target, ("memory", "support"))
    says, weights = described(source), tensors_of(source, "weights")
    for way in places(says):
        for value in (MISSING, *VALUES):
            folder = copied(source, target)
            put_tensors(folder, "weights", weights, {"fewshot": json.dumps(changed(says, way, value))})
            yield folder
    for _, wrong in wrong_tensors({name: weights[name] for name in sorted(weights) if ".0." in name}):
        folder = copied(source, target)
        kept = {name: value for name, value in weights.items() if ".0." not in name}
        put_tensors(folder, "weights", {**kept, **wrong}, {"fewshot": json.dumps(says)})
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.filterwarnings("ignore")
def test_whatever_one_thing_is_wrong_it_is_refused_or_answers(name, saved, tmp_path):
    if name == "prototypical":
        step, folders = 1, forged(saved(name), tmp_path / "forged")
    else:  # most of the manifest and all of the network are the same: each learner takes another part
        step, folders = 4, forgeries(saved(name), tmp_path / "forged", ("memory", "support"))
    chosen = islice(folders, LEARNERS.index(name) % step, None, step)
    errors = [refused_or_right(folder, tmp_path) for folder in chosen]
    assert len(errors) > 900 / step
    assert sum(error is not None for error in errors) > 0.7 * len(errors)


@pytest.mark.parametrize("name", ["prototypical", "lifelong"])
@pytest.mark.filterwarnings("ignore")
def test_a_sample_of_what_can_be_wrong_is_refused_or_answers(name, saved, tmp_path):
    source, manifest, rng = saved(name), manifest_of(saved(name)), np.random.default_rng(0)
    ways = [way for way in places(manifest) if way[0] not in ("digest", "calibration")]
    for way in ways[:: 2 if name == "prototypical" else 6]:
        folder = copied(source, tmp_path / "forged")
        seal(folder, changed(manifest, way, [MISSING, *VALUES][rng.integers(len(VALUES) + 1)]))
        refused_or_right(folder, tmp_path)
    for part in ("memory", "support"):
        for what, wrong in list(wrong_tensors(tensors_of(source, part)))[:: 2 if part == "memory" else 4]:
            folder = copied(source, tmp_path / "forged")
            put_tensors(folder, part, wrong)
            error = refused_or_right(folder, tmp_path)
            assert error or "turned" in what or "negative" in what or "one more" in what or "huge" in what, what


@pytest.mark.parametrize("name", LEARNERS)
def test_what_was_saved_is_loaded(name, saved, tmp_path):
    assert refused_or_right(saved(name), tmp_path) is None


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"classes": {"dtype": "<U500000000", "values": [1] * 10}}, "declared type, <U500000000"),
        ({"classes": {"dtype": "<U500000000", "values": list("0123456789")}}, "declared type, <U500000000"),
        ({"classes": {"dtype": "<U50000", "values": list("0123456789")}}, "declared type, <U50000"),
        ({"classes": {"dtype": "<U1", "values": ["0"] * 10}}, "sorted labels without repeats"),
        ({"classes": {"dtype": "<U1", "values": list("1023456789")}}, "sorted labels without repeats"),
        ({"classes": {"dtype": "<f8", "values": [float("nan"), *range(9)]}}, "sorted labels|declared type"),
        ({"classes": {"dtype": "<U1", "values": list("012")}}, "a count for each of 3 classes"),
        ({"classes": {"dtype": "<U1", "values": list("012")}, "n_support": [4] * 3}, "expected torch.float64"),
        ({"classes": {"dtype": "<U1", "values": []}, "n_support": []}, "sorted labels"),
        ({"n_support": [-4] * 10}, "n_support must be a count"),
        ({"n_support": [4.0] * 10}, "n_support must be a count"),
        ({"n_support": [True] * 10}, "n_support must be a count"),
        ({"n_support": [400] * 10}, "counts must be those of n_support"),
        ({"fingerprint": "0" * 64}, "do not give the network"),
        ({"backbone": {"name": "resnet18", "kwargs": {}}}, "names a different network than its weights"),
        ({"format": 99, "version": "9.9"}, "written by fewshot 9.9 in format 99"),
        ({"format": 10**30, "version": "9.9"}, "does not name the version that wrote it"),
        ({"kind": "index"}, "it holds a saved index"),
        ({"kind": "virus"}, "its kind is 'virus'"),
        ({"files": []}, "not all of its files have"),
        ({"caches": {"x": 1}}, "not all of its caches have"),
    ],
)
def test_a_manifest_that_none_can_have(facts, match, saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    seal(folder, {**manifest_of(folder), **facts})
    refused(folder, tmp_path, match)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("count", lambda x: -x, "at least 0"),
        ("count", lambda x: x * 0, "above 0 for some class"),
        ("count", lambda x: x + torch.inf, "not finite"),
        ("sums.x", lambda x: x * torch.nan, "not finite"),
        ("sums.x", lambda x: x * 1e250, "overflows when squared"),
        ("sums.x", lambda x: x[:, :-1].contiguous(), "embeddings of 63 finite numbers"),
        ("sums.x", lambda x: x.float(), "torch.float32"),
        ("sums.x", lambda x: x[:, :0], "neither class sums nor support"),
    ],
)
def test_statistics_that_no_learner_has(name, change, match, saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    tensors = tensors_of(folder, "memory")
    put_tensors(folder, "memory", {**tensors, name: change(tensors[name])})
    refused(folder, tmp_path, match)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("embeddings", lambda x: x[1:], "embeddings of its support are"),
        ("embeddings", lambda x: x * torch.inf, "finite embeddings"),
        ("labels", lambda x: x + 5, "labels among its classes"),
        ("labels", lambda x: x[1:], "of its support are"),
        ("ids", lambda x: torch.tensor(list(b"[[1]]" + b" " * 100), dtype=torch.uint8), "40 names"),
        ("ids", lambda x: torch.tensor(list(b"[" * 100_000), dtype=torch.uint8), "cannot be used"),
        ("ids", lambda x: x[:-1], "cannot be used"),
        ("thumbnails", lambda x: x * 0, "PNG or JPEG"),
        ("thumbnails", lambda x: x[:-1], "do not match its thumbnails"),
        ("thumbnail_ends", lambda x: x.flip(0), "do not match its thumbnails"),
        ("thumbnail_ends", lambda x: -x, "do not match its thumbnails"),
        ("thumbnail_ends", lambda x: x * 2**50, "do not match its thumbnails"),
    ],
)
def test_support_that_does_not_agree(name, change, match, saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    tensors = tensors_of(folder, "support")
    put_tensors(folder, "support", {**tensors, name: change(tensors[name]).contiguous()})
    refused(folder, tmp_path, match)


@pytest.mark.parametrize("part", ["memory", "support", "weights"])
@pytest.mark.parametrize("how", ["pipe", "endless", "elsewhere", "folder", "gone", "sparse", "header"])
def test_only_whole_regular_files_of_the_folder_are_read(part, how, saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    path = folder / manifest_of(folder)["files"][part]["name"]
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how in ("endless", "elsewhere"):
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to("/dev/zero" if how == "endless" else tmp_path / "elsewhere")
    elif how == "folder":
        path.mkdir()
    elif how == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    elif how == "header":  # says that it holds terabytes
        header = json.dumps({"count": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 1 << 43]}}).encode()
        put(folder, part, len(header).to_bytes(8, "little") + header + b"\0" * 100)
    refused(folder, tmp_path, path.name if how != "header" else "not a complete file")


@pytest.mark.parametrize("how", ["pipe", "endless", "elsewhere", "sparse"])
def test_so_is_the_manifest(how, saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    path = folder / "manifest.json"
    path.rename(tmp_path / "elsewhere")
    if how == "pipe":
        os.mkfifo(path)
    elif how == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    else:
        path.symlink_to("/dev/zero" if how == "endless" else tmp_path / "elsewhere")
    refused(folder, tmp_path, "manifest.json: it is|manifest.json: it has")


def test_a_manifest_nested_without_end_is_refused(saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    body = json.dumps(manifest_of(folder))[:-1] + ', "x": ' + "[" * 200_000 + "]" * 200_000
    seal(folder, {}, body.encode())
    refused(folder, tmp_path, "nested too deeply")


# ---- a network that the folder only names --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Save a classifier that names its network."""
    model = FewShotImageClassifier("tf_efficientnet_lite0", img_size=32, progress=False)
    folder = tmp_path_factory.mktemp("named") / "model"
    model.fit(DATA.images[:40], DATA.labels[:40]).save(folder, weights="reference")
    return folder


@pytest.mark.parametrize(
    "source",
    [
        {"backbone": "hf-hub:timm/resnet18.a1_in1k"},
        {"backbone": "hf_hub:x/y", "pretrained": True},
        {"backbone": "local-dir:/tmp"},
        {"backbone": "timm/resnet18"},
        {"backbone": "/etc/passwd"},
        {"backbone": "../x.safetensors"},
        {"backbone": "x.safetensors"},
        {"backbone": "http://x.org/x"},
        {"backbone": "resnet81"},
        {"backbone": None},
        {"backbone": ["conv4"]},
        {"weights": "/etc/passwd"},
        {"weights": "http://x.org/x.pth"},
        {"weights": "random"},
        {"weights": True},
        {"pretrained": 1},
        {"pretrained": "True"},
        {"img_size": -1},
        {"img_size": 10**9},
        {"img_size": [32]},
        {"img_size": True},
        {"cache": "/tmp/chosen/by/the/stranger"},
        {"device": "cuda"},
        {"pretrained_cfg": {}},
        {"weights": "offline", "pretrained": True},
        {"given": "x"},
    ],
)
def test_a_network_is_found_by_a_plain_name_alone(source, named, tmp_path):
    folder = copied(named, tmp_path / "forged")
    manifest = manifest_of(folder)
    seal(folder, {**manifest, "source": {**manifest["source"], **source}})
    refused(folder, tmp_path)


def test_weights_of_the_hub_are_not_fetched_when_a_folder_is_loaded(named, tmp_path, monkeypatch):
    folder = copied(named, tmp_path / "forged")
    manifest = manifest_of(folder)
    source = {"backbone": "resnet18.a1_in1k", "weights": None, "pretrained": True, "img_size": 32}
    seal(folder, {**manifest, "source": source})
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    refused(folder, tmp_path, r"loading a model downloads nothing; download them once with Embedder\('resnet18")


def test_weights_that_were_fetched_before_are_read_without_asking_the_hub(tmp_path, monkeypatch):
    """A stand-in for a file of the hub, in the place where it would be."""
    import huggingface_hub
    from safetensors.torch import save_file

    network = create_backbone("test_resnet", seed=5)
    path = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, file, **_: str(tmp_path / file) * (path.name == file)
    )
    embedder = Embedder("test_resnet.r160_in1k", pretrained=True, progress=False)
    model = FewShotImageClassifier(embedder, progress=False).fit(DATA.images[:20], DATA.labels[:20])
    model.save(tmp_path / "model", weights="reference")
    assert refused_or_right(tmp_path / "model", tmp_path) is None


def test_the_folder_may_be_cut_off_or_removed_after_it_was_loaded(saved, tmp_path):
    for name in ("prototypical", "matching", "feat"):
        folder = copied(saved(name), tmp_path / name)
        model = FewShotImageClassifier.load(folder, device="cpu")
        expected = model.predict_proba(QUERIES)
        for path in folder.iterdir():
            os.truncate(path, 0)
        np.testing.assert_array_equal(model.predict_proba(QUERIES), expected)
        model.partial_fit(QUERIES[:1], ["new"]).save(tmp_path / f"{name} again")
        assert "new" in FewShotImageClassifier.load(tmp_path / f"{name} again").classes_


@pytest.mark.parametrize(
    "params", [{"cache": "@FOLDER@"}, {"device": "cuda"}, {"weights": "x"}, {"backbone": "resnet18"}]
)
def test_no_parameter_but_those_that_are_saved_is_taken(params, saved, tmp_path):
    folder = copied(saved("prototypical"), tmp_path / "forged")
    manifest = manifest_of(folder)
    chosen = {name: value.replace("@FOLDER@", str(tmp_path / "chosen")) for name, value in params.items()}
    seal(folder, {**manifest, "params": {**manifest["params"], **chosen}})
    refused(folder, tmp_path, "its parameters are")
    assert not (tmp_path / "chosen").exists()
