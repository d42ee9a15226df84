"""``fewshot suggest``."""

import csv
import json
import shutil

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
