"""Zip archives of images: unpacked beside themselves, nothing outside, mistakes in a sentence."""

import stat
import zipfile

import numpy as np
import pytest

from fewshot import LabeledImages
from fewshot.cli import main
from fewshot.data.zipped import unpack
from tests.photographs import write_photos


@pytest.fixture
def zipped(tmp_path):
    """Photos in two class folders, zipped as a whole folder with what systems and strangers add."""
    paths = write_photos(tmp_path / "made", 3)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in paths:
            archive.write(path, "holiday/" + "/".join(path.split("/")[-2:]))
        archive.writestr("__MACOSX/holiday/._1.png", "x")
        archive.writestr("../../escaped.png", "x")
        archive.writestr("holiday/run.sh", "x")
        link = zipfile.ZipInfo("holiday/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return tmp_path / "photos.zip"


def test_images_are_unpacked_beside_it_and_nothing_else(zipped):
    before = {path for path in zipped.parent.parent.rglob("*") if path.is_file()}
    folder = unpack(zipped)
    assert folder == zipped.with_suffix("")
    new = {path for path in zipped.parent.parent.rglob("*") if path.is_file()} - before
    assert all(folder in path.parents for path in new)
    assert not {path.suffix for path in new} - {".png", ".jpg"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert sorted(path.name for path in zipped.parent.iterdir()) == ["made", "photos", "photos.zip"]


def test_an_archive_is_fitted_as_its_folder(zipped, capsys):
    with zipfile.ZipFile(zipped) as archive, zipfile.ZipFile(zipped.with_name("clean.zip"), "w") as clean:
        for entry in archive.infolist():
            if entry.filename.startswith("holiday/") and entry.filename.count("/") == 2:
                clean.writestr(entry.filename, archive.read(entry))
    out = str(zipped.with_name("model"))
    command = [
        "fit",
        str(zipped.with_name("clean.zip")),
        "--out",
        out,
        "--backbone=conv4",
        "--weights=random",
        "--size=28",
    ]
    assert main([*command, "--quiet"]) == 0
    told = capsys.readouterr()
    assert f"clean.zip: unpacked to {zipped.with_name('clean')}" in told.err
    assert np.array_equal(LabeledImages.open(zipped.with_name("clean")).counts, [3, 3])
    assert main([*command, "--quiet", "--force"]) == 2
    assert "clean exists already, so clean.zip cannot be unpacked to it; give" in capsys.readouterr().err


def test_what_is_no_archive_is_told_in_a_sentence(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"a\.zip cannot be unpacked \(File is not a zip file\)"):
        unpack(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(ValueError, match=r"b\.zip holds no image and no table"):
        unpack(tmp_path / "b.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]
