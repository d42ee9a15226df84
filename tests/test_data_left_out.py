"""Files that are left out are told by kind, with what helps."""

import pytest
from PIL import Image

from fewshot import LabeledImages
from fewshot.data.left_out import LeftOut
from fewshot.data.scan import list_images


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.docx", "b.PDF", "c.docx"], "2 .docx, 1 .pdf (save the pictures in documents as JPEG or PNG)"),
        (["a.txt", "b.txt", "c.md", ".hidden.txt"], "2 .txt, 1 .md"),
        (["a.dcm", "b.xlsx"],
         "1 .dcm, 1 .xlsx (convert images to JPEG or PNG; save the pictures in documents as JPEG or PNG)"),
        (["thumbs.sqlite", "Thumbs.db", "own.db"], "1 .db, 1 .sqlite (convert images to JPEG or PNG)"),
    ],
)  # fmt: skip
def test_documents_are_told_with_what_helps(tmp_path, names, told):
    (tmp_path / "cat").mkdir()
    for name in names:
        (tmp_path / "cat" / name).write_text("x")
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "1.png")
    for read in (LabeledImages.from_folder, list_images):
        with pytest.warns(UserWarning, match="left out") as warned:
            read(tmp_path)
        assert [str(one.message) for one in warned] == [f"{tmp_path}: left out: {told}"]


def test_nothing_left_out_is_nothing_to_tell():
    left = LeftOut()
    for name in ("table.csv", "report.html", "README", "desktop.ini", "encoder.onnx"):
        left.note(name)
    assert left.summary() == ""
    left.loose = 2
    assert left.summary() == "left out: 2 images in no class folder"
