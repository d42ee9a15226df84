import numpy as np

from fewshot import LabeledImages
from fewshot.data.digest import digest_images
from tests.training_data import TRAIN


def test_the_digest_is_of_pixels_and_labels():
    images, labels = TRAIN.images.copy(), TRAIN.labels.copy()
    assert digest_images(LabeledImages(images, labels)) == digest_images(TRAIN)
    images[-1, 3, 3] ^= 1
    labels[0] = 99
    others = {
        digest_images(LabeledImages(images, TRAIN.labels)),
        digest_images(LabeledImages(TRAIN.images, labels)),
        digest_images(TRAIN),
    }
    assert len(others) == 3
    assert digest_images(LabeledImages(TRAIN.images, TRAIN.labels.astype(str))) != digest_images(TRAIN)
    assert digest_images(LabeledImages(np.asfortranarray(TRAIN.images), TRAIN.labels)) == digest_images(TRAIN)
