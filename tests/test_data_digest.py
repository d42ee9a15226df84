import hashlib

import numpy as np

from fewshot import LabeledImages
from fewshot.data.digest import digest, digest_images
from tests.training_data import TRAIN


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert digest(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


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
