import hashlib

import numpy as np

from fewshot import LabeledImages
from fewshot.data.digest import digest_classes, digest_images, hash_contents
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


def test_a_class_is_known_by_its_images_in_any_order_and_under_any_name():
    before, order = digest_classes(TRAIN), np.random.default_rng(0).permutation(len(TRAIN))
    assert list(before) == list(dict.fromkeys(TRAIN.labels.tolist()))
    names = np.array([f"name {label}" for label in TRAIN.labels.tolist()])
    renamed = digest_classes(LabeledImages(TRAIN.images[order], names[order]))
    assert {f"name {label}": content for label, content in before.items()} == renamed
    images = TRAIN.images.copy()
    images[0, 3, 3] ^= 1
    after = digest_classes(LabeledImages(images, TRAIN.labels))
    assert [label for label in before if before[label] != after[label]] == [TRAIN.labels[0]]


def test_contents_are_hashed_one_by_one():
    assert hash_contents(iter([b"a", b"", b"a"])) == [hashlib.sha256(c).hexdigest() for c in (b"a", b"", b"a")]
