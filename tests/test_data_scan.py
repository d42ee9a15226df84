import io
import os
import re
import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import LabeledImages
from fewshot.data.decode import decode
from fewshot.data.images import list_splits
from fewshot.data.packed import write_packed
from fewshot.data.scan import list_images, list_marked, read_csv, read_image_table, scan_folder
from fewshot.errors import ImageDecodeError


def put(root, *names):
    """Write a tiny image at each place below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)


def found(root):
    """Return {label: names of its files}."""
    paths, labels = scan_folder(root)
    return {
        label: [os.path.basename(p) for p, of in zip(paths, labels, strict=True) if of == label] for label in labels
    }


def test_the_first_folder_is_the_label_and_the_order_is_that_of_the_names(tmp_path):
    put(tmp_path, "dog/2.png", "cat/10.png", "cat/deep/er/1.JPG", "cat/2.png")
    assert found(tmp_path) == {"cat": ["10.png", "2.png", "1.JPG"], "dog": ["2.png"]}
    assert [os.path.basename(p) for p in list_images(tmp_path / "cat")] == ["10.png", "2.png", "1.JPG"]


def test_row_64_hidden_files_and_those_of_other_kinds_are_passed_over(tmp_path):
    put(tmp_path, "cat/1.png", "cat/._1.png", ".git/1.png", "cat/.thumbnails/1.png")
    for name in ("cat/.DS_Store", "cat/Thumbs.db", "cat/notes.txt", "cat/1.npy", "loose.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert found(tmp_path) == {"cat": ["1.png"]}
    assert len(list_images(tmp_path)) == 1


def test_row_62_links_that_lead_round_and_what_is_no_file_are_passed_over(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "cat" / "itself").symlink_to("itself")
    (tmp_path / "cat" / "itself.png").symlink_to("itself.png")
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "cat" / "folder.png").mkdir()
    (tmp_path / "round").symlink_to("round")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert found(tmp_path) == {"cat": ["1.png"], "dog": ["1.png"]}
    assert len(list_images(tmp_path)) == 2


def test_row_62_links_to_files_and_to_folders_elsewhere_are_followed_once(tmp_path):
    put(tmp_path, "elsewhere/1.png", "data/cat/1.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "2.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "data" / "dog2").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="skipped 1 folder without an image in .*: 'dog2'"):
        assert found(tmp_path / "data") == {"cat": ["1.png", "2.png"], "dog": ["1.png"]}


def test_row_64_class_folders_that_differ_in_case_are_two_classes_with_a_warning(tmp_path):
    put(tmp_path, "Cat/1.png", "cat/1.png")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system holds one folder of these names")
    with pytest.warns(UserWarning, match="differ only in case"):
        assert set(found(tmp_path)) == {"Cat", "cat"}


def test_labels_of_a_table_that_differ_in_case_or_blanks_are_told(tmp_path, recwarn):
    labels = ["Grey owl", "grey  owl", "a", "A", "Orchidée", "Orchidee", "が", "か", "é", "e", "की", "का"]
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels})
    assert len(set(read_image_table(table, tmp_path, None, False)[1])) == len(labels)
    told, accent = recwarn  # "a" and "A" are characters, and marks of other scripts make other words
    assert "the labels 'Orchidée' and 'Orchidee' in the table differ only in" in str(accent.message)
    assert "the labels 'Grey owl' and 'grey  owl' in the table differ only in case" in str(told.message)


def test_names_of_class_folders_are_of_one_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Wälder") for form in ("NFC", "NFD"))
    put(tmp_path, f"{decomposed}/1.png")
    assert found(tmp_path) == {composed: ["1.png"]}
    put(tmp_path, f"{composed}/2.png")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system holds one folder of these names")
    with pytest.warns(UserWarning, match="two class folders in .* are called 'Wälder', in two Unicode forms; they are"):
        assert {label: sorted(names) for label, names in found(tmp_path).items()} == {composed: ["1.png", "2.png"]}


def test_distinct_classes_warn_of_nothing(tmp_path):
    put(tmp_path, "cat/1.png", "cats/1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ("1890/cat/1.png", "1890/owl/1.png", "1910/ox/1.png"),
            "'1890' is one class, of 2 .*'cat', 'owl'.* in one",
        ),
        (("pets/cat/1.png", "pets/owl/1.png"), r"'pets' is one class, of 2 folders .*, give \S*pets$"),
        (("a/b/cat/1.png", "a/b/owl/1.png"), r"'a' is one class, .*, give \S*a.b$"),
        (("a/x/1.png", "a/y/1.png", "b/x/1.png", "b/y/1.png"), "'a' is one class, of 2 folders .*, and so are 1 more"),
        (("cat/1.png", "cat/young/2.png", "cat/old/3.png", "owl/1.png"), ""),
        (("cat/images/1.png", "owl/images/1.png"), ""),
    ],
)
@pytest.mark.parametrize("here", [False, True])
def test_classes_that_lie_one_level_deeper_are_noticed(tmp_path, monkeypatch, here, names, told):
    put(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labels = set(scan_folder("." if here else tmp_path)[1].tolist())
    assert labels == {name.partition("/")[0] for name in names}
    assert len(caught) == bool(told)
    assert not told or re.search(told, str(caught[0].message))


def test_a_saved_classifier_is_no_folder_of_classes(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "weights-1.safetensors").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"is a saved classifier; expected one folder of images per class"):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("names", "where", "reason"),
    [
        ((), "", "holds no images; expected one folder of images per class"),
        (("1.png", "2.png"), "", "holds 2 images but no class folders"),
        (("1.png",), "1.png", "is a file; expected a folder"),
        ((), "none", "does not exist; expected a folder"),
    ],
)
def test_a_folder_without_classes_is_told_in_a_sentence(tmp_path, names, where, reason):
    put(tmp_path, *names)
    with pytest.raises(ValueError, match=reason):
        scan_folder(tmp_path / where)
    if where:
        with pytest.raises(ValueError, match=reason):
            list_images(tmp_path / where)


def test_only_empty_class_folders_are_no_classes(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        scan_folder(tmp_path)


def test_labels_of_a_table_stay_the_text_that_they_are(tmp_path):
    labels = ["NA", "001", "null", "1e5", "nan", "None", "True", "a b", "café", "3.0"]
    rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    (tmp_path / "t.csv").write_text("path,label\n" + rows, encoding="utf-8-sig")
    data = LabeledImages.from_table(tmp_path / "t.csv")
    assert data.labels.tolist() == labels
    assert data.images.tolist() == [str(tmp_path / f"{i}.png") for i in range(len(labels))]


def test_labels_of_a_table_that_look_the_same_are_one_class(tmp_path):
    labels = ["Wälder", "Wälder ", unicodedata.normalize("NFD", "Wälder"), " Wälder\N{NO-BREAK SPACE}"]
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(4)], "label": labels})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for table in (tmp_path / "t.csv", frame):
        assert LabeledImages.from_table(table).labels.tolist() == [unicodedata.normalize("NFC", "Wälder")] * 4
    (tmp_path / "t.csv").write_text("path,label\na.png,x\nb.png, \n")
    with pytest.raises(ValueError, match="has no label in row 3"):
        LabeledImages.from_table(tmp_path / "t.csv")


def test_the_rows_of_one_split_are_taken(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,split\na.png,x,train\nb.png,y,test\nc.png,z,train\n")
    assert LabeledImages.open(tmp_path / "t.csv", "train").labels.tolist() == ["x", "z"]
    assert len(LabeledImages.open(tmp_path / "t.csv")) == 3
    with pytest.raises(ValueError, match=r"t\.csv has no split 'val'; it has test, train"):
        LabeledImages.open(tmp_path / "t.csv", "val")


@pytest.mark.parametrize("names", ["path,label", "image,class", "File,Label", "x,y,w,h,filename,category"])
def test_columns_of_usual_names_are_found(tmp_path, names):
    boxes = ",,,," if "w" in names.split(",") else ""
    (tmp_path / "t.csv").write_text(f"{names}\n{boxes}a.png,owl\n{boxes}b.png,jay\n")
    data = LabeledImages.from_table(tmp_path / "t.csv")
    assert [os.path.basename(str(image)) for image in data.images] == ["a.png", "b.png"]
    assert data.labels.tolist() == ["owl", "jay"]
    assert [os.path.basename(str(image)) for image in list_marked(tmp_path / "t.csv")] == ["a.png", "b.png"]


def test_answers_of_a_classifier_are_no_labels_unless_their_columns_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("image,label,likeliest\na.png,owl,jay\n")
    with pytest.raises(ValueError, match=r"labels of .*t\.csv are answers of a classifier .* fewshot import-labels"):
        LabeledImages.from_table(tmp_path / "t.csv")
    assert LabeledImages.from_table(tmp_path / "t.csv", label_column="label").labels.tolist() == ["owl"]
    assert len(list_marked(tmp_path / "t.csv")) == 1


@pytest.mark.parametrize(
    ("text", "split", "reason"),
    [
        ("path,Klasse\na.png,x\n", None, r"has no column 'label'; expected path, label.* of LabeledImages.from_table"),
        ("a.png,x\n", None, r"has no column 'path'"),
        ("Datei;label\na.png;x\n", None, r"has no column 'path'; .*; it has 'Datei', 'label'"),
        ("path,label\na.png,x\n", "train", r"has no column 'split', so no split 'train'"),
        ("path,label\na.png,x\nb.png,\n", None, r"has no label in row 3"),
        ("path,label\na.png,x\nb.png\n", None, r"has no label in row 3"),
        ("path,label\na.png,x\n\n,\nb.png,\n", None, r"has no label in row 5"),
        ("path,label\na.png,\nb.png,x\nc.png,\n", None, r"has no label in rows 2, 4; give every row both"),
        ("path,label\n,x\n", None, r"has no path in row 2"),
        ("path,label\na.png,x,train\nb.png,y,test\n", None, r"has more values in a row than names"),
        ("path,label\na.png,x\nb.png,y,test\n", None, r"cannot be read as a CSV file"),
        ("path,x,y,w,h\na.png,1,2,3,4\n", None, r"has no column 'label'"),
        ("", None, r"cannot be read as a CSV file"),
        (b"path,label\na.png,caf\xe9\n", None, r"cannot be read as a CSV file in UTF-8"),
    ],
)
def test_a_table_that_is_incomplete_is_told_in_a_sentence(tmp_path, text, split, reason):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"t\.csv " + reason):
        LabeledImages.from_table(tmp_path / "t.csv", split=split)


def test_a_table_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="does not exist; expected a CSV file"):
        read_csv(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="is a folder; expected a CSV file"):
        read_csv(tmp_path)


def test_row_63_a_path_may_not_lead_out_of_the_root(tmp_path):
    put(tmp_path, "data/in.png", "out.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    (tmp_path / "data2").mkdir()
    outside = ["../out.png", "sub/../../out.png", "link/out.png", str(tmp_path / "out.png"), "../data2/x.png", "/"]
    for path in outside:
        frame = pd.DataFrame({"path": ["in.png", path], "label": ["a", "b"]})
        with pytest.raises(ValueError, match=r"the table names '.*', which lies outside .*/data; .*allow_outside=True"):
            LabeledImages.from_table(frame, root=tmp_path / "data")
        assert len(LabeledImages.from_table(frame, root=tmp_path / "data", allow_outside=True)) == 2
    inside = ["in.png", "./in.png", "link/data/in.png", "sub/../in.png", str(tmp_path / "data" / "in.png"), "..in.png"]
    frame = pd.DataFrame({"path": inside, "label": "a"})
    assert len(LabeledImages.from_table(frame, root=tmp_path / "data")) == len(inside)


def test_relative_paths_start_at_the_root_or_else_at_the_table(tmp_path):
    put(tmp_path, "photos/a.png", "tables/b.png", "tables/photos/a.png")
    table = tmp_path / "tables" / "list.csv"
    table.write_text("path,label\nphotos/a.png,x\n../photos/a.png,x\nb.png,y\nnone.png,y\n")
    found = LabeledImages.from_table(table, root=tmp_path).images.tolist()
    wanted = ["photos/a.png", "tables/../photos/a.png", "tables/b.png", "none.png"]
    assert found == [str(tmp_path / path) for path in wanted]
    with pytest.raises(ValueError, match="lies outside"):
        LabeledImages.from_table(table)


def test_a_data_frame_is_taken_by_its_rows_whatever_its_index(tmp_path):
    frame = pd.DataFrame({"path": list("abcd"), "label": [3, 1, 3, 2], "split": ["x", "y", "x", "y"]})
    frame = frame.set_index(pd.Index([40, 7, 7, 0]))
    data = LabeledImages.from_table(frame, root=tmp_path, split="x")
    assert data.labels.tolist() == [3, 3]
    assert data.images.tolist() == [str(tmp_path / "a"), str(tmp_path / "c")]
    frame.loc[0, "label"] = np.nan
    with pytest.raises(ValueError, match="the table has no label in row 0"):
        LabeledImages.from_table(frame, root=tmp_path)


def test_paths_of_a_frame_count_from_the_working_directory(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    data = LabeledImages.from_table(pd.DataFrame({"path": ["a.png"], "label": ["x"]}))
    assert data.decoded(4, cache=tmp_path).images.shape == (1, 4, 4, 3)


def test_row_61_a_missing_file_is_found_before_anything_is_decoded(tmp_path):
    put(tmp_path, "a.png")
    data = LabeledImages.from_table(pd.DataFrame({"path": ["a.png", "gone.png"], "label": "x"}), root=tmp_path)
    with pytest.raises(ImageDecodeError, match=r"the table, row 1, .*gone\.png: no such file"):
        data.decoded(4, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_open_says_what_it_takes(tmp_path):
    put(tmp_path, "train/cat/1.png", "1.png")
    assert LabeledImages.open(tmp_path, "train").labels.tolist() == ["cat"]
    for outside in ("..", ".", "/", "", "train/cat", str(tmp_path)):
        with pytest.raises(ValueError, match="has no split|holds the splits"):
            LabeledImages.open(tmp_path, outside)
    with pytest.raises(ValueError, match="has no split 'val'; it has train"):
        LabeledImages.open(tmp_path, "val")
    with pytest.raises(ValueError, match=r"1\.png is not a \.csv table; expected"):
        LabeledImages.open(tmp_path / "1.png")
    with pytest.raises(ValueError, match="none does not exist; expected a folder of class folders"):
        LabeledImages.open(tmp_path / "none")


def test_a_link_does_not_take_the_images_of_the_class_it_leads_to(tmp_path):
    for name in ("lynx", "zebra"):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "1.png")
    (tmp_path / "aardvark").symlink_to(tmp_path / "zebra")
    with pytest.warns(UserWarning, match="'aardvark'"):
        assert scan_folder(tmp_path)[1].tolist() == ["lynx", "zebra"]


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


KINDS = ["CR2", "nef", "dng", "arw", "dcm", "svg", "jxl", "mov", "unheard", "exr"]


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


def test_photographs_of_phones_are_images_where_their_package_is(folder):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (40, 30), (200, 30, 30))
    pillow_heif.from_pillow(image).save(folder / "cat" / "phone.HEIC")
    data = LabeledImages.from_folder(folder)
    (path,) = [path for path in data.images.tolist() if path.endswith(".HEIC")]
    assert np.abs(np.asarray(decode(path)).reshape(-1, 3).mean(0) - (200, 30, 30)).max() < 4


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_tables_of_spreadsheets_are_read(tmp_path, separator):
    rows = [["Datei", "Klasse", "split"], ["a.png", "Käse", "train"], ["b, c.png", "Öl", "test"]]
    quoted = [[f'"{cell}"' if "," in cell else cell for cell in row] for row in rows]
    text = "\r\n".join(separator.join(row) for row in quoted)
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = LabeledImages.from_table(tmp_path / "t.csv", path_column="Datei", label_column="Klasse")
    assert data.labels.tolist() == ["Käse", "Öl"]
    assert [os.path.basename(path) for path in data.images.tolist()] == ["a.png", "b, c.png"]


def test_a_table_of_windows_is_read_elsewhere(tmp_path):
    (tmp_path / "Bilder" / "Muenzen").mkdir(parents=True)
    (tmp_path / "Bilder" / "Muenzen" / "1.png").write_bytes(b"")
    (tmp_path / r"a\b.png").write_bytes(b"")
    (tmp_path / "list.csv").write_text("path,label\nBilder\\Muenzen\\1.png,coin\na\\b.png,odd\n")
    paths, _ = read_image_table(tmp_path / "list.csv", None, None, False)
    assert paths.tolist() == [str(tmp_path / "Bilder/Muenzen/1.png"), str(tmp_path / r"a\b.png")]
    (tmp_path / "out.csv").write_text("path,label\n..\\out.csv,coin\n")
    with pytest.raises(ValueError, match="lies outside"):
        read_image_table(tmp_path / "Bilder" / ".." / "out.csv", tmp_path / "Bilder", None, False)


def test_rows_without_a_value_are_skipped(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path;label;split\r\na.png;x;train\r\n;;\r\n\r\nb.png;y;test\r\n ;;\r\n;;\r\n")
    assert LabeledImages.from_table(tmp_path / "t.csv").labels.tolist() == ["x", "y"]
    assert list_splits(tmp_path / "t.csv") == ["train", "test"]
    (tmp_path / "t.csv").write_text("\n\npath;label\na.png;x\n")
    assert LabeledImages.from_table(tmp_path / "t.csv").labels.tolist() == ["x"]


def test_many_kinds_are_one_sentence(folder):
    for i in range(12):
        (folder / "cat" / f"{i}.kind{i % 9}").write_bytes(b"x")
    with pytest.warns(UserWarning, match="left out") as told:
        list_images(folder)
    assert len(told) == 1
    assert "2 .kind0, 2 .kind1, 2 .kind2, 1 .kind3, 1 .kind4, 1 .kind5, 3 of other kinds" in str(told[0].message)


def test_what_lies_beside_images_everywhere_is_not_told(folder):
    for name in ("Thumbs.db", "desktop.ini", "a.parquet", "1.json", "1.XML", "README", ".hidden.heic", "labels.csv"):
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
    (tmp_path / "cat" / "1.dcm").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no images \(left out: 1 \.dcm \(convert"):
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


def test_the_splits_of_every_form_of_data_are_listed(tmp_path):
    for split in ("val", "train"):
        (tmp_path / "folders" / split / "cat").mkdir(parents=True)
        Image.new("L", (3, 3)).save(tmp_path / "folders" / split / "cat" / "1.png")
    (tmp_path / "folders" / "test").mkdir()
    assert list_splits(tmp_path / "folders") == ["train", "val"]
    table = pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"], "split": ["train", "test"]})
    write_packed(tmp_path / "packed", np.zeros((2, 3, 3), np.uint8), table, {})
    table.to_csv(tmp_path / "t.csv", index=False)
    table[["path", "label"]].to_csv(tmp_path / "plain.csv", index=False)
    assert list_splits(tmp_path / "packed") == list_splits(tmp_path / "t.csv") == ["train", "test"]
    for nothing in ("plain.csv", "none.csv", "none", "folders/train"):
        assert list_splits(tmp_path / nothing) == []


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/cat/1.png", "test/dog/1.png"], ["train", "test"]),
        (["TEST/cat/1.png", "Train/dog/1.png", "Validation/owl/1.png"], ["train", "val", "test"]),
        (["training/cat/1.png", "testing/dog/1.png", "valid/owl/1.png"], ["train", "val", "test"]),
        (["valid/cat/1.png", "validation/owl/1.png"], ["val", "validation"]),
        (["train/cat/1.png"], ["train"]),
        (["train/cat/1.png", "test/cat/1.png", "unlabeled/1.png"], ["train", "test"]),
    ],
)
def test_folders_of_splits_are_splits_and_not_classes(tmp_path, names, splits):
    put(tmp_path, *names)
    found = list_splits(tmp_path)
    assert found == splits
    with pytest.raises(ValueError, match=r"holds the splits .*, not classes; name one, such as split='(train|val)'"):
        LabeledImages.open(tmp_path)
    with pytest.raises(ValueError, match="holds the splits"):
        LabeledImages.from_folder(tmp_path)
    for split in found:
        assert set(LabeledImages.open(tmp_path, split).labels) <= {"cat", "dog", "owl"}
    with pytest.raises(ValueError, match="has no split 'tset'; it has"):
        LabeledImages.open(tmp_path, "tset")


@pytest.mark.parametrize(
    "names",
    [
        ["train/1.png", "bus/1.png"],
        ["train/steam/1.png", "bus/1.png"],
        ["train/steam/1.png", "bus/double/1.png", "car/1.png"],
        ["trains/old/1.png", "tests/a/1.png"],
    ],
)
def test_folders_of_classes_are_classes(tmp_path, names):
    put(tmp_path, *names)
    assert list_splits(tmp_path) == []
    assert sorted(LabeledImages.open(tmp_path).classes) == sorted(name.partition("/")[0] for name in names)


def test_classes_that_are_called_as_splits_are_learned_with_a_warning(tmp_path):
    put(tmp_path, "train/1.png", "test/1.png")
    with pytest.warns(UserWarning, match=r"are called 'test' and 'train'; if these are splits, put a folder for each"):
        assert len(LabeledImages.open(tmp_path).classes) == 2
