"""Boxes of pictures as images: tables, COCO, Label Studio, and what is said of wrong ones."""

import json

import numpy as np
import pytest
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier, LabeledImages
from fewshot.cli import main
from fewshot.data.boxes import BoxedImage
from fewshot.data.decode import decode

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def street(tmp_path):
    """A picture of 100 x 60 pixels with a red box at the left and a blue one at the right, and boxes of them."""
    picture = Image.new("RGB", (100, 60), (128, 128, 128))
    picture.paste(RED, (10, 20, 30, 50))
    picture.paste(BLUE, (70, 5, 95, 35))
    picture.save(tmp_path / "street.png")
    return tmp_path


def colours(data):
    return [decode(image).getpixel((0, 0)) for image in data.images]


TABLE = "path,label,x,y,w,h\nstreet.png,red,10,20,20,30\nstreet.png,blue,70,5,25,30\nstreet.png,all,,,,\n"
COCO = {
    "images": [{"id": 7, "file_name": "street.png"}],
    "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [10, 20, 20, 30]},
        {"image_id": 7, "category_id": 2, "bbox": [70, 5, 25, 30]},
    ],
}


def label_studio(*boxes, rotation=0):
    result = [
        {
            "type": "rectanglelabels",
            "value": dict(zip(("x", "y", "width", "height"), box, strict=True))
            | {"rotation": rotation, "rectanglelabels": [label]},
        }
        for label, box in boxes
    ]
    return [{"data": {"image": "/data/local-files/?d=street.png"}, "annotations": [{"result": result}]}]


RECTANGLES = label_studio(("red", (10, 100 / 3, 20, 50)), ("blue", (70, 25 / 3, 25, 50)))


def opened(folder, content):
    if isinstance(content, str):
        (folder / "boxes.csv").write_text(content)
        return LabeledImages.open(folder / "boxes.csv")
    (folder / "boxes.json").write_text(json.dumps(content))
    return LabeledImages.open(folder / "boxes.json")


@pytest.mark.parametrize("content", [TABLE, COCO, RECTANGLES])
def test_boxes_are_images(street, content):
    data = opened(street, content)
    assert data.labels[:2].tolist() == ["red", "blue"]
    assert colours(data)[:2] == [RED, BLUE]
    assert [decode(image).size for image in data.images[:2]] == [(20, 30), (25, 30)]
    if content is TABLE:
        assert decode(data.images[2]).size == (100, 60)


def test_boxes_are_support_and_queries_and_named(street, tmp_path):
    data = opened(street, COCO)
    embedder = Embedder("conv4", weights="random", img_size=32, cache=tmp_path / "cache", progress=False)
    model = FewShotImageClassifier(embedder, "cosine-prototypical").fit(data)
    for _ in range(2):  # the second time from the cache
        assert model.predict(data.images).tolist() == ["red", "blue"]
    assert model.support_.ids[0].endswith("street.png#10,20,20,30")


def test_the_command_line_takes_boxes(street, capsys):
    opened(street, COCO)
    (street / "asked.csv").write_text("path,x,y,w,h\nstreet.png,72,7,20,20\n")
    network = ["--backbone", "conv4", "--weights", "random", "--size", "32", "--learner", "cosine-prototypical"]
    assert main(["fit", str(street / "boxes.json"), "--out", str(street / "model"), *network]) == 0
    capsys.readouterr()
    assert main(["predict", str(street / "model"), str(street / "asked.csv"), str(street / "boxes.json")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("street.png#") == 3
    assert "blue" in shown.split("street.png#")[1]


def test_boxes_are_those_of_the_upright_picture(street):
    turned, exif = Image.open(street / "street.png").transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # to be turned back by 90 degrees
    turned.save(street / "turned.jpg", exif=exif, quality=95)
    found = np.asarray(decode(BoxedImage(street / "turned.jpg", (10, 20, 20, 30))), float).mean((0, 1))
    np.testing.assert_allclose(found, RED, atol=12)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("90,20,20,30", "reaches outside the picture of 100 x 60 pixels"),
        ("20,50,20,40", "fits the picture turned by 90 degrees"),
        ("70,5,95,35", "the last two are the lower right corner"),
    ],
)
def test_a_box_outside_its_picture_is_refused_when_it_is_read(street, box, message):
    data = opened(street, f"path,label,x,y,w,h\nstreet.png,red,{box}\n")
    with pytest.raises(ValueError, match=message):
        FewShotImageClassifier("conv4", weights="random", img_size=32).fit(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label,x,y,w,h\nstreet.png,red,10,20,0,30\n", "row 2: .*is empty or begins outside"),
        ("path,label,x,y,w,h\nstreet.png,red,10,20,ten,30\n", "row 2: 10, 20, ten, 30 are not four numbers"),
        ("path,label,x,y,w,h\nstreet.png,red,10,,5,30\n", "are not four numbers"),
        ("path,label,x,y,w,h\nstreet.png,red,10,nan,5,30\n", "no four finite numbers"),
        ("path,label,x,y,w,h\nstreet.png,red,-9,2,5,30\n", "is empty or begins outside"),
        ({**COCO, "annotations": []}, "has no box"),
        ({"images": []}, "neither COCO annotations"),
        ([{"annotations": 3}], "neither COCO annotations"),
        (label_studio(("red", (1, 2, 3, 4)), rotation=30), "rotated by 30 degrees"),
    ],
)
def test_wrong_boxes_are_refused_in_one_sentence(street, content, message):
    with pytest.raises(ValueError, match=message):
        opened(street, content)
