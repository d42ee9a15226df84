"""Images in data frames of any library: the same pixels and labels come out."""

import io

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
import torchvision
from PIL import Image

from fewshot import LabeledImages
from fewshot.data.decode import decode
from fewshot.data.images import as_labeled

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3), np.uint8)
LABELS = ["owl", "jay", "owl", "jay"]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for i, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{i}.png").write_bytes(png(pixels))
    return tmp_path


def pixels_of(data):
    return np.stack([np.asarray(decode(image)) for image in data.images])


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_frame_of_any_library_gives_its_images(make, folder):
    paths = [f"{label}/{i}.png" for i, label in enumerate(LABELS)]
    data = LabeledImages.from_frame(make({"path": paths, "label": LABELS}), root=folder)
    assert data.labels.tolist() == LABELS
    np.testing.assert_array_equal(pixels_of(data), PIXELS)
    contents = make({"content": [png(one) for one in PIXELS], "species": LABELS})
    np.testing.assert_array_equal(pixels_of(LabeledImages.from_frame(contents, "content", "species")), PIXELS)


def test_a_frame_of_pictures_of_several_sizes():
    images = [Image.fromarray(PIXELS[0]), PIXELS[1][:5], Image.fromarray(PIXELS[2]), PIXELS[3]]
    data = LabeledImages.from_frame(pd.DataFrame({"image": images, "class": LABELS}))
    assert [decode(one).size for one in data.images] == [(8, 9), (8, 5), (8, 9), (8, 9)]
    assert data.decoded(6).images.shape == (4, 6, 6, 3)


@pytest.mark.parametrize(
    ("frame", "names", "error", "match"),
    [
        ([1], {}, TypeError, "frame is a list; expected a data frame"),
        (
            pd.DataFrame({"a": [1], "label": [2]}),
            {},
            ValueError,
            r"the images; name it: LabeledImages.from_frame\(frame, i",
        ),
        (pd.DataFrame({"path": ["a"], "b": [2]}), {}, ValueError, "looks like the labels.*'path', 'b'"),
        (pd.DataFrame({"path": ["a"], "label": [2]}), {"image": "file"}, ValueError, "no column 'file'; it has 'path'"),
        (pd.DataFrame({"path": ["a", None], "label": [2, 3]}), {}, ValueError, "no image in row 1;"),
        (pd.DataFrame({"path": ["a", None], "label": [2, 3]}, [7, 4]), {}, ValueError, r"in row 1 \(index 4\); drop"),
        (pd.DataFrame({"path": ["a", "b"], "label": [2, None]}, [7, 4]), {}, ValueError, r"row 1 \(index 4\); give"),
        (pd.DataFrame({"path": ["a", 3], "label": [2, 3]}), {}, TypeError, "or a list of paths, bytes"),
    ],
)
def test_a_frame_without_images_is_told_in_a_sentence(frame, names, error, match):
    with pytest.raises(error, match=match):
        LabeledImages.from_frame(frame, **names)


def test_a_frame_and_back(folder):
    data = LabeledImages.open(folder)
    again = LabeledImages.from_frame(data.to_frame())
    assert again.images.tolist() == data.images.tolist()
    assert again.labels.tolist() == data.labels.tolist()


def test_what_holds_images_and_labels_is_opened(folder):
    assert as_labeled(folder).labels.tolist() == ["jay", "jay", "owl", "owl"]
    assert as_labeled(pd.DataFrame({"path": ["a"], "label": ["b"]})).labels.tolist() == ["b"]
    assert len(as_labeled(torchvision.datasets.ImageFolder(folder))) == 4
    for other in (["a.png"], PIXELS, pd.DataFrame({"path": ["a"]}), pd.Series(["a"]), torch.zeros(2, 3, 3)):
        assert as_labeled(other) is None
