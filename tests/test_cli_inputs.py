"""Splits, skipped files and unreadable images: how commands read a folder."""

import csv
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, LabeledImages, cli
from fewshot.cli import main
from fewshot.errors import ImageDecodeError
from tests.photographs import write_photos

NETWORK = ("--backbone", "conv4", "--weights", "random", "--size", "32")
FEW = ("--way", "2", "--shot", "1", "--query", "1", "--episodes", "2")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def splits(tmp_path):
    """photos/Train and photos/TEST, each with the folders flower and temple."""
    for i, split in enumerate(("Train", "TEST")):
        write_photos(tmp_path / "photos" / split, 3, seed=i)
    return tmp_path / "photos"


@pytest.fixture
def damaged(tmp_path):
    """Two classes of four images, of which one is cut short, and a classifier of the whole ones."""
    write_photos(tmp_path / "photos", 4)
    broken = tmp_path / "photos" / "temple" / "01.png"
    whole = broken.read_bytes()
    model = tmp_path / "model"
    assert main(["fit", str(tmp_path / "photos"), "--out", str(model), *NETWORK, "--quiet"]) == 0
    broken.write_bytes(whole[: len(whole) // 2])
    return tmp_path / "photos", model


def test_a_folder_of_splits_is_not_learned_as_classes(splits, tmp_path, capsys):
    args = ["fit", str(splits), "--out", str(tmp_path / "model"), *NETWORK, "--quiet"]
    assert main(args) == 2
    assert f"{splits} has the splits train, test: choose one, such as --split train" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert main([*args, "--split", "train"]) == 0
    assert capsys.readouterr().out.startswith(f"the split train of {splits}: 6 images of 2 classes\n")
    assert main(["calibrate", str(tmp_path / "model"), str(splits), "--quiet"]) == 2
    assert "--split train" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "model"), str(splits), "--split", "test", "--episodes", "2"]) == 0
    assert f"the split test of {splits}: 6 images" in capsys.readouterr().out


def test_each_command_reads_its_default_split(splits, tmp_path, capsys):
    assert main(["evaluate", str(splits), *NETWORK, *FEW, "--quiet"]) == 0
    assert f"the split test of {splits}: 6 images of 2 classes; " in capsys.readouterr().out
    few = ["--size", "16", "--way", "2", "--query", "1", "--episodes", "1", "--quiet"]
    assert main(["train", str(splits), "--out", str(tmp_path / "run"), *few]) == 0
    assert "train: LabeledImages(6 images" in capsys.readouterr().out
    (splits / "Train").rename(splits / "dev")
    assert main(["train", str(splits), "--out", str(tmp_path / "run2"), *few]) == 2
    assert "has no split train; it has val, test" in capsys.readouterr().err
    (splits / "TEST").rename(splits / "Training")
    assert main(["evaluate", str(splits), *NETWORK, *FEW]) == 2
    assert "has no split test; it has train, val: choose one, such as --split train" in capsys.readouterr().err


def test_fit_learns_all_splits_of_a_table_and_says_so(tmp_path, capsys):
    paths = write_photos(tmp_path, 2)
    rows = "".join(f"{path},{i % 2},{'train' if i < 2 else 'test'}\n" for i, path in enumerate(paths))
    (tmp_path / "table.csv").write_text("path,label,split\n" + rows)
    args = ["fit", str(tmp_path / "table.csv"), "--out", str(tmp_path / "model"), *NETWORK, "--quiet"]
    assert main(args) == 0
    assert "learned all splits (train, test); --split NAME selects one" in capsys.readouterr().out


