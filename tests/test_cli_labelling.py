"""``fewshot suggest``, ``export-labels`` and ``import-labels``."""

import csv
import json
import shutil
import unicodedata
import warnings
from pathlib import Path

import pytest

from fewshot import FewShotImageClassifier
from fewshot.cli import main
from tests.photographs import quick_embedder, write_photos


def test_suggestions_are_new_images_with_reasons_and_pictures(tmp_path, capsys):
    pool = tmp_path / "pool"
    paths = write_photos(pool, 6)
    (pool / "bad.png").write_bytes(b"no image")
    shutil.copy(paths[3], pool / "copy.png")
    model, page = str(tmp_path / "model"), tmp_path / "pages" / "next.html"
    FewShotImageClassifier(quick_embedder(), progress=False).fit(paths[:2] + paths[6:8], ["a", "a", "b", "b"]).save(
        model
    )
    with pytest.warns(UserWarning, match="could not be read"):
        assert main(["suggest", model, str(pool), "-k", "5", "--report", str(page)]) == 0
    told = capsys.readouterr().out
    assert "5 of 14 images to label next" in told
    assert "stands for" in told
    (pool / "bad.png").unlink()
    assert page.read_text(encoding="utf-8").count('class="query') == 5
    assert main(["suggest", model, str(pool), "-k", "50", "--json", "-", "--strategy", "margin"]) == 0
    rows = json.loads(capsys.readouterr().out)
    found = {row["image"] for row in rows}
    assert len(rows) == 8
    assert found & {paths[3], str(pool / "copy.png")}
    assert not found >= {paths[3], str(pool / "copy.png")}
    assert not found & {*paths[:2], *paths[6:8]}
    assert {row["answer"] for row in rows} <= {"a", "b"}


