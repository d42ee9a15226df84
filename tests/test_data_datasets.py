"""Images in data sets of torchvision and Hugging Face: the same pixels and labels come out."""

import io

import datasets
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from fewshot import LabeledImages
from fewshot.data.decode import decode

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


def test_a_data_set_of_the_hub_gives_its_images_and_the_names_of_its_classes(folder):
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "name": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["jay", "owl"]),
        }
    )
    rows = {"picture": [Image.fromarray(one) for one in PIXELS], "name": list("abcd"), "kind": LABELS}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    data = LabeledImages.from_dataset(dataset)
    assert data.labels.tolist() == LABELS
    np.testing.assert_array_equal(pixels_of(data), PIXELS)
    assert LabeledImages.from_dataset(dataset, label="name").labels.tolist() == list("abcd")
    assert LabeledImages.from_dataset(dataset.select([2]).with_format("torch")).labels.tolist() == ["owl"]
    with pytest.raises(ValueError, match=r"splits 'train'; pass one, dataset\['train'\]"):
        LabeledImages.from_dataset(datasets.DatasetDict(train=dataset))
    with pytest.raises(TypeError, match="is a stream; take a part of it"):
        LabeledImages.from_dataset(dataset.to_iterable_dataset())
    with pytest.raises(ValueError, match="no column 'x'"):
        LabeledImages.from_dataset(dataset, image="x")
    with pytest.raises(ValueError, match=r"holds images; name it: image=\.\.\. \(it has 'name', 'kind'\)"):
        LabeledImages.from_dataset(dataset.remove_columns("picture"))


class Stored(torchvision.datasets.VisionDataset):
    """As CIFAR of torchvision: pixels in memory."""

    classes = ("jay", "owl")

    def __init__(self, data, targets, **how):
        super().__init__(None, **how)
        self.data, self.targets = data, targets

    def __len__(self):
        return len(self.data)


class Drawn(torchvision.datasets.VisionDataset):
    """As most data sets of torchvision: images are opened one by one."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        image, target = Image.fromarray(PIXELS[i]), torch.tensor(LABELS.index(LABELS[i]))
        return self.transforms(image, target) if self.transforms is not None else (image, target)


def test_data_sets_of_torchvision_are_taken_before_their_transforms(folder):
    transform = torchvision.transforms.ToTensor()
    found = LabeledImages.from_dataset(torchvision.datasets.ImageFolder(folder, transform=transform))
    assert found.labels.tolist() == ["jay", "jay", "owl", "owl"]
    assert found.images.tolist() == LabeledImages.open(folder).images.tolist()
    codes = [1, 0, 1, 0]
    for pixels in (PIXELS, PIXELS.transpose(0, 3, 1, 2)):
        stored = LabeledImages.from_dataset(Stored(pixels, codes, transform=transform))
        np.testing.assert_array_equal(stored.images, PIXELS)
        assert stored.labels.tolist() == LABELS
    grey = Stored(torch.from_numpy(PIXELS[..., 0]), torch.tensor(codes), target_transform=lambda code: code + 5)
    assert LabeledImages.from_dataset(grey).labels.tolist() == [6, 5, 6, 5]
    np.testing.assert_array_equal(LabeledImages.from_dataset(grey).images, PIXELS[..., 0])
    drawn = Drawn(None, transform=transform)
    for dataset, rows in ((drawn, [0, 1, 2, 3]), (torch.utils.data.Subset(drawn, [3, 0]), [3, 0])):
        data = LabeledImages.from_dataset(dataset)
        np.testing.assert_array_equal(pixels_of(data), PIXELS[rows])
        assert data.labels.tolist() == [rows_label % 2 for rows_label in rows]
    part = LabeledImages.from_dataset(torch.utils.data.Subset(Stored(PIXELS, codes), [1, 2]))
    np.testing.assert_array_equal(part.images, PIXELS[1:3])
    assert part.labels.tolist() == ["jay", "owl"]


def test_what_is_no_data_set_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="item 0 of the data set is a int"):
        LabeledImages.from_dataset([1, 2])
    with pytest.raises(TypeError, match="dataset is a int; expected a data set"):
        LabeledImages.from_dataset(3)