def test_the_number_of_images_is_printed_before_embedding(tmp_path, monkeypatch, capsys):
    write_photos(tmp_path / "photos", 2)
    told = []
    monkeypatch.setattr("fewshot.embedding.embedder.embed_items", lambda *a, **k: told.append(capsys.readouterr()))
    place = f"{tmp_path}/photos: 4 images of 2 classes"
    evaluate = ["evaluate", "--way=2", "--shot=1", "--query=1"]
    for command in (["fit", "--out", str(tmp_path / "m")], evaluate, [*evaluate, "--csv", "-"]):
        with pytest.raises(AttributeError):  # nothing was embedded
            main([*command, str(tmp_path / "photos"), *NETWORK])
        piped = "-" in command
        assert told[-1].err.startswith(place) == piped
        assert told[-1].out.startswith(place) != piped


def test_skipped_images_are_reported_in_a_line(damaged, tmp_path, capsys):
    photographs, model = damaged
    for i in range(3):
        (photographs / "temple" / f"{i}.dcm").write_bytes(b"\0\0\0\x18DICM")
    commands = [
        ["predict", str(model), str(photographs)],
        ["fit", str(photographs), "--out", str(tmp_path / "other"), "--skip-unreadable", *NETWORK],
        ["annotate", str(photographs), "--model", str(model), "--out", str(tmp_path / "all.parquet")],
    ]
    for command in commands:
        with pytest.warns(UserWarning, match=r"left out: 3 \.dcm \(convert images to JPEG or PNG\)"):
            main([*command, "--quiet"])


def commands(photographs, model, out):
    few = ["--size", "16", "--way", "2", "--query", "1", "--episodes", "1"]
    return {
        "fit": ["fit", photographs, "--out", out, *NETWORK],
        "add": ["add", model, "temple", photographs + "/temple"],
        "evaluate": ["evaluate", photographs, *NETWORK, *FEW],
        "calibrate": ["calibrate", model, photographs, "--episodes", "2"],
        "train": ["train", photographs, "--out", out, *few],
    }


@pytest.mark.parametrize("command", ["fit", "add", "evaluate", "calibrate", "train"])
def test_every_command_can_skip_unreadable_images(damaged, tmp_path, capsys, command):
    photographs, model = map(str, damaged)
    args = [*commands(photographs, model, str(tmp_path / "out"))[command], "--quiet"]
    capsys.readouterr()
    assert main(args) == 2
    told = capsys.readouterr().err
    assert "temple/01.png: " in told
    assert told.endswith("; --skip-unreadable skips such images\n")
    assert told.count("\n") == 1
    with pytest.warns(UserWarning, match=r"1 of \d images could not be read, first .*temple/01\.png"):
        assert main([*args, "--skip-unreadable"]) == 0
    said = capsys.readouterr().out
    assert {"fit": "from 7 images", "add": "learned 3 images", "train": "train: LabeledImages(7 images"}.get(
        command, ""
    ) in said
    if command in ("add", "calibrate"):  # later learning warns again
        assert FewShotImageClassifier.load(model).on_error == "raise"


def test_a_missing_file_is_a_mistake_not_an_unreadable_image(damaged, capsys):
    assert main(["add", str(damaged[1]), "temple", "gone.png", "--skip-unreadable"]) == 2
    assert "gone.png: no such file" in capsys.readouterr().err


