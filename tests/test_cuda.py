"""A GPU answers and trains as the processor does; without one, the same tests compare the processor with itself."""

import numpy as np
import pytest
import torch

from fewshot import (
    DN4Learner,
    Embedder,
    FewShotImageClassifier,
    MetaTrainer,
    PrototypicalLearner,
    TrainConfig,
    create_backbone,
    list_learners,
)
from fewshot.embedding.checkpoint import save_weights
from fewshot.learners.local import LocalLearner
from fewshot.learners.registry import learner_class
from tests.training_data import SIZES, TRAIN, VAL

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=needs_cuda)]
BUILT_IN = [name for name in list_learners() if learner_class(name).__module__.startswith("fewshot.")]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.mark.parametrize("name", BUILT_IN)
def test_learners_give_the_logits_of_the_processor(name, device):
    kind = learner_class(name)
    learner = kind(width=4) if issubclass(kind, LocalLearner) else kind()
    learner.eval()
    drawn = torch.Generator("cpu").manual_seed(0)
    centres = 3 * torch.randn(5, 16, generator=drawn, device="cpu")
    support, queries = (
        centres.repeat_interleave(n, 0) + torch.randn(5 * n, 16, generator=drawn, device="cpu") for n in (3, 4)
    )
    labels = torch.arange(5, device="cpu").repeat_interleave(3)
    if learner.learned:
        learner.sized(16, seed=0)
    with torch.no_grad():
        expected = learner(support, labels, queries, 5)
        found = learner.to(device)(*(x.to(device) for x in (support, labels, queries)), 5)
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pool", [None, "auto", "salient"])
def test_embeddings_are_those_of_the_processor(pool, device, tmp_path):
    network = create_backbone("conv4", in_chans=1, img_size=16)
    save_weights(tmp_path / "net.safetensors", network, PrototypicalLearner())
    expected, found = (
        Embedder(tmp_path / "net.safetensors", device=where, pool=pool, progress=False).transform(TRAIN.images)
        for where in ("cpu", device)
    )
    # Convolutions of a GPU round their factors to TF32.
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * float(np.abs(expected).max()))


def test_a_classifier_learns_on_a_device_and_answers_elsewhere(device, tmp_path):
    MetaTrainer("conv4", config=TrainConfig(n_episodes=20, **SIZES)).fit(TRAIN, VAL, out=tmp_path, progress=False)
    embedder = Embedder(tmp_path / "best.safetensors", device=device, progress=False)
    model = FewShotImageClassifier(embedder).fit(VAL.images[::2], VAL.labels[::2])
    answers = model.predict(VAL.images[1::2])
    assert np.mean(answers == VAL.labels[1::2]) > 0.8
    model.save(tmp_path / "model")
    opened = FewShotImageClassifier.load(tmp_path / "model", device="cpu")
    assert np.mean(opened.predict(VAL.images[1::2]) == answers) > 0.9


@pytest.mark.parametrize("learner", ["prototypical", DN4Learner()], ids=["prototypical", "dn4"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_training_descends_and_goes_on_after_an_end(precision, learner, device, tmp_path):
    config = {**SIZES, "precision": precision, "lr": 1e-2, "validate_every": 10, "save_every": 5}
    trained = MetaTrainer("conv4", learner, TrainConfig(n_episodes=20, **config), device=device)
    losses = trained.fit(TRAIN, VAL, out=tmp_path, progress=False).to_frame()["loss"]
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()
    again = MetaTrainer("conv4", learner, TrainConfig(n_episodes=20, **config), device=device)
    assert len(again.fit(TRAIN, VAL, out=tmp_path, progress=False, resume=True).records) == 20


@needs_cuda
def test_images_stay_on_the_gpu_and_the_network_is_compiled():
    config = TrainConfig(n_episodes=12, compile=True, precision="bf16", **SIZES)
    losses = MetaTrainer("resnet12", config=config, device="cuda").fit(TRAIN, VAL, progress=False).to_frame()["loss"]
    assert losses[-3:].mean() < losses[:3].mean()
    assert torch.cuda.max_memory_allocated() > TRAIN.images.nbytes