def test_the_first_images_are_chosen_before_anything_is_learned(tmp_path, capsys):
    paths = write_photos(tmp_path / "pool", 6)
    command = ["suggest", str(tmp_path / "pool"), "--backbone", "conv4", "--weights", "random", "--size", "32"]
    assert main([*command, "-k", "2", "--csv", "-", "--quiet"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len({row["image"] for row in rows} & set(paths)) == 2
    assert {row["answer"] for row in rows} == {""}


@pytest.fixture
def made(tmp_path):
    """A classifier of two classes, and a pool of six photographs of each."""
    paths = write_photos(tmp_path / "pool", 6)
    learned = write_photos(tmp_path / "learned", 2, seed=4)
    FewShotImageClassifier(quick_embedder()).fit(learned, ["temple"] * 2 + ["flower"] * 2).save(tmp_path / "model")
    return tmp_path, paths


def labelled_by_hand(tasks):
    """Fill the first three tasks in as Label Studio does: a label, two labels, skipped; leave the others."""
    for task, names in zip(tasks, (["temple"], ["temple", "owl"], []), strict=False):
        result = {"type": "choices", "from_name": "choice", "to_name": "image", "value": {"choices": names}}
        task["annotations"] = [{"result": [result] if names else [], "was_cancelled": not names}]
    return tasks


def test_what_to_label_goes_to_label_studio_and_comes_back_into_the_classifier(made, capsys):
    folder, _ = made
    model, pool, todo, tasks = (str(folder / name) for name in ("model", "pool", "next.csv", "tasks.json"))
    assert main(["suggest", model, pool, "-k", "4", "--csv", todo]) == 0
    export = ["export-labels", todo, "--model", model, "--format", "label-studio", "--out", tasks]
    assert main(export) == 0
    assert "4 images, 0 labels, 4 answers" in capsys.readouterr().out
    export = labelled_by_hand(json.loads((folder / "tasks.json").read_text(encoding="utf-8")))
    (folder / "export.json").write_text(json.dumps(export))
    teach = ["import-labels", str(folder / "export.json"), "--add-to", model]
    assert main([*teach, "--out", str(folder / "labelled")]) == 1
    told = capsys.readouterr()
    assert "1 image of 1 class; 2 without a label, 1 that cannot be used" in told.out
    assert "learned 1 image; to go back: fewshot undo" in told.out
    assert "several labels: 'owl', 'temple'" in told.err
    (link,) = (folder / "labelled" / "temple").iterdir()
    assert link.resolve() == Path(export[0]["data"]["path"]).resolve()
    assert FewShotImageClassifier.load(model).n_support_.tolist() == [2, 3]
    assert main(teach) == 1
    assert "has learned all of them already" in capsys.readouterr().out
    # The label is corrected.
    export[0]["annotations"][0]["result"][0]["value"]["choices"] = ["owl"]
    (folder / "export.json").write_text(json.dumps(export[:1]))
    assert main(teach) == 0
    assert "learned 1 image, and forgot 1 under another label" in capsys.readouterr().out
    after = FewShotImageClassifier.load(model)
    assert dict(zip(after.classes_.tolist(), after.n_support_.tolist(), strict=True)) == {
        "flower": 2, "owl": 1, "temple": 2,
    }  # fmt: skip


def test_all_labels_of_a_classifier_may_be_corrected_at_once(made, capsys):
    folder, _ = made
    model = str(folder / "model")
    assert main(["export-labels", "--model", model, "--format", "csv", "--out", str(folder / "t.csv")]) == 0
    text = (folder / "t.csv").read_text().replace("temple,,", "a,,").replace("flower,,", "b,,")
    (folder / "t.csv").write_text(text)
    assert main(["import-labels", str(folder / "t.csv"), "--add-to", model]) == 0
    after = FewShotImageClassifier.load(model)
    assert (after.classes_.tolist(), after.n_support_.tolist()) == (["a", "b"], [2, 2])


def test_classes_that_a_slip_of_the_pen_has_made_are_told(made, capsys):
    folder, paths = made
    (folder / "t.csv").write_text(f"path,label\n{paths[0]},Temple\n{paths[1]},tempel\n{paths[6]},flower\n")
    assert main(["import-labels", str(folder / "t.csv"), "--add-to", str(folder / "model")]) == 0
    told = capsys.readouterr().out
    assert "2 new classes: 'Temple', beside 'temple'; 'tempel'\nlearned 3 images; to go back" in told


def test_labels_are_corrected_from_any_folder(made, capsys, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    learned = [f"learned/{name}/0{i}.png" for name, i in (("temple", 0), ("temple", 1), ("flower", 2), ("flower", 3))]
    labels = ["temple"] * 2 + ["flower"] * 2
    FewShotImageClassifier(quick_embedder()).fit(learned, labels).save("here")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    Path("fix.csv").write_text(f"path,label\n../{learned[1]},flower\n../{learned[2]},flower\n")
    assert main(["import-labels", "fix.csv", "--add-to", "../here"]) == 0
    assert "learned 1 image, and forgot 1 under another label" in capsys.readouterr().out
    after = FewShotImageClassifier.load(folder / "here")
    found = dict(zip(after.support_.ids, after.support_.labels.tolist(), strict=True))
    assert found == {learned[0]: "temple", f"../{learned[1]}": "flower", learned[2]: "flower", learned[3]: "flower"}
    assert main(["import-labels", "fix.csv", "--add-to", "../here"]) == 0
    assert "has learned all of them already" in capsys.readouterr().out
    # A relative path of another folder does not stand for another image of that name.
    write_photos(folder / "sub" / "learned", 2, seed=8)
    Path("new.csv").write_text(f"path,label\n{learned[0]},temple\n")
    assert main(["import-labels", "new.csv", "--add-to", "../here"]) == 0
    assert "learned 1 image; to go back" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["folders", "fiftyone", "label-studio"])
def test_what_needs_files_refuses_pictures_of_the_page_and_names_the_table(made, capsys, format):
    folder, _ = made
    model = from_the_page(folder)
    assert main(["export-labels", "--model", model, "--format", format, "--out", str(folder / "x.json")]) == 2
    told = capsys.readouterr().err
    assert f"IMG_1.JPG {'a' * 16} was learned, but is not a file here (4 of 5 images are not); work in the" in told
    assert told.endswith("or give --format csv, which writes their names and labels\n")
    assert not (folder / "x.json").exists()


def test_labels_of_the_page_are_written_as_a_table_of_names(made, capsys):
    folder, _ = made
    table, model = folder / "t.csv", from_the_page(folder)
    with pytest.warns(UserWarning, match="^4 of 5 images are no files here; the table has their names$"):
        assert main(["export-labels", "--model", model, "--format", "csv", "--out", str(table)]) == 0
    told = capsys.readouterr()
    assert "5 images, 5 labels, 0 answers" in told.out
    assert "import-labels" not in told.out  # which needs files
    rows = [(row["path"], row["label"]) for row in csv.DictReader(table.read_text().splitlines())]
    assert rows == [
        ("learned/temple/00.png", "owl"),  # a file, as seen from the table
        (f"IMG_1.JPG {'a' * 16}", "owl"), (f"IMG_1.JPG {'b' * 16}", "jay"),  # two of one name
        ("IMG_2.JPG", "jay"), ("old/3.png", "owl"),
    ]  # fmt: skip


def from_the_page(folder):
    """Return a classifier of a file, three pictures as the page names them, and an image that is gone."""
    names = [f"IMG_1.JPG {'a' * 16}", f"IMG_1.JPG {'b' * 16}", f"IMG_2.JPG {'c' * 16}", "old/3.png"]
    paths = write_photos(folder / "learned", 3, seed=6)[:5]
    labels = ["owl", "owl", "jay", "jay", "owl"]
    model = FewShotImageClassifier(quick_embedder()).fit(paths, labels, ids=[paths[0], *names])
    model.save(folder / "page")
    return str(folder / "page")


def test_tables_in_other_folders_are_read_alike(made, capsys, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    Path("sub").mkdir()
    assert main(["suggest", "model", "pool", "-k", "3", "--csv", "sub/next.csv"]) == 0
    rows = list(csv.DictReader(Path("sub/next.csv").read_text().splitlines()))
    images = [row["image"] for row in rows]
    labelled = ["temple ", "  ", ""]
    lines = [f"{image},{label}" for image, label in zip(images, labelled, strict=True)]
    Path("sub/labelled.csv").write_text("\n".join(["path,label", *lines, "pool/gone.png,temple"]))
    assert main(["import-labels", "sub/labelled.csv", "--out", "sub/pool.csv"]) == 1
    told = capsys.readouterr()
    assert "1 image of 1 class; 2 without a label, 1 that cannot be used" in told.out
    assert "pool/gone.png: there is no such file in sub or the working directory; give the folder" in told.err
    assert "as --images FOLDER, or work there" in told.err
    assert main(["import-labels", "sub/labelled.csv", "--images", "sub", "--out", "x.csv"]) == 2
    Path("sub/pool").mkdir()
    shutil.copy(images[0], "sub/pool/beside.png")
    Path("sub/own.csv").write_text("path,label\npool/beside.png,owl\n")
    export = ["export-labels", "sub/next.csv", "sub/own.csv", "--format", "label-studio", "--out", "tasks.json"]
    assert main(export) == 0
    tasks = json.loads(Path("tasks.json").read_text())
    assert [task["data"]["path"] for task in tasks] == [
        *(str(folder / image) for image in images), str(folder / "sub/pool/beside.png"),
    ]  # fmt: skip
    assert main([*export, "--model", "model"]) == 0
    interface = Path("tasks.xml").read_text()
    assert [f'value="{label}"' in interface for label in ("flower", "owl", "temple")] == [True] * 3


def test_classes_that_are_numbers_stay_numbers(made, capsys):
    folder, paths = made
    FewShotImageClassifier(quick_embedder()).fit(paths[:2], [7, 30]).save(folder / "numbers")
    for label, status in (("30", 0), ("owl", 2)):
        (folder / "t.csv").write_text(f"path,label\npool/{Path(paths[3]).parent.name}/03.png,{label}\n")
        assert main(["import-labels", str(folder / "t.csv"), "--add-to", str(folder / "numbers")]) == status
    assert "not a whole number" in capsys.readouterr().err
    assert FewShotImageClassifier.load(folder / "numbers").n_support_.tolist() == [1, 2]


def test_a_table_of_a_spreadsheet_is_imported_by_the_names_of_its_columns(made, capsys):
    folder, _ = made
    rows = ["Datei;Klasse;Notiz", "pool/temple/03.png;Tempel ;", "pool/flower/03.png", ";;", ""]
    (folder / "t.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    read = ["import-labels", str(folder / "t.csv"), "--out", str(folder / "out.csv")]
    assert main(read) == 2
    told = (
        "columns Datei, Klasse, Notiz; expected path and label, or other names, given as --path-column NAME and --field"
    )
    assert told in capsys.readouterr().err
    assert main([*read, "--path-column", "Datei", "--label-column", "Klasse"]) == 0
    assert "1 image of 1 class; 1 without a label, 0 that cannot be used" in capsys.readouterr().out
    assert "temple/03.png,Tempel," in (folder / "out.csv").read_text()
    assert main([*read, "--field", "Klasse", "--label-column", "Klasse"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["import-labels", str(folder / "pool"), "--out", "x.csv", "--path-column", "Datei"]) == 2
    assert "is no table (.csv); leave out --path-column" in capsys.readouterr().err


def test_answers_that_nobody_has_changed_and_many_that_cannot_be_used_are_told(made, capsys):
    folder, paths = made
    rows = [f"{path},{label},temple" for path, label in ((paths[0], "temple"), (paths[1], "temple"), (paths[2], "owl"))]
    gone = [f"gone{i}.png,owl,temple" for i in range(25)]
    (folder / "t.csv").write_text("\n".join(["path,label,likeliest", *rows, *gone]))
    json_file = folder / "all.json"
    with pytest.warns(UserWarning, match="^2 of 28 labels left as the classifier gave them; what you have not"):
        assert (
            main(["import-labels", str(folder / "t.csv"), "--out", str(folder / "o.csv"), "--json", str(json_file)])
            == 1
        )
    told = capsys.readouterr().err
    assert told.count("gone") == 10
    assert "15 more that cannot be used; --json FILE names all" in told
    assert len(json.loads(json_file.read_text())["unusable"]) == 25


@pytest.mark.parametrize("mark", ["unknown", "none of these"])
def test_what_is_still_unknown_in_a_corrected_table_of_answers_is_no_label(made, capsys, mark):
    folder, _ = made
    table, model = folder / "answers.csv", folder / "model"
    asked = ["predict", str(model), str(folder / "pool"), "--csv", str(table), "--decimal-comma"]
    assert main(["calibrate", str(model), "--reject", "5", "--unknown-label", mark]) == 0
    assert main(asked) == 0
    with open(table, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    for row, label in zip(rows, ("owl", *[mark] * 10, "temple"), strict=True):  # as a person corrects and leaves them
        row["label"] = label
    with open(table, "w", encoding="utf-8-sig", newline="") as file:
        csv.DictWriter(file, rows[0], delimiter=";").writerows([dict(zip(rows[0], rows[0], strict=True)), *rows])
    capsys.readouterr()
    read = ["import-labels", str(table)]
    assert [row["likeliest"] for row in rows].count("owl") == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main([*read, "--add-to", str(model)]) == 0
    left = "1 of 12 labels left as the classifier gave them"
    assert any(left in str(one.message) for one in caught) == (rows[-1]["likeliest"] == "temple")
    assert "2 images of 2 classes; 10 without a label" in capsys.readouterr().out
    after = FewShotImageClassifier.load(model)
    assert dict(zip(after.classes_, after.n_support_, strict=True)) == {"flower": 2, "owl": 1, "temple": 3}
    if mark == "unknown":  # without a classifier, only the usual answer is known
        assert main([*read, "--out", str(folder / "labelled")]) == 0
        assert sorted(path.name for path in (folder / "labelled").iterdir()) == ["owl", "temple"]


def test_a_label_unknown_that_is_no_answer_is_a_class(made, capsys):
    folder, paths = made
    (folder / "t.csv").write_text(f"path,label\n{paths[0]},unknown\n")
    assert main(["import-labels", str(folder / "t.csv"), "--add-to", str(folder / "model")]) == 0
    assert "unknown" in FewShotImageClassifier.load(folder / "model").classes_


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_is_that_of_its_class_in_whatever_unicode_form_it_was_saved(made, capsys, form):
    folder, paths = made
    known = unicodedata.normalize(form, "Wälder")
    FewShotImageClassifier(quick_embedder()).fit(paths[:2], [known, "a"]).save(folder / "forest")
    for typed in ("NFC", "NFD"):
        (folder / "t.csv").write_text(f"path,label\n{paths[2]},{unicodedata.normalize(typed, 'Wälder')}\n")
        assert main(["import-labels", str(folder / "t.csv"), "--add-to", str(folder / "forest")]) == 0
    after = FewShotImageClassifier.load(folder / "forest")
    assert (after.classes_.tolist(), after.n_support_.tolist()) == ([known, "a"], [2, 1])


def test_a_table_of_labels_can_be_fitted(made, capsys):
    folder, _ = made
    out = str(folder / "pool" / "labels.csv")
    assert main(["import-labels", str(folder / "pool"), "--out", out]) == 0
    fit = ["fit", out, "--out", str(folder / "new"), "--backbone", "conv4", "--weights", "random", "--size", "32"]
    assert main(fit) == 0
    assert "learned 2 classes from 12 images" in capsys.readouterr().out


def saved_by_excel(path, kind):
    """Save a CSV file again as Excel would, in a country where numbers have a comma or as Unicode text."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))
    encoding, separator = {"csv": ("utf-8-sig", ";"), "text": ("utf-16", "\t")}[kind]
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\r\n").writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "text"])
def test_labels_go_through_excel_and_come_back(kind, made, capsys):
    folder, _ = made
    label, table = "=Möwe", str(folder / "labels.csv")
    assert main(["rename", str(folder / "model"), "flower", label]) == 0
    export = ["export-labels", "--model", str(folder / "model"), "--format", "csv", "--out", table, "--decimal-comma"]
    assert main(export) == 0
    raw = Path(table).read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfpath;label;answer;probability\n")
    assert f";'{label};".encode() in raw  # no formula
    saved_by_excel(table, kind)
    again = str(folder / "again.csv")
    assert main(["import-labels", table, "--out", again, "--spreadsheet"]) == 0
    assert Path(again).read_bytes().startswith(b"\xef\xbb\xbfpath,label,")
    for place in (table, again):  # what was learned is recognised, and nothing is learned under a guarded label
        assert main(["import-labels", place, "--add-to", str(folder / "model")]) == 0
        assert "has learned all of them already" in capsys.readouterr().out
    fit = ["fit", again, "--out", str(folder / "new"), "--backbone", "conv4", "--weights", "random", "--size", "32"]
    assert main(fit) == 0
    assert set(FewShotImageClassifier.load(folder / "new").classes_) == {label, "temple"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("export-labels --format csv --out x.csv", "nothing to export"),
        ("export-labels {pool} --format csv --out x.csv --copy", "--copy is for --format folders"),
        ("export-labels {pool} --format folders --out x --root /", "--root is for --format label-studio"),
        ("export-labels {pool} --format folders --out x --spreadsheet", "--spreadsheet is for --format csv"),
        ("import-labels {pool} --out x --decimal-comma", "--decimal-comma is for a table (.csv), and --out names none"),
        ("import-labels {pool} --out x.csv --copy", "--copy is for folders, and --out names none"),
        ("import-labels {pool}", "--out PATH, --add-to DIR"),
        ("import-labels {gone} --out x.csv", "does not exist"),
        ("suggest {gone}", "no such file"),
        ("suggest {pool} {pool} --size 9", "--size is for a folder without DIR"),
        ("suggest {pool} {pool} --from x", "--from is for a folder without DIR"),
    ],
)
def test_a_mistake_is_one_sentence(command, message, made, capsys, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    names = {"pool": folder / "pool", "gone": folder / "gone"}
    assert main([word.format(**names) for word in command.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "x").exists()
    assert not (folder / "x.csv").exists()
