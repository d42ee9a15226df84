"""What is exported computes the same, what cannot be is refused, and int8 has to pass its gate."""

import builtins
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fewshot import Embedder, FewShotImageClassifier, LabeledImages, MatchingLearner, OwnEmbedder, digits, export
from fewshot.errors import ArtifactError, MissingExtraError, UnknownNameError
from fewshot.images.exporting import folder, network, quantized
from fewshot.images.exporting.folder import translate_learner
from fewshot.learners.registry import learner_class, list_learners
from fewshot.persistence.artifact import read_artifact
from fewshot.runtime import load
from fewshot.runtime.encoder import Encoder
from fewshot.runtime.method import KEPT, SUMMED, DeviceMethod
from fewshot.utils.isolation import seeded

DATA = digits()
KNOWN = DATA.select(DATA.labels < 4)
OTHERS = DATA.select(DATA.labels >= 4)
SUPPORT = KNOWN.images[:40], KNOWN.labels[:40]
GATE = OTHERS.images[:300], OTHERS.labels[:300]


@pytest.fixture(scope="module")
def embedder():
    return Embedder("conv4", weights="random", img_size=28, progress=False)


@pytest.fixture(scope="module")
def model(embedder):
    return FewShotImageClassifier(embedder, progress=False).fit(*SUPPORT)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_says_what_it_is_and_every_file_has_its_digest(model, tmp_path):
    export(model, tmp_path / "d")
    found, paths = read_artifact(tmp_path / "d", "export")
    assert found["kind"] == "export"
    assert {"format", "version", "fingerprint", "method", "temperature", "threshold"} <= found.keys()
    assert found["fingerprint"] == found["embedder"] == model.embedder_.fingerprint
    assert (found["method"]["name"], found["method"]["power"]) == ("discriminant", 0.5)
    assert found["difference"] < 1e-5 < found["tolerance"]
    assert set(paths) == {"encoder.onnx", "preprocess.json", "memory.npz"}
    assert all(len(entry["sha256"]) == 64 for entry in found["files"].values())
    with np.load(paths["memory.npz"], allow_pickle=False) as arrays:
        assert arrays["support"].dtype == np.float64
        assert np.bincount(arrays["labels"]).tolist() == found["n_support"]
    assert json.loads(paths["preprocess.json"].read_text()) == model.embedder_.preprocessing.to_dict()


def test_the_network_is_onnx_of_a_fixed_opset_and_any_number_of_images(model, tmp_path):
    export(model, tmp_path / "d")
    (path,) = (tmp_path / "d").glob("encoder-*.onnx")
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert graph.opset_import[0].version == network.OPSET == 17
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]
    encoder = load(tmp_path / "d").encoder
    pixels = network.random_pixels(encoder.preprocessing, 6)
    one_by_one = np.concatenate([encoder.embed_pixels(image[None]) for image in pixels])
    np.testing.assert_allclose(encoder.embed_pixels(pixels), one_by_one, rtol=1e-4, atol=1e-5)


def test_the_model_and_its_network_are_left_as_they_were(embedder, model, tmp_path):
    before = {name: value.clone() for name, value in embedder.network.state_dict().items()}
    answers = model.predict_proba(DATA.images[:5])
    export(model, tmp_path / "d")
    assert all(torch.equal(before[name], value) for name, value in embedder.network.state_dict().items())
    np.testing.assert_array_equal(model.predict_proba(DATA.images[:5]), answers)


