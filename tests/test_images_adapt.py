"""Adapting embedders and models to a domain: saved, exported, indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import fewshot
from fewshot import (
    CosinePrototypicalLearner,
    Domain,
    Embedder,
    FewShotImageClassifier,
    FewShotModel,
    OwnEmbedder,
    adapt,
    digits,
    export,
)
from fewshot.errors import ArtifactError
from fewshot.images.exporting.network import InDomain, write_onnx
from fewshot.images.exporting.quantized import quantize
from fewshot.runtime import load as load_runtime

DATA = digits()
KNOWN = np.flatnonzero(DATA.labels < 5)[:100]
NEW = np.flatnonzero(DATA.labels >= 5)[:80]
SUPPORT, QUERIES = NEW[:25], NEW[25:]


def _images(rows: np.ndarray) -> np.ndarray:
    return DATA.images[rows]


@pytest.fixture(scope="module")
def plain() -> Embedder:
    return Embedder("conv4", weights="random", img_size=28, progress=False)


@pytest.fixture(scope="module")
def adapted(plain: Embedder) -> Embedder:
    return adapt(plain, _images(KNOWN), DATA.labels[KNOWN])


@pytest.fixture(scope="module")
def model(adapted: Embedder) -> FewShotModel:
    return FewShotModel(adapted).fit(_images(SUPPORT), DATA.labels[SUPPORT])


def test_it_tells_new_classes_apart_better() -> None:
    own, new = OwnEmbedder(lambda images: np.array(images).reshape(len(images), -1), "pixels"), DATA.labels >= 5
    better = adapt(own, _images(~new)[:300], DATA.labels[~new][:300])
    learner, labels = CosinePrototypicalLearner(), DATA.labels[new]
    before, after = (
        fewshot.evaluate(learner, one.transform(_images(new)), labels, n_shot=1, n_query=5) for one in (own, better)
    )
    gain, ci95 = after.difference(before)
    assert gain > ci95


@pytest.mark.parametrize("weights", ["embed", "reference"])
@pytest.mark.parametrize("kind", [FewShotModel, FewShotImageClassifier])
def test_saved_and_loaded_answers_are_the_same(weights: str, kind: type, plain, adapted, tmp_path: Path) -> None:
    name = {} if weights == "embed" else {"embedder": plain}
    if weights == "reference":
        plain = Embedder(plain.network, progress=False, img_size=28)
        adapted = adapt(plain, _images(KNOWN), DATA.labels[KNOWN])
        name = {"embedder": plain}
    model = kind(adapted).fit(_images(SUPPORT), DATA.labels[SUPPORT])
    if weights == "reference":
        own = OwnEmbedder(plain.transform, "conv4 here")
        adapted = adapt(own, _images(KNOWN), DATA.labels[KNOWN])
        model, name = kind(adapted).fit(_images(SUPPORT), DATA.labels[SUPPORT]), {"embedder": own}
    model.save(tmp_path / "m", weights=weights)
    loaded = kind.load(tmp_path / "m", **name)
    assert loaded.embedder_.fingerprint == model.embedder_.fingerprint
    assert np.array_equal(loaded.predict_proba(_images(QUERIES)), model.predict_proba(_images(QUERIES)))
    more = [one.partial_fit(_images(KNOWN[:3]), DATA.labels[KNOWN[:3]]) for one in (loaded, model)]
    assert np.array_equal(*(one.predict_proba(_images(QUERIES)) for one in more))
    loaded.save(tmp_path / "m", weights=weights)
    again = kind.load(tmp_path / "m", **name).fit(_images(SUPPORT), DATA.labels[SUPPORT])  # keeps the domain
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
def test_a_fitted_model_learns_its_support_again(learner: str, plain: Embedder, adapted: Embedder) -> None:
    known = _images(KNOWN), DATA.labels[KNOWN]
    before = FewShotModel(plain, learner).fit(_images(SUPPORT), DATA.labels[SUPPORT])
    after = adapt(before, *known)
    oracle = FewShotModel(adapted, learner).fit(_images(SUPPORT), DATA.labels[SUPPORT])
    assert np.abs(after.predict_proba(_images(QUERIES)) - oracle.predict_proba(_images(QUERIES))).max() < 1e-6
    assert before.embedder_.domain is None
    assert after.support_.ids == before.support_.ids
    with pytest.raises(ValueError, match="is adapted already"):
        adapt(after, *known)
    with pytest.raises(ValueError, match="has kept no support"):
        adapt(FewShotModel(plain, keep_support=False).fit(_images(SUPPORT), DATA.labels[SUPPORT]), *known)


def test_an_unfitted_classifier_gets_the_domain(plain: Embedder, adapted: Embedder) -> None:
    known = _images(KNOWN), DATA.labels[KNOWN]
    for made in (FewShotImageClassifier("conv4", weights="random", img_size=28), FewShotImageClassifier(plain)):
        fitted = adapt(made, *known).fit(_images(SUPPORT), DATA.labels[SUPPORT])
        assert fitted.embedder_.fingerprint == adapted.fingerprint


def test_exported_answers_are_the_same(model: FewShotModel, tmp_path: Path) -> None:
    export(model, tmp_path / "device")
    device = load_runtime(tmp_path / "device")
    assert device.fingerprint == model.embedder_.fingerprint
    given = list(_images(QUERIES))
    assert np.abs(device.predict_proba(given) - model.predict_proba(given)).max() < 1e-4
    device.partial_fit(given[:3], DATA.labels[QUERIES[:3]])
    more = clone(model).fit(_images(SUPPORT), DATA.labels[SUPPORT]).partial_fit(given[:3], DATA.labels[QUERIES[:3]])
    assert np.abs(device.predict_proba(given) - more.predict_proba(given)).max() < 1e-4


def test_in_8_bits_the_domain_stays_in_float(model: FewShotModel, tmp_path: Path) -> None:
    import onnx

    embedder, path = model.embedder_, tmp_path / "float.onnx"
    write_onnx(InDomain(embedder.network, embedder.domain), embedder.preprocessing, path)
    pixels = np.stack([embedder.preprocessing(image) for image in _images(KNOWN[:20])])
    quantize(path, tmp_path / "int8.onnx", pixels)
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    assert any(node.op_type == "QuantizeLinear" for node in nodes)
    assert not [node.name for node in nodes if "Quantize" in node.op_type and "domain_map" in "".join(node.input)]


@pytest.mark.parametrize("index", ["exact", "faiss", "hnsw"])
def test_through_the_index_answers_are_the_same(index: str, model: FewShotModel) -> None:
    found = clone(model).set_params(index=index).fit(_images(SUPPORT), DATA.labels[SUPPORT])
    assert np.array_equal(found.predict(_images(QUERIES)), model.predict(_images(QUERIES)))
    labels, similarity = found.nearest(_images(QUERIES), 2)
    expected, exact = model.nearest(_images(QUERIES), 2)
    assert np.array_equal(labels, expected)
    assert np.allclose(similarity, exact, atol=1e-6)


def test_calibration_follows(model: FewShotModel) -> None:
    calibrated = clone(model).fit(_images(SUPPORT), DATA.labels[SUPPORT])
    calibrated.calibrate(_images(KNOWN), DATA.labels[KNOWN], n_episodes=20)
    assert 0 <= calibrated.calibration_.ece_after <= 1


def test_unlabelled_items_and_other_input(plain: Embedder) -> None:
    assert adapt(plain, _images(KNOWN)).domain.n_classes == 0
    assert adapt(plain, DATA.of_classes(range(3)) if hasattr(DATA, "of_classes") else DATA).domain.n_classes > 2
    with pytest.raises(TypeError, match="cannot adapt 3"):
        adapt(3, _images(KNOWN))
    with pytest.raises(ValueError, match="two different items"):
        adapt(plain, _images(KNOWN[:1]), DATA.labels[KNOWN[:1]])
    broken = clone(plain).set_params(on_error="skip")
    with pytest.warns(UserWarning, match="could not be read"):
        found = adapt(broken, [*_images(KNOWN), b"no image"], [*DATA.labels[KNOWN], 0])
    assert found.domain.n_items == len(KNOWN)
    assert isinstance(found.domain, Domain)
