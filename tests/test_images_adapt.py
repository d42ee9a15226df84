"""Adapting embedders and models to a domain: saved, exported, indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

import fewshot
from fewshot import (
    CosinePrototypicalLearner,
    Domain,
    Embedder,
    FewShotImageClassifier,
    FewShotModel,
    LabeledImages,
    OwnEmbedder,
    adapt,
    export,
)
from fewshot.errors import ArtifactError
from fewshot.images.exporting.network import InDomain, _FromPixels, write_onnx
from fewshot.images.exporting.quantized import quantize
from fewshot.runtime import load as load_runtime
from fewshot.runtime.encoder import Encoder
from tests.adapting import DATA, KNOWN, QUERIES, SUPPORT, adapted, images, plain


@pytest.fixture(scope="module")
def model() -> FewShotModel:
    return FewShotModel(adapted()).fit(images(SUPPORT), DATA.labels[SUPPORT])


def test_it_tells_new_classes_apart_better() -> None:
    own, new = OwnEmbedder(lambda images: np.array(images).reshape(len(images), -1), "pixels"), DATA.labels >= 5
    better = adapt(own, images(~new)[:300], DATA.labels[~new][:300])
    learner, labels = CosinePrototypicalLearner(), DATA.labels[new]
    before, after = (
        fewshot.evaluate(learner, one.transform(images(new)), labels, n_shot=1, n_query=5) for one in (own, better)
    )
    gain, ci95 = after.difference(before)
    assert gain > ci95


@pytest.mark.parametrize("weights", ["embed", "reference"])
@pytest.mark.parametrize("kind", [FewShotModel, FewShotImageClassifier])
def test_saved_and_loaded_answers_are_the_same(weights: str, kind: type, tmp_path: Path) -> None:
    raw, own, name = plain(), adapted(), {}
    if weights == "reference":
        raw = OwnEmbedder(raw.transform, "conv4 here")
        own, name = adapt(raw, images(KNOWN), DATA.labels[KNOWN]), {"embedder": raw}
    model = kind(own).fit(images(SUPPORT), DATA.labels[SUPPORT])
    model.save(tmp_path / "m", weights=weights)
    loaded = kind.load(tmp_path / "m", **name)
    assert loaded.embedder_.fingerprint == model.embedder_.fingerprint
    assert np.array_equal(loaded.predict_proba(images(QUERIES)), model.predict_proba(images(QUERIES)))
    more = [one.partial_fit(images(KNOWN[:3]), DATA.labels[KNOWN[:3]]) for one in (loaded, model)]
    assert np.array_equal(*(one.predict_proba(images(QUERIES)) for one in more))
    loaded.save(tmp_path / "m", weights=weights)
    again = kind.load(tmp_path / "m", **name).fit(images(SUPPORT), DATA.labels[SUPPORT])  # keeps the domain
    assert again.embedder_.fingerprint == model.embedder_.fingerprint


def test_a_folder_whose_domain_was_replaced_is_refused(model: FewShotModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    with pytest.raises(ArtifactError):
        FewShotModel.load(tmp_path / "m", embedder=model.embedder_.unadapted.set_params(img_size=32))
    (file,) = (tmp_path / "m").glob("domain-*")
    file.write_bytes(file.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(ArtifactError, match="damaged"):
        FewShotModel.load(tmp_path / "m")


@pytest.mark.parametrize("learner", ["cosine-prototypical", "matching"])
def test_a_fitted_model_learns_its_support_again(learner: str) -> None:
    known = images(KNOWN), DATA.labels[KNOWN]
    before = FewShotModel(plain(), learner).fit(images(SUPPORT), DATA.labels[SUPPORT])
    after = adapt(before, *known)
    oracle = FewShotModel(adapted(), learner).fit(images(SUPPORT), DATA.labels[SUPPORT])
    assert np.abs(after.predict_proba(images(QUERIES)) - oracle.predict_proba(images(QUERIES))).max() < 1e-6
    assert before.embedder_.domain is None
    assert after.support_.ids == before.support_.ids
    with pytest.raises(ValueError, match="is adapted already"):
        adapt(after, *known)
    with pytest.raises(ValueError, match="has kept no support"):
        adapt(FewShotModel(plain(), keep_support=False).fit(images(SUPPORT), DATA.labels[SUPPORT]), *known)


def test_an_unfitted_classifier_gets_the_domain() -> None:
    known = images(KNOWN), DATA.labels[KNOWN]
    for made in (FewShotImageClassifier("conv4", weights="random", img_size=28), FewShotImageClassifier(plain())):
        fitted = adapt(made, *known).fit(images(SUPPORT), DATA.labels[SUPPORT])
        assert fitted.embedder_.fingerprint == adapted().fingerprint


def test_exported_answers_are_the_same(model: FewShotModel, tmp_path: Path) -> None:
    export(model, tmp_path / "device")
    device = load_runtime(tmp_path / "device")
    assert device.fingerprint == model.embedder_.fingerprint
    given = list(images(QUERIES))
    # The float32 of onnxruntime and torch differ within the network, without a domain by as much.
    assert np.abs(device.predict_proba(given) - model.predict_proba(given)).max() < 5e-5
    device.partial_fit(given[:3], DATA.labels[QUERIES[:3]])
    more = clone(model).fit(images(SUPPORT), DATA.labels[SUPPORT]).partial_fit(given[:3], DATA.labels[QUERIES[:3]])
    assert np.abs(device.predict_proba(given) - more.predict_proba(given)).max() < 5e-5
    mapped = model.embedder_.transform(given)
    assert np.abs(device.model.predict_proba(mapped) - more.classifier_.predict_proba(mapped)).max() < 1e-6


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0])
def test_what_the_network_gives_is_mapped_alike_on_a_device(power: float, tmp_path: Path) -> None:
    """Here the network hands on its input, so that both map the same numbers."""
    small = Embedder("conv4", weights="random", img_size=16, progress=False).preprocessing
    pixels = [np.stack([small(image) for image in images(rows)]) for rows in (KNOWN, QUERIES)]
    known, asked = (_FromPixels(torch.nn.Flatten(), small)(torch.from_numpy(part)).numpy() for part in pixels)
    domain = Domain.fit(known, DATA.labels[KNOWN], embedder="pixels", power=power)
    write_onnx(InDomain(torch.nn.Flatten(), domain), small, tmp_path / "map.onnx")
    found, expected = Encoder(tmp_path / "map.onnx", small).embed_pixels(pixels[1]), domain(asked)
    assert (np.linalg.norm(found - expected, axis=1) <= 1e-6 * np.linalg.norm(expected, axis=1)).all()


def test_in_8_bits_the_domain_stays_in_float(model: FewShotModel, tmp_path: Path) -> None:
    import onnx

    embedder, path = model.embedder_, tmp_path / "float.onnx"
    write_onnx(InDomain(embedder.network, embedder.domain), embedder.preprocessing, path)
    pixels = np.stack([embedder.preprocessing(image) for image in images(KNOWN[:20])])
    quantize(path, tmp_path / "int8.onnx", pixels)
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    assert any(node.op_type == "QuantizeLinear" for node in nodes)
    assert not [node.name for node in nodes if "Quantize" in node.op_type and "domain_map" in "".join(node.input)]


@pytest.mark.parametrize("index", ["exact", "faiss", "hnsw"])
def test_through_the_index_answers_are_the_same(index: str, model: FewShotModel) -> None:
    found = clone(model).set_params(index=index).fit(images(SUPPORT), DATA.labels[SUPPORT])
    assert np.array_equal(found.predict(images(QUERIES)), model.predict(images(QUERIES)))
    labels, similarity = found.nearest(images(QUERIES), 2)
    expected, exact = model.nearest(images(QUERIES), 2)
    assert np.array_equal(labels, expected)
    assert np.allclose(similarity, exact, atol=1e-6)


def test_calibration_follows(model: FewShotModel) -> None:
    calibrated = clone(model).fit(images(SUPPORT), DATA.labels[SUPPORT])
    calibrated.calibrate(images(KNOWN), DATA.labels[KNOWN], n_episodes=20)
    assert 0 <= calibrated.calibration_.ece_after <= 1


def test_unlabelled_items_and_other_input() -> None:
    assert adapt(plain(), images(KNOWN)).domain.n_classes == 0
    assert adapt(plain(), DATA.of_classes(range(3)) if hasattr(DATA, "of_classes") else DATA).domain.n_classes > 2
    with pytest.raises(TypeError, match="cannot adapt 3"):
        adapt(3, images(KNOWN))
    with pytest.raises(ValueError, match="two different items"):
        adapt(plain(), images(KNOWN[:1]), DATA.labels[KNOWN[:1]])
    broken = clone(plain()).set_params(on_error="skip")
    with pytest.warns(UserWarning, match="could not be read"):
        found = adapt(broken, [*images(KNOWN), b"no image"], [*DATA.labels[KNOWN], 0])
    assert found.domain.n_items == len(KNOWN)
    assert isinstance(found.domain, Domain)


def test_what_holds_the_labels_adapts_with_them(tmp_path: Path) -> None:
    for i, row in enumerate(KNOWN):
        folder = tmp_path / "domain" / str(DATA.labels[row])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DATA.images[row]).save(folder / f"{i:03}.png")
    data = LabeledImages.open(tmp_path / "domain")
    expected = adapt(plain(), data.images, data.labels).domain
    assert expected.n_classes == 5
    for given in (data, data.to_frame(), tmp_path / "domain", str(tmp_path / "domain")):
        assert adapt(plain(), given).domain.fingerprint == expected.fingerprint
    assert adapt(plain(), data.images).domain.n_classes == 0
