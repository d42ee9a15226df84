"""Prepared data: ``fewshot data`` and the scripts in data_prep, on tiny archives of the published form."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot.cli import main
from fewshot.data.images import LabeledImages
from fewshot.data.preparing import cifar_fs
from fewshot.data.preparing import folder as folder_data
from fewshot.data.preparing import omniglot as omniglot_data
from fewshot.data.preparing.splits import cifar_splits, omniglot_splits

SCRIPTS = Path(__file__).parent.parent / "data_prep"
#: Digests of the lists train.txt, val.txt and test.txt that Snell et al. published.
PUBLISHED = {
    "train": "984522c194c30fb678ce53304a160a42faf5403ad4f9a67010f32dd3a35738e0",
    "val": "11f99e54faee3e26f53d3231c1cceac5bf7b8730e9be31cb6dab256551dc0c1a",
    "test": "845264cc5c156180828ccf17915668b17ee21424d0170df6e7d81676aa5d1204",
}
#: Digest of the test classes of the random split, which must never change.
RANDOM = "f8a4679735fe8e3068a8f4d3cf564838384e92ed191bacc3a2efb844123e7421"
ROTATIONS = ("rot000", "rot090", "rot180", "rot270")


def run(name, *arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def check_refused(result, reason, status=2):
    assert result.returncode == status, result.stderr
    assert result.stderr.splitlines()[-1].startswith("fewshot")
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


# Omniglot


def drawings(characters, n=2, seed=0):
    """{name in the archive: PNG file} of black strokes on white, as Omniglot has them."""
    rng = np.random.default_rng(seed)
    return {
        f"images_background/{character}/{j:04d}_{i:02d}.png": png(rng.random((105, 105)) > 0.1)
        for j, character in enumerate(characters)
        for i in range(n)
    }


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images_background/", "")
        archive.writestr("images_background/README.txt", "no drawing")
        archive.writestr("__MACOSX/images_background/A/character01/._0000_00.png", "no drawing")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


OMNIGLOT_SPLITS = {
    "train": [f"A/character01/{turn}" for turn in ROTATIONS],
    "val": [f"A/character02/{turn}" for turn in ROTATIONS[:2]],
    "test": [f"B/character01/{turn}" for turn in ROTATIONS],
}
OMNIGLOT_COUNTS = {"characters": 3, "drawings": 6}


@pytest.fixture
def omniglot(tmp_path):
    files = drawings(["A/character01", "A/character02", "B/character01"])
    names = list(files)
    files[names[0]] = files[names[5]]  # a drawing of train is one of test
    one = write_zip(tmp_path / "one.zip", {name: files[name] for name in names[:4]})
    return [one, write_zip(tmp_path / "two.zip", {name: files[name] for name in names[4:]})], files


def test_omniglot_is_read_turned_inverted_and_split(omniglot, tmp_path):
    (archives, files), lines, out = omniglot, [], tmp_path / "out"
    prepare = omniglot_data.prepare
    prepare(archives, OMNIGLOT_SPLITS, out, expected=OMNIGLOT_COUNTS, progress=False, say=lines.append)
    assert lines[:2] == [
        "3 classes and 6 images in the archives",
        "split train: 4 classes, val: 2 classes, test: 4 classes",
    ]
    assert [line.split() for line in lines[4:7]] == [
        ["train", "4", "4", "1"],
        ["val", "2", "4", "2"],
        ["test", "4", "8", "2"],
    ]
    test = LabeledImages.open(out, "test")
    assert repr(test) == "LabeledImages(8 images of 28 x 28, 4 classes)"
    assert test.classes.tolist() == OMNIGLOT_SPLITS["test"]
    drawing = Image.open(io.BytesIO(files["images_background/B/character01/0002_00.png"])).convert("L")
    for row, turn in ((0, 0), (2, 90), (4, 180), (6, 270)):
        expected = 255 - np.asarray(drawing.rotate(turn).resize((28, 28), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(test.images[row], expected)
    assert test.images.mean() < 100  # ink is bright, paper dark


def test_a_drawing_of_two_splits_is_dropped_from_the_earlier_and_listed(omniglot, tmp_path):
    out = tmp_path / "out"
    omniglot_data.prepare(omniglot[0], OMNIGLOT_SPLITS, out, expected=OMNIGLOT_COUNTS, progress=False)
    listing = pd.read_csv(out / "duplicates.csv")
    dropped = listing[listing["action"] == "dropped"]["path"]
    assert sorted(dropped) == [f"A/character01/0000_00.png#{turn}" for turn in ROTATIONS]
    assert not set(dropped) & set(pd.read_csv(out / "table.csv")["path"])
    assert (listing["action"] == "kept").sum() == 4


@pytest.mark.parametrize(
    ("splits", "expected", "reason"),
    [
        ({}, {"characters": 4}, "found 3 characters, expected 4; the archive is not the published one"),
        ({}, {"drawings": 7}, "found 6 drawings, expected 7"),
        ({"val": ["A/character02/rot000", "C/character09/rot000"]}, {}, "the splits name 'C/character09/rot000'"),
    ],
)
def test_wrong_counts_and_classes_of_omniglot_are_refused(omniglot, tmp_path, splits, expected, reason):
    with pytest.raises(ValueError, match=reason):
        omniglot_data.prepare(
            omniglot[0],
            {**OMNIGLOT_SPLITS, **splits},
            tmp_path / "out",
            expected={**OMNIGLOT_COUNTS, **expected},
            progress=False,
        )
    assert not (tmp_path / "out").exists()


def test_a_damaged_drawing_is_named(tmp_path):
    files = drawings(["A/character01"], n=1)
    (name,) = files
    archive = write_zip(tmp_path / "a.zip", {name: files[name][:60]})
    splits = {"train": [], "val": [], "test": ["A/character01/rot000"]}
    counts = {"characters": 1, "drawings": 1}
    with pytest.raises(ValueError, match=r"A/character01/0000_00\.png: "):
        omniglot_data.prepare([archive], splits, tmp_path / "out", expected=counts, progress=False)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_damaged_zip_is_told_in_a_sentence(tmp_path, place):
    path = write_zip(tmp_path / "a.zip", {"images_background/A/character01/0000_00.png": bytes(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(place * len(whole))])
    with pytest.raises(ValueError, match=r"a\.zip is not a complete zip archive .*; download it again"):
        omniglot_data.prepare([path], OMNIGLOT_SPLITS, tmp_path / "out", progress=False)
    start = whole.index(b"/0000_00.png") + len("/0000_00.png")
    path.write_bytes(whole[: start + 3] + b"\xff\xff\xff" + whole[start + 6 :])
    with pytest.raises(ValueError, match=r"a\.zip is not a complete zip archive"):
        omniglot_data.prepare([path], OMNIGLOT_SPLITS, tmp_path / "out", progress=False)


def test_omniglot_as_a_process_refuses_what_is_not_the_published_one(omniglot, tmp_path):
    for split, classes in OMNIGLOT_SPLITS.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(classes))
    given = ("--background", omniglot[0][0], "--evaluation", omniglot[0][1], "--out", tmp_path / "o", "--quiet")
    result = run("omniglot", *given, "--splits", tmp_path, cwd=tmp_path)
    check_refused(result, "found 3 characters, expected 1623")
    result = run("omniglot", *given, "--splits", tmp_path / "one.zip", cwd=tmp_path)
    check_refused(result, "one.zip cannot be read as splits")
    result = run("omniglot", "--background", "gone.zip", "--out", "o", cwd=tmp_path)
    check_refused(result, "gone.zip does not exist; give --background the path of images_background.zip")
    assert not (tmp_path / "o").exists()


# CIFAR-FS and FC100

NAMES = ["apple", "bear", "cup", "dog"]
CIFAR_SPLITS = {"train": ["apple"], "val": ["bear"], "test": ["dog"]}


def cifar_parts(n_train=2, n_test=1, seed=0):
    """The members of the archive: records of coarse label, fine label and three planes of 32 x 32."""
    rng, parts = np.random.default_rng(seed), {"fine_label_names.txt": "\n".join([*NAMES, ""]).encode()}
    for name, n in (("train.bin", n_train), ("test.bin", n_test)):
        records = rng.integers(0, 256, (n * len(NAMES), 3074), dtype=np.uint8)
        records[:, 1] = np.arange(len(records)) % len(NAMES)
        parts[name] = records.tobytes()
    return parts


def write_tar(path, parts):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def prepare_cifar(archive, out, splits=CIFAR_SPLITS, **given):
    cifar_fs.prepare(archive, splits, out, **{"n_classes": 4, "n_images": 3, **given})


def test_cifar_is_read_by_its_fine_labels(tmp_path):
    parts, lines = cifar_parts(), []
    prepare_cifar(write_tar(tmp_path / "c.tar.gz", parts), tmp_path / "out", say=lines.append)
    assert lines[:3] == [
        "4 classes of 3 images in the archive",
        "split train: 1 class, val: 1 class, test: 1 class",
        "no image occurs twice",
    ]
    test = LabeledImages.open(tmp_path / "out", "test")
    assert repr(test) == "LabeledImages(3 images of 32 x 32 x 3, 1 class)"
    record = np.frombuffer(parts["train.bin"], np.uint8).reshape(-1, 3074)[3]  # the first dog but for test.bin's
    for plane in range(3):
        start = 2 + 1024 * plane
        np.testing.assert_array_equal(test.images[1, :, :, plane].ravel(), record[start : start + 1024])
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table[table["split"] == "test"]["path"].tolist() == ["test.bin/00003", "train.bin/00003", "train.bin/00007"]


def test_an_image_of_two_splits_of_cifar_is_dropped_and_listed(tmp_path):
    parts = cifar_parts()
    records = np.frombuffer(parts["train.bin"], np.uint8).reshape(-1, 3074).copy()
    records[4, 2:] = records[3, 2:]  # an apple of train is a dog of test
    parts["train.bin"] = records.tobytes()
    prepare_cifar(write_tar(tmp_path / "c.tar.gz", parts), tmp_path / "out")
    listing = pd.read_csv(tmp_path / "out" / "duplicates.csv")
    assert listing[["path", "label", "split", "action"]].values.tolist() == [
        ["train.bin/00003", "dog", "test", "kept"],
        ["train.bin/00004", "apple", "train", "dropped"],
    ]
    assert len(LabeledImages.open(tmp_path / "out", "train")) == 2
    assert len(LabeledImages.open(tmp_path / "out", "test")) == 3


@pytest.mark.parametrize(
    ("change", "given", "reason"),
    [
        ({}, {"n_classes": 5}, "found 4 classes, expected 5"),
        ({}, {"n_images": 4}, "found 3 images of apple, expected 4"),
        ({"train.bin": bytes(3075)}, {}, r"train\.bin in .* ends within a record"),
        ({"test.bin": None}, {}, r"has no test\.bin; expected the binary version of CIFAR-100"),
        ({"test.bin": bytes(3074)}, {}, "found 2 images of bear, expected 3"),
        ({"test.bin": bytes([0, 9]) + bytes(3072)}, {}, r"has a record of class 9; expected 0\.\.3"),
        ({"test.bin": b"", "train.bin": b""}, {}, "found 0 images of apple, expected 3"),
        ({}, {"splits": {**CIFAR_SPLITS, "val": ["zebra"]}}, "the splits name 'zebra', which is not in the archive"),
    ],
)
def test_wrong_counts_and_classes_of_cifar_are_refused(tmp_path, change, given, reason):
    parts = {name: data for name, data in {**cifar_parts(), **change}.items() if data is not None}
    archive = write_tar(tmp_path / "c.tar.gz", parts)
    if "bear" in reason:
        parts["test.bin"] = cifar_parts()["test.bin"][:3074]
        archive = write_tar(tmp_path / "c.tar.gz", parts)
    with pytest.raises(ValueError, match=reason):
        prepare_cifar(archive, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_class_without_an_image_is_noticed(tmp_path):
    parts = cifar_parts()
    parts["fine_label_names.txt"] = "\n".join([*NAMES, "eel"]).encode()
    with pytest.raises(ValueError, match="found 0 images of eel, expected 3"):
        prepare_cifar(write_tar(tmp_path / "c.tar.gz", parts), tmp_path / "out", n_classes=5)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.99])
def test_a_damaged_tar_is_told_in_a_sentence(tmp_path, place):
    path = write_tar(tmp_path / "c.tar.gz", cifar_parts())
    whole = path.read_bytes()
    middle = int(place * len(whole))
    for damaged in (whole[:middle], whole[:middle] + b"\xff" * 12 + whole[middle + 12 :], b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c\.tar\.gz is not a complete tar archive .*; download it again"):
            prepare_cifar(path, tmp_path / "out")


def test_cifar_as_a_process_refuses_what_is_not_the_published_one(tmp_path):
    write_tar(tmp_path / "c.tar.gz", cifar_parts())
    (tmp_path / "s.json").write_text(json.dumps(CIFAR_SPLITS))
    given = ("--archive", "c.tar.gz", "--out", "o", "--quiet")
    check_refused(run("cifar_fs", *given, "--splits", "s.json", cwd=tmp_path), "found 4 classes, exp")
    check_refused(run("cifar_fs", *given, "--splits", "c.tar.gz", cwd=tmp_path), "cannot be read as splits")
    result = run("cifar_fs", "--archive", "gone.tar.gz", "--out", "o", "--splits", "s.json", cwd=tmp_path)
    check_refused(result, "gone.tar.gz does not exist; give --archive the path of cifar-100-binary.tar.gz")
    assert not (tmp_path / "o").exists()


# A folder of one's own


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / "photos" / f"{label:03d}").mkdir(parents=True)
        for i in range(3):
            image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            image.save(tmp_path / "photos" / f"{label:03d}" / f"{i}.png")
    return tmp_path / "photos"


def test_a_folder_is_split_by_class_as_a_process(folder):
    result = run("folder", "photos", "--out", "table.csv", "--quiet", cwd=folder.parent)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "no image occurs twice"
    assert sorted(line.split() for line in lines[1:4]) == [
        ["test", "2", "classes", "6", "images"],
        ["train", "6", "classes", "18", "images"],
        ["val", "2", "classes", "6", "images"],
    ]
    assert lines[4] == "written to table.csv"
    paths = pd.read_csv(folder.parent / "table.csv")["path"]
    assert paths.str.match(r"photos.\d{3}.\d\.png$").all()  # so that both can be moved together
    parts = {split: LabeledImages.open(folder.parent / "table.csv", split) for split in ("train", "val", "test")}
    classes = np.concatenate([part.classes for part in parts.values()])
    assert sorted(classes) == [f"{label:03d}" for label in range(10)]
    assert parts["test"].decoded(6, cache=folder.parent / "c", progress=False).images.shape == (6, 6, 6, 3)


def test_the_same_seed_draws_the_same_classes_and_another_others(folder, tmp_path):
    texts = []
    for seed in (0, 0, 1):
        folder_data.prepare(folder, tmp_path / "t.csv", seed=seed, progress=False)
        texts.append((tmp_path / "t.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_photograph_of_two_splits_is_dropped_and_named(folder, tmp_path):
    prepare, lines = folder_data.prepare, []
    prepare(folder, tmp_path / "t.csv", progress=False)
    table = pd.read_csv(tmp_path / "t.csv").set_index("split")
    train, test = table.loc["train", "path"].iloc[0], table.loc["test", "path"].iloc[0]
    (tmp_path / train).write_bytes((tmp_path / test).read_bytes())
    prepare(folder, tmp_path / "t.csv", progress=False, say=lines.append)
    assert lines[0] == f"dropped {tmp_path / train}: a later split has the same image"
    left = pd.read_csv(tmp_path / "t.csv")["path"].tolist()
    assert len(left) == 29
    assert train not in left
    assert test in left


@pytest.mark.parametrize(
    ("val", "test", "sizes"),
    [
        (0.2, 0.2, (6, 2, 2)),
        (0, 0.3, (7, 0, 3)),
        (0.01, 0.01, (8, 1, 1)),
        (0, 0, (10, 0, 0)),
        (0.7, 0.3, (0, 7, 3)),
        (0.9, 0.1, (0, 9, 1)),
        (0.25, 0.75, (0, 2, 8)),
        (0, 1, (0, 0, 10)),
        (1, 0, (0, 10, 0)),
    ],
)
def test_shares_become_numbers_of_classes(folder, tmp_path, val, test, sizes):
    folder_data.prepare(folder, tmp_path / "t.csv", val=val, test=test, progress=False)
    counts = pd.read_csv(tmp_path / "t.csv", dtype=str).groupby("split")["label"].nunique()
    assert tuple(counts.get(split, 0) for split in ("train", "val", "test")) == sizes


def test_small_classes_are_left_out_when_asked(folder, tmp_path):
    (folder / "000" / "0.png").unlink()
    folder_data.prepare(folder, tmp_path / "t.csv", min_images=3, progress=False)
    assert "000" not in set(pd.read_csv(tmp_path / "t.csv", dtype=str)["label"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("gone", "--out", "t.csv"), "gone does not exist; expected a folder of class folders"),
        (("photos", "--out", "t.csv", "--val", "0.8", "--test", "0.8"), "are not valid shares"),
        (("photos", "--out", "t.csv", "--test", "-0.1"), "are not valid shares"),
        (
            ("photos", "--out", "t.csv", "--min-images", "4"),
            "has 0 classes of at least 4 images, too few for every split",
        ),
    ],
)
def test_a_users_mistake_with_a_folder_is_one_sentence(folder, arguments, reason):
    check_refused(run("folder", *arguments, "--quiet", cwd=folder.parent), reason)
    assert not (folder.parent / "t.csv").exists()


def test_a_table_that_cannot_be_written_is_an_error_before_all_files_are_read(folder, tmp_path, monkeypatch):
    module = folder_data
    monkeypatch.setattr(module, "digest", None)
    (tmp_path / "elsewhere").mkdir()
    (folder / "taken.csv").mkdir()
    for out in ("no/such/t.csv", "elsewhere/t.csv", "photos/000/t.csv"):
        with pytest.raises(ValueError, match="is neither in .* nor in a folder above it"):
            module.prepare(folder, tmp_path / out, progress=False)
    with pytest.raises(IsADirectoryError):
        module.prepare(folder, folder / "taken.csv", progress=False)
    (folder / "000").rename(folder / "caf\udce9")
    with pytest.raises(ValueError, match=r"caf\\xe9.* is not UTF-8 and cannot be written to a table; rename it"):
        module.prepare(folder, tmp_path / "t.csv", progress=False)


def test_a_system_s_error_is_a_sentence(folder, monkeypatch, capsys):
    (folder.parent / "taken.csv").mkdir()
    assert main(["data", "folder", str(folder), "--out", str(folder.parent / "taken.csv"), "--quiet"]) == 1
    assert "taken.csv: Is a directory; choose another place with --out" in capsys.readouterr().err


# Published splits


def test_the_split_of_omniglot_is_the_published_one_to_the_byte():
    for split, classes in omniglot_splits().items():
        assert hashlib.sha256("".join(f"{name}\n" for name in classes).encode()).hexdigest() == PUBLISHED[split]


def test_the_random_split_of_omniglot_holds_each_character_once_and_tests_on_none_that_chose_recipes():
    splits, published = omniglot_splits("random"), omniglot_splits()
    assert [len(classes) for classes in splits.values()] == [4 * 1150, 4 * 50, 4 * 423]
    every = [*chain(*splits.values())]
    assert sorted(every) == sorted(chain(*published.values())), "each class once"
    sets = [{name.rpartition("/")[0] for name in classes} for classes in splits.values()]
    assert sum(map(len, sets)) == 1623, "all turns of a character are in one split"
    assert not set(splits["test"]) & set(published["val"])
    alphabets = {name.partition("/")[0] for name in every}
    assert {name.partition("/")[0] for name in splits["train"]} == alphabets, "characters are drawn, not alphabets"
    assert hashlib.sha256("".join(sorted(splits["test"])).encode()).hexdigest() == RANDOM


@pytest.mark.parametrize(("name", "sizes"), [("cifar-fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_the_splits_of_cifar_hold_each_of_its_classes_once(name, sizes):
    splits = cifar_splits(name)
    assert tuple(map(len, splits.values())) == sizes
    assert len({label for classes in splits.values() for label in classes}) == 100


def test_a_mistyped_name_of_splits_is_answered_with_the_nearest(capsys, tmp_path):
    assert main(["data", "cifar-fs", "--splits", "fc10", "--out", str(tmp_path / "o")]) == 2
    assert "no list of splits is called 'fc10'; did you mean 'fc100'?" in capsys.readouterr().err
    assert main(["data", "omniglot", "--splits", "randm", "--out", str(tmp_path / "o")]) == 2
    assert "no list of splits is called 'randm'; did you mean 'random'?" in capsys.readouterr().err