def test_a_missing_file_of_a_table_is_an_unreadable_image(damaged, monkeypatch, capsys):
    photographs, model = damaged
    monkeypatch.chdir(photographs)
    with open("list.csv", "w", encoding="utf-8") as file:
        file.write("path,label\nflower/05.png,flower\ngone.png,temple\ntemple/00.png,temple\n")
    assert main(["predict", str(model), "list.csv", "--csv", "answers.csv"]) == 1
    assert "list.csv, row 3, gone.png: no such file or directory\n" in capsys.readouterr().err
    with open("answers.csv", encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    assert [row["image"] for row in answers] == ["flower/05.png", "gone.png", "temple/00.png"]  # as in the table
    assert [row["label"] for row in answers] == ["flower", "", "temple"]
    for command in (["fit", "list.csv", "--out", "new", *NETWORK], ["test", str(model), "list.csv"]):
        assert main([*command, "--quiet"]) == 2
        told = capsys.readouterr().err
        assert "list.csv, row 3, gone.png: no such file or directory (looked in the working directory)" in told
        assert told.endswith("; --skip-unreadable skips such images\n")
        with pytest.warns(UserWarning, match="1 of 3 images could not be read"):
            assert main([*command, "--quiet", "--skip-unreadable"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("command", ["fit", "test", "calibrate", "adapt", "predict", "train", "evaluate"])
def test_a_table_beside_other_files_names_the_folder_where_its_paths_begin(damaged, tmp_path, capsys, command):
    photographs, model = damaged
    (tmp_path / "lists").mkdir()
    table, out = tmp_path / "lists" / "list.csv", str(tmp_path / "out")
    names = ("temple/00", "temple/02", "flower/05", "flower/06")
    table.write_text("path,label\n" + "".join(f"{name}.png,{name[:6]}\n" for name in names))
    known = commands(str(table), str(model), out) | {
        "adapt": ["adapt", str(table), "--out", out, *NETWORK],
        "predict": ["predict", str(model), str(table)],
        "test": ["test", str(model), str(table)],
    }
    has_root = command not in ("train", "evaluate")
    cure = "give the folder where its paths begin as --root FOLDER, or put the table there"
    end = cure if has_root else "put the table into the folder where its paths begin"
    looked = f"list.csv, row 2, {tmp_path}/lists/temple/00.png: no such file or directory (looked in {tmp_path}/lists"
    for skip in ([], ["--skip-unreadable"])[: 1 if command == "predict" else 2]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of those that are skipped
            assert main([*known[command], *skip, "--quiet"]) == (1 if command == "predict" else 2)
        told = capsys.readouterr().err
        assert f"{looked}, which lacks 4 of 4 files of the table); {end}\n" in told
        assert "--skip-unreadable" not in told
    if command in ("fit", "test", "predict"):  # the cure works
        assert main([*known[command], "--root", str(photographs), "--quiet"]) == 0


def test_in_python_the_error_notes_the_parameter(damaged):
    photographs = damaged[0]
    with pytest.raises(ImageDecodeError) as caught:
        FewShotImageClassifier("conv4", weights="random", img_size=32).fit(LabeledImages.open(photographs))
    assert 'on_error="skip"' in caught.value.__notes__[0]
    with pytest.raises(ImageDecodeError) as caught:
        LabeledImages.open(photographs).decoded(8)
    assert 'on_error="skip"' in caught.value.__notes__[0]


def test_decoding_can_skip_unreadable_images(damaged, tmp_path):
    data = LabeledImages.open(damaged[0])
    with pytest.warns(UserWarning, match="1 of 8 images could not be read"):
        read = data.decoded(8, on_error="skip")
    assert len(read) == 7
    np.testing.assert_array_equal(read.labels, np.delete(data.labels, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read.images, data.select(np.delete(np.arange(8), 5)).decoded(8).images)
    with pytest.raises(ValueError, match="on_error"):
        data.decoded(8, on_error="unknown")
    for path in data.images:
        with open(path, "wb"):
            pass
    with pytest.raises(ImageDecodeError, match="image 0"):
        data.decoded(8, on_error="skip")


def test_an_image_without_a_suffix_is_answered(damaged, tmp_path, capsys):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "noname", "PNG")
    (tmp_path / "queries").mkdir()
    (tmp_path / "noname").rename(tmp_path / "queries" / "noname")
    assert main(["predict", str(damaged[1]), str(tmp_path / "queries"), "--csv", "-", "--quiet"]) == 0
    out = capsys.readouterr().out.partition("image,")
    assert [row["image"] for row in csv.DictReader(io.StringIO("image," + out[2]))] == [f"{tmp_path}/queries/noname"]


def test_a_table_names_images_elsewhere_if_the_root_allows_it(tmp_path, monkeypatch, capsys):
    paths, told = write_photos(tmp_path / "photos", 3), "give the folder above it as --root to fit, test, predict"
    (tmp_path / "tables").mkdir()
    rows = [
        f"{path},{path.split('/')[-2]}" for path in (*paths[:3], *(f"../photos/flower/0{i}.png" for i in (3, 4, 5)))
    ]
    (tmp_path / "tables" / "list.csv").write_text("\n".join(["path,label", *rows]))
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "tables/list.csv", "--out", "model", *NETWORK, "--quiet"]
    assert main(fit) == 2
    assert told in capsys.readouterr().err
    assert main([*fit, "--root", "photos"]) == 0
    for command in (["test", "model"], ["predict", "model"], ["calibrate", "model"]):
        assert main([*command, "tables/list.csv"]) == 2
        assert told in capsys.readouterr().err
        status = main([*command, "tables/list.csv", "--root", "/"])
        said = capsys.readouterr().err
        assert status == 0 or (command[0] == "calibrate" and told not in said)  # which wants more classes
    assert main(["fit", "photos", "--out", "other", *NETWORK, "--root", "."]) == 2
    assert "--root are about tables; leave them out" in capsys.readouterr().err
    for command in (["adapt", "photos", "--unlabelled", "--out", "domain.safetensors", *NETWORK],
                    ["predict", "model", "photos"]):  # fmt: skip
        assert main([*command, "--root", "photos"]) == 2
        told = "fewshot: photos is no table (.csv), and --root is about the paths in tables; leave it out\n"
        assert capsys.readouterr().err == told
        assert main([*command, "--split", "train"]) == 2
        assert "--split chooses among labelled images, and these have no labels" in capsys.readouterr().err


LABELLED = "gone does not exist; expected a folder of class folders, or a table path,label,split"
IMAGES = "gone: no such file or directory"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("fit gone --out new", LABELLED),
        ("fit photos --none-of-these gone --out new", IMAGES),
        (
            "fit photos --out model",
            "model already holds a classifier; replace it with --force, or choose another --out",
        ),
        ("test model gone", LABELLED),
        ("test model gone.csv", "gone.csv does not exist; expected a CSV file"),
        ("predict model gone", IMAGES),
        ("predict model photos gone", IMAGES),
        ("predict model photos --coverage 0.9 --held-out gone", LABELLED),
        ("add model owl gone", IMAGES),
        ("calibrate model gone", LABELLED),
        ("calibrate model --none-of-these gone", IMAGES),
        ("suggest gone", IMAGES),
        ("suggest model gone", IMAGES),
        ("annotate gone --model model --out new.csv", IMAGES),
        ("search table gone --model model", IMAGES),
        ("export-labels gone --format csv --out new.csv", IMAGES),
        ("adapt gone --out new.safetensors", LABELLED),
        ("adapt gone --unlabelled --out new.safetensors", IMAGES),
        ("train gone --out new", LABELLED),
        ("evaluate gone", LABELLED),
        ("evaluate gone.zip", LABELLED.replace("gone", "gone.zip")),
    ],
)
def test_a_mistyped_name_is_refused_before_torch_is_loaded_as_it_would_be_after(
    command, told, damaged, monkeypatch, capsys
):
    monkeypatch.chdir(damaged[0].parent)
    capsys.readouterr()
    with monkeypatch.context() as early:
        early.setattr(cli, "import_module", lambda name: pytest.fail(f"{name} is loaded"))
        assert main(command.split()) == 2
    assert capsys.readouterr().err == f"fewshot: {told}\n"
    if command.split()[0] not in ("annotate", "search"):  # of which the first speaks of folders, and there is no table
        monkeypatch.setattr(cli, "_refuse_absent", lambda options: None)
        assert main([*command.split(), "--quiet"]) == 2
        assert capsys.readouterr().err.endswith(f"fewshot: {told}\n")
