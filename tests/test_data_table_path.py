"""Paths of tables, which know their rows and, if they lead to nothing, what to do."""

import copy
import json
import pickle

import numpy as np
import pandas as pd
import pytest

from fewshot import FewShotImageClassifier, LabeledImages
from fewshot.data.table_path import table_paths
from fewshot.errors import ImageDecodeError, called
from tests.photographs import quick_embedder, write_photos


def absences(named, root):
    """Return what messages say of each path of a table at `root`, without the start of the sentence."""
    paths = [str(root / name) for name in named]
    found = table_paths(paths, named, "t.csv", range(2, 2 + len(named)), [root])
    return [path.absence for path in found]


def test_a_path_of_a_table_is_text_that_knows_its_row(tmp_path):
    (path,) = table_paths(["a.png"], ["a.png"], "t.csv", [7], [tmp_path])
    assert (path, path.place, called(path)) == ("a.png", "t.csv, row 7", "t.csv, row 7, a.png")
    assert (path.called("b.png"), path.called("b.png").place) == ("b.png", "t.csv, row 7")
    assert json.dumps([path]) == '["a.png"]'
    for plain in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path), np.array([path]).tolist()[0]):
        assert plain == "a.png"
        assert type(plain) is str


def test_the_cure_depends_on_how_many_are_missing_and_on_how_they_are_named(tmp_path):
    (tmp_path / "here.png").touch()
    assert absences(["here.png", "gone.png"], tmp_path) == [f" (looked in {tmp_path})"] * 2
    told = f" (looked in {tmp_path}, which lacks 2 of 3 files of the table); give the folder where its paths begin as"
    assert all(one.startswith(told) for one in absences(["here.png", "gone.png", "lost.png"], tmp_path))
    for absolute in ("/no/such.png", r"C:\Users\such.png"):
        assert absences([absolute], tmp_path) == [
            " (so for 1 of 1 files of the table); restore the files, or correct the paths"
        ]


def test_python_names_the_row_where_it_looked_and_root(tmp_path):
    paths = write_photos(tmp_path / "photos", 2)
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "t.csv"
    frame = pd.DataFrame({"path": [path.removeprefix(f"{tmp_path}/photos/") for path in paths], "label": list("aabb")})
    frame.to_csv(table, index=False)
    data, model = LabeledImages.from_table(table), FewShotImageClassifier(quick_embedder())
    for act in (model.fit, lambda data: model.fit(data[1:]), lambda data: data.decoded(8, cache=tmp_path / "cache")):
        with pytest.raises(
            ImageDecodeError, match=r"t\.csv, row [23], .*which lacks 4 of 4.* as root=FOLDER"
        ) as caught:
            act(data)
        assert "skip" not in "".join(getattr(caught.value, "__notes__", []))
        assert not caught.value.can_skip
    assert len(model.fit(LabeledImages.from_table(table, root=tmp_path / "photos")).classes_) == 2


@pytest.mark.parametrize("boxes", [False, True])
def test_what_cannot_be_read_is_named_by_its_row(tmp_path, boxes):
    write_photos(tmp_path, 1)
    (tmp_path / "bad.png").write_bytes(b"no image")
    columns = ",x,y,w,h" if boxes else ""
    good = "temple/00.png,a" + ",,,," * boxes
    wrong = "temple/00.png,a,0,0,9000,9" if boxes else "bad.png,a"
    (tmp_path / "t.csv").write_text(f"path,label{columns}\n\n{good}\n{wrong}\nflower/01.png,b{',,,,' * boxes}\n")
    with pytest.raises(ImageDecodeError, match=r"t\.csv, row 4, .*(outside the picture|not an image)") as caught:
        FewShotImageClassifier(quick_embedder()).fit(LabeledImages.open(tmp_path / "t.csv"))
    assert caught.value.can_skip
    assert caught.value.index == 1
