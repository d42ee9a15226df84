"""Small data to train on, shared by the tests of training."""

import numpy as np
import torch

from fewshot import LabeledImages, MetaTrainer, TrainConfig
from fewshot.embedding.checkpoint import load_learner


def bars(n_classes=12, n=8, first=0, seed=0):
    """Images 16 x 16 of one bright row each, the class being which, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(first, first + n_classes), n)
    images = rng.integers(0, 160, (len(labels), 16, 16)).astype(np.uint8)
    images[np.arange(len(labels)), labels % 16] = 255
    return LabeledImages(images, labels)


TRAIN, VAL = bars(), bars(4, first=12, seed=1)
SIZES = {"n_way": 5, "n_query": 3, "val_n_episodes": 20, "val_n_query": 3, "val_n_way": 4}
QUICK = TrainConfig(n_episodes=12, validate_every=4, save_every=5, **SIZES)


def improves_and_answers_as_saved(name, episode, folder):
    """Train a learner, and check that its loss falls and that its checkpoint gives the same logits for an episode."""
    config = TrainConfig(**{**SIZES, "n_episodes": 30, "n_way": 8, "lr": 1e-2, "validate_every": 15})
    trainer = MetaTrainer("conv4", name, config)
    losses = trainer.fit(TRAIN, VAL, out=folder, progress=False).to_frame()["loss"]
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()
    support, labels, queries = (t.float() if t.is_floating_point() else t for t in episode(d=trainer.learner.d))
    loaded = load_learner(folder / "best.safetensors")
    assert torch.equal(loaded(support, labels, queries, 4), trainer.learner(support, labels, queries, 4))
