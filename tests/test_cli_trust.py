"""``fewshot test``, ``calibrate`` and ``audit``."""

import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, LabeledImages
from fewshot.cli import main
from fewshot.data.packed import write_packed
from tests.photographs import quick_embedder, write_photos


@pytest.fixture
def made(tmp_path):
    """Write a classifier, images and held-out data."""
    paths = write_photos(tmp_path / "photos", 3)
    labels = [path.split("/")[-2] for path in paths]
    copy = tmp_path / "photos" / "copy.png"
    shutil.copy(paths[0], copy)
    FewShotImageClassifier(quick_embedder()).fit([*paths, str(copy)], [*labels, "flower"]).save(tmp_path / "model")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (8, 5, 32, 32, 3)) + rng.integers(0, 190, (8, 1, 1, 1, 3))
    table = pd.DataFrame({"path": "made", "label": np.arange(8).repeat(5), "split": "val"})
    write_packed(tmp_path / "held_out", images.reshape(-1, 32, 32, 3).astype(np.uint8), table, {})
    return tmp_path, paths


def test_a_folder_of_labelled_images_tells_how_good_it_is(made, capsys):
    folder, _ = made
    model, page = str(folder / "model"), folder / "pages" / "test.html"
    (folder / "photos" / "copy.png").unlink()
    write_photos(folder / "new", 3, seed=2)
    assert main(["test", model, str(folder / "new"), "--report", str(page)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "of 6 images right; of others of the same kind, expect",
        "% sure on the mean",
        "pictures",
    ):
        assert part in shown
    assert "For other images of the same kind, expect" in page.read_text(encoding="utf-8")
    with pytest.warns(UserWarning, match="learned before, 6 of 6 items tested, such as "):
        assert main(["test", model, str(folder / "photos"), "--report", str(page)]) == 0
    said = capsys.readouterr().out
    assert "of 6 images right; expect less of others, since it has learned 6 of these" in said
    assert "only just" in (shown := page.read_text(encoding="utf-8"))
    assert "Expect less of other images: it has learned 6 of these." in shown
    assert main(["test", model, str(folder / "photos"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == sum(row["images"] for row in found["classes"]) == 6
    assert found["interval"][0] < found["accuracy"] <= found["interval"][1] <= 1
    assert found["learned"] == 6
    (folder / "photos" / "flower" / "bad.png").write_bytes(b"no image")
    assert main(["test", model, str(folder / "photos")]) == 2
    assert "--skip-unreadable skips such images" in capsys.readouterr().err
    assert main(["test", model, str(folder / "photos"), "--skip-unreadable"]) == 0
    assert "6 images right" in capsys.readouterr().out


def test_refused_images_are_told_apart(made, capsys):
    folder, paths = made
    model, page = str(folder / "rejects"), folder / "test.html"
    FewShotImageClassifier(quick_embedder()).fit(paths, ["a", "a", "a", "b", "b", "b"]).save(model)
    for name in ("a", "b", "c"):
        for path in paths[:3] if name == "a" else paths[3:]:
            (folder / "tested" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "tested" / name)
    shutil.copytree(folder / "tested" / "c", folder / "others" / "c")
    assert main(["test", model, str(folder / "others")]) == 2  # it answers every image
    assert "knows none of the classes" in capsys.readouterr().err
    loaded = FewShotImageClassifier.load(model)
    sure = np.sort([answer.prototypes[0][1] for answer in loaded.answer(paths)])
    loaded.set_params(reject=float(sure[3])).save(model)
    assert main(["test", model, str(folder / "tested"), "--report", str(page)]) == 0
    shown = capsys.readouterr().out
    for part in (" % of them refused as unknown; of the others ", "% right, and it was ", "of 3 images of unknown"):
        assert part in shown
    assert "of images of its classes refused as unknown" in page.read_text(encoding="utf-8")
    assert main(["test", model, str(folder / "others"), "--report", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "of 3 images of unknown classes (" in shown
    assert "nan" not in shown
    assert "nan" not in page.read_text(encoding="utf-8").split("<svg")[0].split("data:image")[0]
    assert main(["test", model, str(folder / "others"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["accuracy"], found["refused"], found["classes"]) == (0, None, None, [])
    assert 0 <= found["unknown_accepted"] <= 1


@pytest.mark.filterwarnings("ignore:learned before")
def test_every_wrong_answer_to_a_class_is_counted(made, capsys):
    folder, paths = made
    model = FewShotImageClassifier(quick_embedder()).fit(paths, ["a", "a", "b", "b", "c", "c"])
    model.save(folder / "three")
    counts = Counter(model.predict(paths).tolist())
    (folder / "wrong" / "a").mkdir(parents=True)
    for path in paths:
        shutil.copy(path, folder / "wrong" / "a")
    assert len(counts) == 3
    wrong = [f"{label} ({n})" for label, n in counts.most_common() if label != "a"]
    assert main(["test", str(folder / "three"), str(folder / "wrong"), "--csv", str(folder / "w.csv")]) == 0
    assert ", ".join(wrong) in capsys.readouterr().out
    assert f'"{", ".join(wrong)}"' in (folder / "w.csv").read_text(encoding="utf-8")
    assert main(["test", str(folder / "three"), str(folder / "wrong"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"][0]["taken for"] == wrong[0].split()[0]
    assert {one["answer"]: one["images"] for one in found["confusion"]} == counts


def test_folders_named_by_numbers_are_classes_that_are_numbers(made, capsys):
    folder, paths = made
    FewShotImageClassifier(quick_embedder()).fit(paths, [7, 7, 7, 30, 30, 30]).save(folder / "numbers")
    for number, path in zip((7, 30), (paths[0], paths[-1]), strict=True):
        (folder / "tested" / str(number)).mkdir(parents=True)
        shutil.copy(path, folder / "tested" / str(number))
    assert main(["test", str(folder / "numbers"), str(folder / "tested"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in found["classes"]] == [7, 30]
    assert {type(row["accuracy"]) for row in found["classes"]} == {float}
    FewShotImageClassifier(quick_embedder()).fit(paths, [7, 7, 30, 30, 30, 7]).save(folder / "doubtful")
    assert main(["check", str(folder / "doubtful")]) == 0
    shown = capsys.readouterr().out
    assert "more images help most: " in shown
    assert "7 (+" in shown
    assert ".0 (+" not in shown


def test_a_classifier_is_checked_from_its_own_images(made, capsys):
    folder, _ = made
    model, page = str(folder / "model"), folder / "pages" / "check.html"
    assert main(["check", model, "--report", str(page)]) == 0
    shown = capsys.readouterr().out
    for part in ("% of new images right (", "with twice the images", "taken for each other: flower and temple", "pict"):
        assert part in shown
    assert "Mistakes" in page.read_text(encoding="utf-8")
    assert main(["check", model, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], len(found["classes"])) == (7, 2)
    assert found["interval"][0] < found["accuracy"] < found["with_twice_the_images"]
    assert found["confused"][0]["of"] == 7
    assert {row["class"] for row in found["gains"]} == {"flower", "temple"}
    assert [point["images"] for point in found["curve"]] == [1, pytest.approx(3.07, abs=0.01)]
    assert any("copy.png" in later for later, _ in found["near_duplicates"])
    assert all(row["suspicion"] > 0 and row["neighbour"] for row in found["suspects"])
    assert found["refused"] is None


@pytest.mark.parametrize(("rule", "least"), [("5%", 0.0), (0.0, 0.0), (5.0, 1.0)])
def test_a_check_says_what_reject_refuses_of_the_images_that_are_left_out(made, capsys, rule, least):
    model = str(made[0] / "model")
    loaded = FewShotImageClassifier.load(model).set_params(reject=rule)
    loaded.save(model)
    found = loaded.check()
    assert least <= found.refused <= 1
    if rule == "5%":
        assert found.refused == loaded.rejection("5%").false_reject_rate
    assert main(["check", model]) == 0
    shown = capsys.readouterr().out
    refused = f" if all are answered, but {100 * found.refused:.0f} % are refused as unknown\nthat is --reject {rule}"
    none = f"none of these is refused as unknown by --reject {rule}"
    assert (refused if found.refused else none) in shown
    assert (
        ("are refused as unknown" in str(found))
        == ("refused as unknown, right" in found._repr_html_())
        == (found.refused > 0)
    )
    assert (f"; for fewer: fewshot calibrate {model} --reject balanced" in shown) == (found.refused > 0.5)


def test_a_rule_that_refuses_most_of_the_known_names_a_milder_one(made, capsys):
    folder, _ = made
    rng, model = np.random.default_rng(0), str(folder / "noise")
    for i in range(60):  # classes that cannot be told apart
        place = folder / ("noisy" if i < 30 else "more") / str(i % 6)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{i}.png")
    made_of_noise = FewShotImageClassifier(quick_embedder()).fit(LabeledImages.open(folder / "noisy"))
    made_of_noise.save(model)
    costs = made_of_noise.rejection("balanced")
    told = (
        f"that is most of them; --reject balanced would answer {100 * costs.false_reject_rate:.0f} of 100 unknown, "
        f"and take {100 * costs.false_accept_rate:.0f} % of unknown images for a class\n"
    )
    assert main(["calibrate", model, "--reject", "5", "--dry-run"]) == 0
    assert told in capsys.readouterr().out
    assert main(["calibrate", model, "--reject", "balanced", "--dry-run"]) == 0
    assert "most of them" not in capsys.readouterr().out
    assert main(["calibrate", model, "--reject", "5"]) == 0
    assert main(["test", model, str(folder / "more")]) == 0
    assert f"; for fewer: fewshot calibrate {model} --reject balanced\n" in capsys.readouterr().out


def test_images_that_are_none_of_the_classes_are_told_where_they_go(made, capsys):
    folder, paths = made
    (folder / "loose").mkdir()
    shutil.copy(paths[0], folder / "loose")
    assert main(["calibrate", str(folder / "model"), str(folder / "loose"), "--reject", "5"]) == 2
    assert f"; if they are none of the classes: --none-of-these {folder / 'loose'}\n" in capsys.readouterr().err


def test_calibrating_makes_it_say_unknown(made, capsys):
    folder, paths = made
    model, noise = str(folder / "model"), str(folder / "noise.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)).save(noise)
    page = folder / "pages" / "calibration.html"
    command = ["calibrate", model, str(folder / "held_out"), "--episodes", "20", "--report", str(page)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    for part in ("calibration error", "AUROC", "no image is answered unknown; --reject says which", "figures"):
        assert part in shown
    assert "known ones rejected" in page.read_text(encoding="utf-8")
    assert FewShotImageClassifier.load(model).reject is None
    assert main([*command, "--reject", "0", "--dry-run"]) == 0
    tried = capsys.readouterr().out.splitlines()
    assert tried[-1] == f"{model} stays as it is; without --dry-run, this takes effect"
    assert FewShotImageClassifier.load(model).reject is None
    assert main([*command, "--reject", "0"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[:-1] == tried[:-1]
    assert "--reject 0%: 0 % of unknown images would be taken for a class (0 to " in shown
    assert "of 100 known ones, " in shown
    loaded = FewShotImageClassifier.load(model)
    expected = loaded.predict([noise, paths[1]]) == "unknown"
    assert main(["predict", model, noise, paths[1], "--json", "-", "--top", "2", "--report", str(page)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] == "unknown" for row in rows] == expected.tolist()
    for row in rows:
        assert {row["likeliest"], row["class 2"]} == {"flower", "temple"}
        assert 0.5 <= row["probability"] == pytest.approx(1 - row["probability 2"])
        assert row["label"] in ("unknown", row["likeliest"])
    assert any(expected)
    for one in (noise, paths[1]):
        assert main(["predict", model, one]) == 0
        head, row = (line.split() for line in capsys.readouterr().out.splitlines())
        assert head == ["image", "label", *(["likeliest"] if row[1] == "unknown" else []), "probability"]
    assert ">unknown<" in page.read_text(encoding="utf-8")
    assert main([*command, "--keep-answering"]) == 0
    assert "every image is answered with a class" in capsys.readouterr().out
    assert FewShotImageClassifier.load(model).reject is None


def test_what_is_unknown_is_told_without_held_out_classes(made, capsys):
    folder, _ = made
    model, other = str(folder / "model"), str(folder / "other")
    assert main(["calibrate", model, "--reject", "balanced", "--none-of-these", str(folder / "photos" / "temple")]) == 0
    assert "--reject balanced: " in capsys.readouterr().out
    loaded = FewShotImageClassifier.load(model)
    assert loaded.reject == "balanced"
    assert main(["calibrate", model, "--reject", "auto", "--false-accepts", "40", "--out", str(folder / "loose")]) == 0
    assert "--reject 40%: " in capsys.readouterr().out
    assert main(["remove", other.replace("other", "loose"), "temple"]) == 0
    assert main(["predict", str(folder / "loose"), str(folder / "photos" / "flower")]) == 2
    assert "run fewshot calibrate with held-out classes or --reject none" in capsys.readouterr().err
    assert len(loaded.classifier_.background_.x) == 3
    assert main(["calibrate", model, "--clear", "--out", other]) == 0
    assert "is not calibrated, and answers every image with a class" in capsys.readouterr().out
    cleared = FewShotImageClassifier.load(other)
    assert (cleared.reject, hasattr(cleared.classifier_, "background_")) == (None, False)
    assert FewShotImageClassifier.load(model).reject == "balanced"
    shutil.copytree(folder / "photos" / "temple", folder / "one" / "temples")
    for wrong, message in (
        ([model], "there is nothing to do; give DATA, --none-of-these, --reject or --clear"),
        (
            [model, "--reject", "5", "--report", str(folder / "x.html")],
            "--report shows a calibration, which needs DATA",
        ),
        (
            [model, str(folder / "one")],
            "needs at least two such classes; give images of one unknown kind as --none-of-these",
        ),
        ([model, "--clear", "--out", other], "already holds a classifier; replace it with --force"),
        ([model, "--clear", "--reject", "5"], "--clear forgets everything, so --reject would be ignored"),
        ([model, "--keep-answering", "--reject", "5"], "--keep-answering means --reject none; give one of them"),
    ):
        assert main(["calibrate", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_new_classifier_says_what_rejecting_costs(made, capsys):
    folder, _ = made
    (folder / "photos" / "copy.png").unlink()
    fit = ["fit", str(folder / "photos"), "--out", str(folder / "new"), "--backbone", "conv4", "--weights", "random"]
    fit += ["--size", "32"]
    assert main([*fit, "--reject", "10%", "--none-of-these", str(folder / "photos" / "flower")]) == 0
    assert "--reject 10%: " in capsys.readouterr().out
    assert FewShotImageClassifier.load(folder / "new").reject == "10%"
    assert main(["calibrate", str(folder / "new"), "--reject", "0.05", "--dry-run"]) == 0
    assert "0.05 is a percentage; if 5 % are meant, give --reject 5\n" in capsys.readouterr().out
    assert main([*fit, "--force", "--learner", "prototypical", "--reject", "5"]) == 2
    shown = capsys.readouterr().err
    assert "needs a threshold" in shown
    assert FewShotImageClassifier.load(folder / "new").learner_.name == "prototypical"  # nothing is lost


def test_an_audit_lists_a_duplicate_and_shows_it(made, capsys):
    folder, paths = made
    page = folder / "audit.html"
    assert main(["audit", str(folder / "model"), "--report", str(page)]) == 0
    shown = capsys.readouterr().out
    assert f"the same as {paths[0]}" in shown
    assert "of 7 images to check; about" in shown
    assert "% of right images look as suspect" in shown
    text = page.read_text(encoding="utf-8")
    assert f"the same as {paths[0]}" in text
    assert "data:image/" in text
    assert main(["audit", str(folder / "model"), "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert any("copy.png" in row["image"] and row["class"] == "flower" for row in rows)
    assert {"why", "taken for", "neighbour", "similarity", "suspicion", "false alarm"} < set(rows[0])


def test_a_clean_audit(made, capsys):
    folder, _ = made
    FewShotImageClassifier(quick_embedder()).fit([Image.new("RGB", (9, 9))], ["a"]).save(folder / "one")
    assert main(["audit", str(folder / "one"), "--report", str(folder / "page.html")]) == 0
    assert "0 of 1 image to check" in capsys.readouterr().out
    assert "Nothing found" in (folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("calibrate", "{model}", "{held_out}", "--split", "test"), "test"),
        (("calibrate", "{model}", "{model}"), ""),
        (("calibrate", "{held_out}", "{held_out}"), "its digest does not match"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, made, capsys):
    names = {"model": made[0] / "model", "held_out": made[0] / "held_out"}
    assert main([argument.format(**names) for argument in arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_class_named_unknown_differs_from_the_unknown_label(made, capsys):
    folder, paths = made
    model, data = str(folder / "model"), str(folder / "held_out")
    calibrate = ["calibrate", model, data, "--episodes", "5", "--reject", "1"]
    assert main(["rename", model, "temple", "unknown"]) == 0  # nothing is rejected yet
    assert main(calibrate) == 2
    assert "--unknown-label unknown is a class; choose another" in capsys.readouterr().err
    assert main([*calibrate[:-2], "--keep-answering"]) == 0
    assert main([*calibrate, "--unknown-label", "flower"]) == 2
    assert main([*calibrate, "--unknown-label", "none of these"]) == 0
    assert "unknown images are answered 'none of these'" in capsys.readouterr().out.replace('"', "'")
    assert FewShotImageClassifier.load(model).unknown_label == "none of these"
    assert main(["predict", model, *paths]) == 0
    assert main(["rename", model, "unknown", "temple", "--unknown-label", "unknown"]) == 2
    assert main(["rename", model, "unknown", "temple"]) == 0
    assert main(["add", model, "none of these", paths[0]]) == 2
    assert main(["rename", model, "flower", "none of these"]) == 2
    assert "--unknown-label 'none of these' is a class" in capsys.readouterr().err
    assert main(["rename", model, "flower", "none of these", "--unknown-label", "?"]) == 0
    assert FewShotImageClassifier.load(model).classes_.tolist() == ["none of these", "temple"]
    assert main(["predict", model, *paths]) == 0


def test_the_unknown_label_may_be_text_among_numbers(tmp_path):
    paths = write_photos(tmp_path / "photos", 2)
    FewShotImageClassifier(quick_embedder()).fit(paths, [1, 1, 2, 2]).save(tmp_path / "model")
    for old, new, given, kept in (("2", "3", "-1", -1), ("3", "4", "none", "none")):
        assert main(["rename", str(tmp_path / "model"), old, new, f"--unknown-label={given}"]) == 0
        assert FewShotImageClassifier.load(tmp_path / "model").unknown_label == kept