class Grey(nn.Module):
    """A network made by hand, for greys, left in training mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.pretrained_cfg = {"input_size": (1, 20, 20), "mean": (0.2,), "std": (0.5,), "crop_pct": 1.0}

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))


def test_a_network_of_greys_that_was_made_by_hand(tmp_path):
    with seeded(0):
        grey = Grey().train()
    model = FewShotImageClassifier(Embedder(grey, progress=False), progress=False).fit(*SUPPORT)
    export(model, tmp_path / "d")
    assert grey.training
    found, _ = load(tmp_path / "d").encoder.embed(DATA.images[:9])
    np.testing.assert_allclose(found, model.embedder_.transform(DATA.images[:9]), rtol=1e-5, atol=1e-6)


class Odd(nn.Module):
    """A network that does for one image what it does not for two: a trace sees one of them."""

    def __init__(self):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 8), "crop_pct": 1.0}

    def forward(self, x):
        flat = x.flatten(1)
        return flat * 2 if len(x) == 2 else flat


def test_a_network_that_does_not_compute_the_same_is_refused(tmp_path):
    model = FewShotImageClassifier(Embedder(Odd(), progress=False), progress=False).fit(*SUPPORT)
    with pytest.raises(ArtifactError, match="differs from torch"):
        export(model, tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", list_learners())
def test_a_learner_is_exported_or_refused_in_one_sentence(name):
    if name in SUMMED + KEPT:
        method = translate_learner(learner_class(name)())
        assert (method.name, DeviceMethod.from_dict(json.loads(json.dumps(method.to_dict())))) == (name, method)
    else:
        with pytest.raises(TypeError, match="cannot be exported; expected"):
            translate_learner(learner_class(name)())


def test_what_a_device_could_not_do_is_refused(embedder, model, tmp_path):
    with pytest.raises(TypeError, match="max_support=3"):
        translate_learner(MatchingLearner(max_support=3))
    floats = FewShotImageClassifier(embedder, progress=False).fit(SUPPORT[0], SUPPORT[1].astype(float))
    with pytest.raises(TypeError, match="labels are float64"):
        export(floats, tmp_path / "d")
    uncalibrated = FewShotImageClassifier(embedder, "prototypical", progress=False, reject="auto").fit(*SUPPORT)
    with pytest.raises(ValueError, match="calibrate"):
        export(uncalibrated, tmp_path / "d")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="holds other files"):
        export(model, tmp_path / "full")
    model.save(tmp_path / "saved")
    with pytest.raises(ArtifactError, match="holds a saved classifier"):
        export(model, tmp_path / "saved")
    with pytest.raises(ArtifactError, match="it holds a saved classifier"):
        load(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_missing_package_names_its_extra(model, tmp_path, monkeypatch, name):
    real = builtins.__import__

    def without(wanted, *arguments, **kwargs):
        if wanted.split(".")[0] == name:
            raise ImportError(wanted)
        return real(wanted, *arguments, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf'{name} is missing; run: pip install "fewshot-learn\[export\]"'):
        export(model, tmp_path / "d")


def test_an_export_takes_the_place_of_another(embedder, model, tmp_path):
    export(model, tmp_path / "d")
    more = FewShotImageClassifier(embedder, progress=False).fit(DATA.images[:50], DATA.labels[:50])
    export(more, tmp_path / "d")
    assert load(tmp_path / "d").classes_.tolist() == list(range(10))
    assert len(list((tmp_path / "d").iterdir())) == 4


# ---- int8 ----------------------------------------------------------------------------------------------------------


def test_int8_has_a_fingerprint_of_its_own_and_embeds_its_support_anew(model, tmp_path):
    export(model, tmp_path / "float")
    export(model, tmp_path / "int8", "int8", support=SUPPORT, gate=GATE, max_loss=0.05)
    exact, coarse = load(tmp_path / "float"), load(tmp_path / "int8")
    assert coarse.fingerprint != exact.fingerprint == coarse.facts["embedder"]
    with pytest.raises(ValueError, match="has the encoder"):
        exact.merge(coarse)
    embedded, _ = coarse.encoder.embed(SUPPORT[0])
    assert np.abs(embedded - exact.encoder.embed(SUPPORT[0])[0]).max() > 1e-4
    np.testing.assert_allclose(coarse.model.memory.x, coarse.model.method.transform(embedded), rtol=1e-6)
    assert coarse.n_support_.tolist() == exact.n_support_.tolist()
    rows = coarse.facts["gate"]
    assert [(row["way"], row["shot"]) for row in rows] == [(5, 1), (5, 5)]
    assert all(row["loss"][0] == pytest.approx(row["float"][0] - row["int8"][0]) for row in rows)
    sizes = [next((tmp_path / name).glob("*.onnx")).stat().st_size for name in ("float", "int8")]
    assert sizes[1] < sizes[0] / 2
    coarse.partial_fit(OTHERS.images[:5], [4] * 5).save(tmp_path / "int8")
    assert load(tmp_path / "int8").facts == coarse.facts


def test_int8_of_kept_support(embedder, tmp_path):
    model = FewShotImageClassifier(embedder, "matching", progress=False).fit(*SUPPORT)
    export(model, tmp_path / "d", "int8", support=SUPPORT, calibration=list(OTHERS.images[:20]), gate=GATE, max_loss=1)
    device = load(tmp_path / "d")
    np.testing.assert_array_equal(device.model.memory.x, device.encoder.embed(SUPPORT[0])[0].astype(np.float64))


def test_a_loss_above_the_limit_is_refused_with_the_figures(model, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "quantize", lambda path, out, pixels: out.write_bytes(path.read_bytes()))
    export(model, tmp_path / "same", "int8", support=SUPPORT, gate=GATE, max_loss=0)
    assert [row["loss"][0] for row in load(tmp_path / "same").facts["gate"]] == [0, 0]
    rows = [{"way": 5, "shot": 1, "float": [0.9, 0.01], "int8": [0.875, 0.01], "loss": [0.025, 0.003]}]
    monkeypatch.setattr(quantized, "measure", lambda *arguments: rows)
    with pytest.raises(ArtifactError, match=r"a loss of 2.50 ± 0.30 points above the 2 allowed"):
        export(model, tmp_path / "d", "int8", support=SUPPORT, gate=GATE, max_loss=0.02)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"support": None}, "support is missing"),
        ({"gate": None}, "gate is missing"),
        ({"support": (SUPPORT[0][:39], SUPPORT[1][:39])}, "give all that was learned"),
        ({"support": (DATA.images[:40], DATA.labels[:40])}, "give all that was learned"),
        ({"support": (KNOWN.images[40:80], SUPPORT[1])}, "has different images of 0"),
        ({"support": (SUPPORT[0], SUPPORT[1][[*range(1, 40), 0]])}, "has different images of"),
        ({"max_loss": float("nan")}, "max_loss is nan; expected a number of at least 0"),
        ({"max_loss": "0.01"}, "max_loss is '0.01'; expected a number of at least 0"),
        ({"max_loss": -0.01}, "max_loss is -0.01; expected a number of at least 0"),
        ({"calibration": []}, "calibration is empty; give images"),
        ({"gate": (DATA.images[:400], DATA.labels[:400])}, "gate has classes that were learned, 0, 1, 2, 3; give"),
        ({"gate": (GATE[0][:60], GATE[1][:60])}, r"gate has 6 classes, of \d \d+ images; give 5 classes or more, 20"),
        (
            {"gate": (GATE[0][GATE[1] < 8], GATE[1][GATE[1] < 8])},
            r"gate has 4 classes, of \d \d+ images; give 5 classes or more, 20",
        ),
    ],
)
def test_int8_needs_its_support_and_its_gate(model, tmp_path, changes, error):
    with pytest.raises(ValueError, match=error):
        export(model, tmp_path / "d", "int8", **{"support": SUPPORT, "gate": GATE, **changes})
    with pytest.raises(UnknownNameError, match="int4"):
        export(model, tmp_path / "d", "int4")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("calibration", ["photo.png", b"bytes", SUPPORT[0][0].repeat(3).reshape(28, 28, 3), 5])
def test_what_is_no_collection_to_calibrate_with(model, tmp_path, calibration):
    with pytest.raises(TypeError, match="calibration: X "):
        export(model, tmp_path / "d", "int8", support=SUPPORT, gate=GATE, calibration=calibration)


@pytest.mark.parametrize("what", ["support", "gate"])
@pytest.mark.parametrize("given", ["others", DATA.images, 3, (1, 2, 3)])
def test_what_is_no_images_with_labels(model, tmp_path, what, given):
    with pytest.raises(TypeError, match=rf"{what} is of type \w+; expected \(images, labels\), or LabeledImages"):
        export(model, tmp_path / "d", "int8", **{"support": SUPPORT, "gate": GATE, what: given})


@pytest.mark.parametrize("learner", ["prototypical", "matching", "simpleshot"])
def test_the_support_of_int8_may_come_in_another_order_but_not_be_another(embedder, tmp_path, monkeypatch, learner):
    monkeypatch.setattr(quantized, "quantize", lambda path, out, pixels: out.write_bytes(path.read_bytes()))
    monkeypatch.setattr(quantized, "measure", lambda *arguments: [{"loss": [0.0, 0.0]}])
    model = FewShotImageClassifier(embedder, learner, progress=False).fit(*SUPPORT)
    backwards = LabeledImages(SUPPORT[0][::-1], SUPPORT[1][::-1])
    export(model, tmp_path / "d", "int8", support=backwards, gate=LabeledImages(*GATE))
    np.testing.assert_array_equal(load(tmp_path / "d").n_support_, np.bincount(SUPPORT[1]))
    one = np.concatenate([SUPPORT[0][:39], KNOWN.images[SUPPORT[1][39] == KNOWN.labels][-1:]])
    with pytest.raises(ValueError, match=f"has different images of {SUPPORT[1][39]}"):
        export(model, tmp_path / "d", "int8", support=(one, SUPPORT[1]), gate=GATE)


def test_ranges_are_measured_on_a_bounded_part_of_the_support(model, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(folder, "N_CALIBRATION", 4)
    monkeypatch.setattr(quantized, "measure", lambda *arguments: [{"loss": [0.0, 0.0]}])

    def quantize(path, out, pixels):
        seen.append(pixels)
        out.write_bytes(path.read_bytes())

    monkeypatch.setattr(quantized, "quantize", quantize)
    export(model, tmp_path / "d", "int8", support=SUPPORT, gate=GATE)
    export(model, tmp_path / "d", "int8", support=SUPPORT, gate=GATE, calibration=OTHERS.images[:9])
    prepared = [model.embedder_.preprocessing(SUPPORT[0][i]) for i in (0, 13, 26, 39)]
    np.testing.assert_array_equal(seen[0], prepared)
    assert len(seen[1]) == 9


def test_an_embedder_of_ones_own_is_refused(tmp_path):
    model = FewShotImageClassifier(OwnEmbedder(lambda texts: [[len(text)] for text in texts], "length"))
    with pytest.raises(TypeError, match="length is a custom embedder; only networks on images"):
        export(model.fit(["a", "bb"], ["x", "y"]), tmp_path / "out")


@pytest.mark.parametrize("views", [None, "mirror+scales+shifts"])
@pytest.mark.parametrize("crop", ["pad", "squash", "tiles", "adaptive"])
@pytest.mark.filterwarnings("ignore:the images are 2.7 times")
def test_a_device_looks_at_images_as_the_model_does(tmp_path, crop, views):
    images = [np.random.default_rng(i).integers(0, 256, (24, 64), np.uint8) for i in range(6)]
    images.append(DATA.images[0])
    embedder = Embedder("conv4", weights="random", img_size=28, crop=crop, views=views, progress=False)
    model = FewShotImageClassifier(embedder, progress=False).fit(images[:4], [0, 1, 0, 1])
    export(model, tmp_path / "d")
    device = load(tmp_path / "d")
    found, _ = device.encoder.embed(images)
    np.testing.assert_allclose(found, model.embedder_.transform(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(device.predict_proba(images), model.predict_proba(images), atol=1e-5)
    (tmp_path / "copy.onnx").write_bytes(device.encoder.path.read_bytes())
    coarse = folder._quantize(Encoder(tmp_path / "copy.onnx", device.encoder.preprocessing), images)
    assert coarse.embed(images)[0].shape == found.shape
