"""What the version before the rooms wrote still loads and answers the same; its files are never rewritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fewshot import (
    Domain,
    Embedder,
    FewShotImageClassifier,
    FewShotModel,
    MatchingLearner,
    MetaTrainer,
    PrototypeIndex,
    create_backbone,
    load_learner,
)
from fewshot.runtime import load
from tests.training_data import QUICK, TRAIN, VAL

FROZEN = Path(__file__).parent / "artifacts" / "format_2"
ANSWERS = json.loads((FROZEN / "answers.json").read_text())
RNG = np.random.default_rng(0)
IMAGES, QUERIES = RNG.integers(0, 256, (24, 16, 16, 3), np.uint8), RNG.integers(0, 256, (4, 16, 16, 3), np.uint8)
LABELS = np.repeat(["ant", "bee", "cat", "unknown kind"], 6)


DOMAIN = FROZEN.parent / "domain"


@pytest.fixture
def folder(tmp_path):
    """A copy: what is loaded may be saved again."""
    return Path(shutil.copytree(FROZEN, tmp_path / "format_2"))


@pytest.mark.parametrize("form", [FewShotImageClassifier, FewShotModel])
def test_a_classifier_answers_is_calibrated_and_learns_on(folder, form):
    model, expected = form.load(folder / "classifier"), ANSWERS["classifier"]
    np.testing.assert_allclose(model.predict_proba(QUERIES), expected["proba"], rtol=1e-4)
    assert model.predict(QUERIES).tolist() == expected["labels"]
    assert (model.reject, model.on_error, model.unknown_label) == ("auto", "unknown", "?")
    assert model.calibration_.temperature == expected["temperature"]
    assert len(model.support_) == 24
    fresh = FewShotImageClassifier(model.embedder_).fit(IMAGES[:2], ["dog", "dog"])
    model.partial_fit(IMAGES[:1], ["bee"]).merge(fresh).remove(IMAGES[6:7], ["bee"]).save(folder / "classifier")
    again = form.load(folder / "classifier")
    assert dict(zip(again.classes_, again.n_support_, strict=True)) == {
        "ant": 6,
        "bee": 6,
        "cat": 6,
        "dog": 2,
        "unknown kind": 6,
    }


def test_a_classifier_without_support_answers(folder):
    model = FewShotImageClassifier.load(folder / "matching")
    np.testing.assert_allclose(model.predict_proba(QUERIES), ANSWERS["matching"]["proba"], rtol=1e-4)
    assert model.support_ is None
    assert model.partial_fit(IMAGES[:1], [7]).classes_.tolist() == [0, 1, 2, 3, 4, 7]


def test_an_export_answers_and_learns_on(folder):
    device = load(folder / "device")
    np.testing.assert_allclose(device.predict_proba(QUERIES), ANSWERS["device"]["proba"], rtol=1e-4)
    device.partial_fit(IMAGES[:1], ["dog"]).save(folder / "device")
    assert "dog" in load(folder / "device").classes_


def test_an_index_answers_and_grows(folder):
    index, expected = PrototypeIndex.load(folder / "index"), ANSWERS["index"]
    keys = np.array(expected["queries"])
    labels, similarities = index.search(keys, 3)
    assert labels.tolist() == expected["labels"]
    np.testing.assert_allclose(similarities, expected["similarities"], rtol=1e-6)
    index.add(keys[:1], [99]).save(folder / "index")
    assert PrototypeIndex.load(folder / "index").search(keys[:1])[0].tolist() == [[99]]


def test_a_checkpoint_embeds_and_brings_its_learner(folder):
    path, expected = folder / "checkpoint.safetensors", ANSWERS["checkpoint"]
    embeddings = Embedder(path, progress=False).transform(TRAIN.images[:3])
    np.testing.assert_allclose(embeddings, expected["embeddings"], rtol=1e-4, atol=1e-6)
    learner = load_learner(path)
    assert isinstance(learner, MatchingLearner)
    assert learner.temperature.item() == pytest.approx(expected["temperature"])


def test_a_training_goes_on_from_its_state(folder):
    backbone = create_backbone("conv4", in_chans=1, width=4, img_size=16)
    trainer = MetaTrainer(backbone, MatchingLearner(learn_temperature=True), config=QUICK)
    with pytest.warns(UserWarning, match="written with an older sampler; the remaining episodes come from version 2"):
        result = trainer.fit(TRAIN, VAL, out=folder / "training", resume=True, progress=False)
    losses = [record["loss"] for record in result.records]
    assert len(losses) == QUICK.n_episodes
    expected = ANSWERS["training"]["losses"]
    saved = QUICK.save_every  # version 2 of the sampler draws other episodes from there on
    np.testing.assert_allclose(losses[:saved], expected[:saved], rtol=1e-4)


def test_a_domain_and_a_model_in_it_answer_and_learn_on(tmp_path):
    expected, folder = json.loads((DOMAIN / "answers.json").read_text()), shutil.copytree(DOMAIN, tmp_path / "domain")
    domain = Domain.load(folder / "domain.safetensors")
    assert (domain.fingerprint, domain.shrinkage) == (expected["fingerprint"], expected["shrinkage"])
    np.testing.assert_allclose(domain(np.array(expected["raw"])), expected["mapped"], rtol=1e-6, atol=1e-7)
    model, device = FewShotImageClassifier.load(folder / "classifier"), load(folder / "device")
    assert model.embedder_.domain.fingerprint == domain.fingerprint
    assert model.predict(QUERIES).tolist() == device.predict(QUERIES).tolist() == expected["labels"]
    np.testing.assert_allclose(model.predict_proba(QUERIES), expected["proba"], rtol=1e-4)
    np.testing.assert_allclose(device.predict_proba(QUERIES), expected["device"], rtol=1e-4)
    model.partial_fit(QUERIES[:1], ["dog"]).save(folder / "classifier")
    device.partial_fit(QUERIES[:1], ["dog"]).save(folder / "device")
    for answers in (FewShotImageClassifier.load(folder / "classifier"), load(folder / "device")):
        assert "dog" in answers.classes_
