"""What lies in a folder and is not taken for an image is counted, by kind, with a cure."""

import io
import os
import warnings

import pytest
from PIL import Image

from fewshot import LabeledImages
from fewshot.data.scan import list_images

#: More than Python's functions may call themselves, while the path is not too long.
DEEP = 1100


def encoded(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/1.jpg", "dog/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encoded("JPEG"))
    return tmp_path


KINDS = ["heic", "HEIF", "CR2", "nef", "dng", "arw", "dcm", "svg", "pdf", "jxl", "mov", "unheard", "exr"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["cat", "cat/deep/er", "."])
def test_files_of_other_kinds_are_told(folder, kind, place):
    (folder / place).mkdir(parents=True, exist_ok=True)
    for i in range(3):
        (folder / place / f"{i}.{kind}").write_bytes(b"\0" * 500)
    expected = rf"left out: 3 \.{kind.lower()} \(convert images to JPEG or PNG\)"
    with pytest.warns(UserWarning, match=expected):
        assert len(LabeledImages.from_folder(folder)) == 2
    with pytest.warns(UserWarning, match=expected):
        assert len(list_images(folder)) == 2


def test_many_kinds_are_one_sentence(folder):
    for i in range(12):
        (folder / "cat" / f"{i}.kind{i % 9}").write_bytes(b"x")
    with pytest.warns(UserWarning, match="left out") as told:
        list_images(folder)
    assert len(told) == 1
    assert "2 .kind0, 2 .kind1, 2 .kind2, 1 .kind3, 1 .kind4, 1 .kind5, 3 of other kinds" in str(told[0].message)


def test_what_lies_beside_images_everywhere_is_not_told(folder):
    for name in ("Thumbs.db", "desktop.ini", "notes.txt", "1.json", "1.XML", "README", ".hidden.heic", "labels.csv"):
        for place in (folder, folder / "cat"):
            (place / name).write_text("x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(LabeledImages.from_folder(folder)) == len(list_images(folder)) == 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_an_image_without_a_suffix_is_an_image(folder, kind):
    (folder / "cat" / "noname").write_bytes(encoded(kind))
    (folder / "cat" / "nothing").write_bytes(b"")
    data = LabeledImages.from_folder(folder)
    assert [path.rpartition("/")[2] for path in data.images.tolist()] == ["1.jpg", "noname", "1.jpg"]
    assert len(list_images(folder)) == 3


def test_images_in_no_class_folder_are_told(folder):
    for i in range(2):
        (folder / f"{i}.png").write_bytes(encoded("PNG"))
    with pytest.warns(UserWarning, match="left out: 2 images in no class folder"):
        assert len(LabeledImages.from_folder(folder)) == 2


def test_a_folder_of_nothing_else_says_so(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no images \(left out: 1 \.heic \(convert"):
        LabeledImages.from_folder(tmp_path)


def test_folders_may_lie_in_folders_a_thousand_times(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(DEEP):
        os.mkdir("d")
        os.chdir("d")
    with open("1.png", "wb") as file:
        file.write(encoded("PNG"))
    try:
        assert len(list_images(tmp_path)) == 1
        assert LabeledImages.from_folder(tmp_path).labels.tolist() == ["d"]
    finally:  # what removes temporary folders calls itself for each
        os.remove("1.png")
        for _ in range(DEEP):
            os.chdir("..")
            os.rmdir("d")
