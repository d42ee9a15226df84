"""Small data to train on, shared by the tests of training."""

import numpy as np

from fewshot import LabeledImages, TrainConfig


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
