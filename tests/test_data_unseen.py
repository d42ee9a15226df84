"""One sentence when the network sees little of long images."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.data.preprocess import Preprocessing
from fewshot.data.unseen import warn_of_unseen

MIDDLE = Preprocessing(3, 32, 32)
LONG = np.zeros((24, 64, 3), np.uint8)


def forms(folder):
    image, buffer = Image.fromarray(LONG), io.BytesIO()
    image.save(buffer, "PNG")
    image.save(folder / "a.png")
    return [folder / "a.png", buffer.getvalue(), buffer, image, LONG, torch.zeros(3, 24, 64), torch.zeros(24, 64)]


def test_the_middle_of_long_images_of_every_form_is_little(tmp_path):
    for image in forms(tmp_path):
        with pytest.warns(UserWarning, match=r"only the middle of each image, 38% of it .* crop='pad' shows it all"):
            warn_of_unseen([image, b"not an image"], MIDDLE)


def test_padded_images_are_small_if_they_are_very_long():
    with pytest.warns(UserWarning, match=r"2.7 times as long as wide .* crop='tiles'"):
        warn_of_unseen(np.zeros((3, 24, 64), np.uint8), replace(MIDDLE, crop_mode="pad"))


@pytest.mark.parametrize(
    ("images", "mode"),
    [
        (LONG[None], "overlap"),
        (LONG[None], "adaptive"),
        (LONG[None], "stretch"),
        (LONG[None, :, :32], "center"),
        (LONG[None, :, :40], "pad"),
        ([], "center"),
        ([b"", "missing.png"], "center"),
    ],
)
def test_there_is_no_sentence_otherwise(images, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unseen(images, replace(MIDDLE, crop_mode=mode))
