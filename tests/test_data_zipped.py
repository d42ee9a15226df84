"""Zip archives of images: unpacked beside themselves, nothing outside, mistakes in a sentence."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, LabeledImages
from fewshot.cli import main
from fewshot.data.zipped import unpack
from fewshot.retrieval.work import annotate_folder
from tests.photographs import quick_embedder, write_photos


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
    told = r"photos\.zip: left out: 1 \.sh \(convert images"
    with pytest.warns(UserWarning, match=told):
        folder = unpack(zipped)
    with pytest.warns(UserWarning, match=told):
        assert unpack(zipped) == folder  # which is there already
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
    assert main([*command, "--quiet", "--force"]) == 0  # the folder is that of the archive
    next(zipped.with_name("clean").rglob("*.png")).unlink()
    assert main([*command, "--quiet", "--force"]) == 2
    assert "clean exists already and holds something else than clean.zip; give" in capsys.readouterr().err


def test_what_is_no_archive_is_told_in_a_sentence(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"a\.zip cannot be unpacked \(File is not a zip file\)"):
        unpack(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(ValueError, match=r"b\.zip holds no image and no table"):
        unpack(tmp_path / "b.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def make_zip(folder, path):
    """Zip the photos of a folder, with the folder's own name before theirs."""
    with zipfile.ZipFile(path, "w") as archive:
        for photo in sorted(folder.rglob("*.png")):
            archive.write(photo, photo.relative_to(folder.parent))
    return path


def test_a_folder_beside_it_is_taken_if_it_has_the_same_images(tmp_path):
    paths = write_photos(tmp_path / "photos", 2)
    archive, before = make_zip(tmp_path / "photos", tmp_path / "photos.zip"), sorted(tmp_path.rglob("*"))
    (tmp_path / "photos" / ".DS_Store").write_text("x")
    (tmp_path / "photos" / "notes.txt").write_text("x")
    assert unpack(archive) == tmp_path / "photos"
    assert sorted(path for path in tmp_path.rglob("*") if path.suffix not in (".txt", "")) == [
        path for path in before if path.suffix
    ]
    Image.new("RGB", (90, 90)).save(paths[0])  # another picture under the same name
    with pytest.raises(ValueError, match=r"photos exists already and holds something else than photos\.zip; give"):
        unpack(archive)
    (tmp_path / "b.zip").write_bytes(archive.read_bytes())
    (tmp_path / "b").write_text("a file")
    with pytest.raises(ValueError, match="b exists already and holds something else"):
        unpack(tmp_path / "b.zip")


def test_every_command_on_images_takes_an_archive(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = FewShotImageClassifier(quick_embedder()).fit(LabeledImages.open(write_zip("photos", 3)))
    model.save("model")
    write_zip("new", 2, seed=1)
    capsys.readouterr()
    assert main(["predict", "model", "new.zip", "--csv", "-"]) == 0
    told = capsys.readouterr()
    assert told.out.count("new/temple/") == told.out.count("new/flower/") == 2
    assert "new.zip: unpacked to new" in told.err
    assert main(["predict", "model", "new.zip", "new.zip", "--csv", "-"]) == 0
    assert main(["annotate", "new.zip", "--model", "model", "--out", "a.csv"]) == 0
    assert Path("a.csv").read_text().count("temple/") == 2
    facts = annotate_folder(write_zip("more", 1, seed=2), "model", "b.csv", progress=False)
    assert facts["images"] == 2
    assert len(LabeledImages.open("more.zip")) == 2


def write_zip(name, n, seed=0):
    """Write an archive of photos in the working directory, without their folder, and return its name."""
    write_photos(Path("made") / name, n, seed)
    make_zip(Path("made") / name, f"{name}.zip")
    return f"{name}.zip"
