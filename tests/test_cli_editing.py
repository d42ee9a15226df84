"""``fewshot remove``, ``rename`` and ``merge``."""

import subprocess
import sys

import pytest

from fewshot import FewShotImageClassifier
from fewshot.cli import main
from tests.photographs import quick_embedder, write_photos


@pytest.fixture
def made(tmp_path):
    """Write two classifiers of the same network, and return their folders and images."""
    paths = write_photos(tmp_path / "photos", 3)
    labels = [path.split("/")[-2] for path in paths]
    for name, rows in (("one", slice(0, 6, 2)), ("two", slice(1, 6, 2))):
        model = FewShotImageClassifier(quick_embedder()).fit(paths[rows], labels[rows])
        model.save(tmp_path / name)
    return tmp_path / "one", tmp_path / "two", paths


def counts(folder):
    model = FewShotImageClassifier.load(folder)
    return dict(zip(model.classes_.tolist(), model.n_support_.tolist(), strict=True))


def test_images_are_removed_by_file_and_by_name(made, capsys):
    one, _, paths = made
    assert counts(one) == {"flower": 1, "temple": 2}
    assert main(["remove", str(one), "temple", "--images", paths[0]]) == 0
    assert capsys.readouterr().out == f"1 image of 'temple' removed; 2 classes left; to go back: fewshot undo {one}\n"
    assert counts(one) == {"flower": 1, "temple": 1}
    (made[0].parent / "photos" / "temple" / "02.png").unlink()
    assert main(["remove", str(one), "temple", "--images", paths[2]]) == 0
    assert counts(one) == {"flower": 1}


def test_an_image_that_is_named_in_part_is_told_in_full(made, capsys):
    one, _, paths = made
    assert main(["remove", str(one), "temple", "--images", "00.png"]) == 2
    assert capsys.readouterr().err == (
        f"fewshot: '00.png' is neither a file nor the name of an image of 'temple'; did you mean '{paths[0]}'?\n"
    )
    assert main(["remove", str(one), "temple", "--images", "09.png"]) == 2
    assert "did you mean" not in capsys.readouterr().err
    assert main(["add", str(one), "temple", "09.png"]) == 2
    assert "--skip-unreadable" not in capsys.readouterr().err, "that does not pass over a file that is not there"


def test_a_copy_of_an_image_is_recognised_by_its_content(made, tmp_path):
    one, _, _paths = made
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "photos" / "temple" / "00.png").read_bytes())
    assert main(["remove", str(one), "temple", "--images", str(copy)]) == 0
    assert counts(one) == {"flower": 1, "temple": 1}


def test_an_image_that_was_learned_as_two_classes_is_removed_from_the_one_that_is_named(made, capsys):
    one, _, paths = made
    assert main(["add", str(one), "church", paths[0]]) == 0
    capsys.readouterr()
    assert main(["remove", str(one), "temple", "--images", paths[0]]) == 0
    assert capsys.readouterr().out.startswith("1 image of 'temple' removed; 3 classes left;")
    assert counts(one) == {"church": 1, "flower": 1, "temple": 1}


def test_a_class_is_renamed(made, capsys):
    assert main(["rename", str(made[0]), "temple", "église"]) == 0
    assert capsys.readouterr().out.startswith("'temple' is now called 'église';")
    assert counts(made[0]) == {"flower": 1, "église": 2}


def test_two_classes_are_joined(made, capsys):
    one, *_ = made
    n = sum(counts(one).values())
    assert main(["rename", str(one), "temple", "flower", "--merge"]) == 0
    assert (
        capsys.readouterr().out
        == f"'temple' is now joined to 'flower', which has {n} images; to go back: fewshot undo {one}\n"
    )
    assert counts(one) == {"flower": n}
    assert main(["undo", str(one)]) == 0
    assert main(["rename", str(one), "temple", "shrine", "--merge"]) == 0
    assert sorted(counts(one)) == ["flower", "shrine"]


def test_classifiers_are_merged(made, tmp_path, capsys):
    one, two, _ = made
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "both")]) == 0
    assert capsys.readouterr().out == f"2 classes from 6 images; written to {tmp_path / 'both'}\n"
    assert counts(tmp_path / "both") == {"flower": 3, "temple": 3}
    assert counts(one) == {"flower": 1, "temple": 2}
    assert main(["merge", str(one), str(two)]) == 0
    assert counts(one) == {"flower": 3, "temple": 3}
    assert main(["merge", str(one), str(two), "--out", str(two)]) == 2
    assert "already holds a classifier; replace it with --force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rename", "{one}", "tempel", "x"), "there is no class 'tempel'"),
        (
            ("rename", "{one}", "temple", "flower"),
            "'flower' is a class already; choose another label, or join the two with --merge\n",
        ),
        (("merge", "{one}", "temple", "flower"), "'temple' is a class of "),
        (("merge", "{one}", "temple", "flower"), "fewshot rename {one} temple NEW --merge\n"),
        (("remove", "{one}", "temple", "--images", "gone.png"), "gone.png"),
        (("remove", "{one}", "flower", "--images", "{photo}"), ".png, is not among the support images of 'flower'"),
        (("merge", "{one}", "{photo}"), "is not a saved classifier"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, made, capsys):
    names = {"one": made[0], "photo": made[2][0]}
    assert main([argument.format(**names) for argument in arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message.format(**names) in error
    assert error.count("\n") == 1


LIGHT = """
import sys
from fewshot.cli import main
for command in sys.argv[1].split(";"):
    assert main(command.split()) == 0
print(*({"torch", "timm", "sklearn", "pandas", "scipy"} & set(sys.modules)))
"""


def test_showing_editing_and_exchanging_labels_load_neither_torch_nor_the_network(made, tmp_path):
    one, _, paths = made
    folder = tmp_path / "photos"
    commands = [
        f"show {one}", f"rename {one} temple église", f"remove {one} flower", f"calibrate {one} --clear",
        f"remove {one} église --images {paths[2]}", f"history {one}", f"undo {one}", f"history {one} --clear",
        f"export-labels {folder} --format folders --out {tmp_path}/labelled",
        f"import-labels {folder} --out {tmp_path}/labels.csv",
    ]  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", LIGHT, ";".join(commands)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == ""
    assert len(list((tmp_path / "labelled").rglob("*.png"))) == 6
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 7
    assert counts(one) == {"église": 2}  # the image that was removed has come back
