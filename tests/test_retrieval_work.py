"""Annotating a folder removes nothing of others, takes no shard that is not its own, and tells mistakes early."""

import base64
import errno
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fewshot import FewShotImageClassifier, annotate
from fewshot.errors import MissingExtraError, StoreError
from fewshot.retrieval import work
from fewshot.retrieval.shards import ParquetTable
from fewshot.retrieval.work import annotate_folder
from fewshot.utils.executors import Serial
from fewshot.utils.spreadsheet import CsvForm
from tests.abandoned import leave_partial
from tests.photographs import quick_embedder, write_photos


@pytest.fixture
def places(tmp_path):
    """A folder of 12 images, a saved classifier, and where the table is to be."""
    paths = write_photos(tmp_path / "photos", 6)
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    model.fit(paths[::3], [path.split("/")[-2] for path in paths[::3]]).save(tmp_path / "model")
    return tmp_path / "photos", tmp_path / "model", tmp_path / "all.parquet"


def stop(places, monkeypatch):
    """Annotate until three of four shards are there."""

    def fails(opened, paths):
        if paths[0].endswith("03.png"):
            raise RuntimeError("no luck")
        return annotate(opened, paths)

    with monkeypatch.context() as patched:
        patched.setattr(work, "annotate", fails)
        with pytest.raises(StoreError, match="1 of 4 shards failed, first shard 3"):
            annotate_folder(*places, shard=3, progress=False)


def test_a_table_for_people_is_csv_without_vectors(places):
    folder, model, out = places
    (folder / "broken, or not.png").write_bytes(b"no picture")
    assert annotate_folder(folder, model, out.with_suffix(".csv"), shard=3, progress=False)["unreadable"] == 1
    annotate_folder(folder, model, out, shard=3, progress=False)
    frame, same = pd.read_csv(out.with_suffix(".csv")), pq.read_table(out).to_pandas()
    assert frame["id"].tolist() == same["id"].tolist()
    assert frame["label"].fillna("").tolist() == same["label"].fillna("").tolist()
    np.testing.assert_allclose(frame["probability"], same["probability"], atol=1e-6)
    assert not {"vector", "embedder"} & set(frame.columns)
    assert frame["error"].notna().sum() == 1


def test_a_table_for_a_spreadsheet_needs_no_pyarrow_and_goes_on_where_it_was_stopped(places, monkeypatch):
    folder, model, out = places
    out, form = out.with_suffix(".csv"), CsvForm(True, True)
    shards = out.with_name("all.csv.shards")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyarrow", None)  # which pandas needs below
        with pytest.raises(MissingExtraError, match="need pyarrow"):
            annotate_folder(*places, progress=False)
        stop((folder, model, out), patched)
        (shards / "000000.json").write_text((shards / "000000.json").read_text().replace("flower", "temple"))
        done = annotate_folder(folder, model, out, shard=3, progress=False, form=form)
    assert done["resumed"] == 2  # one was damaged
    assert not shards.exists()
    text = out.read_text(encoding="utf-8")
    assert text.startswith("\ufeffid;label;likeliest;probability;unknown;")
    frame = pd.read_csv(out, sep=";", decimal=",")
    expected = FewShotImageClassifier.load(model).predict([str(folder / name) for name in frame["id"]]).tolist()
    assert frame["label"].tolist() == frame["likeliest"].tolist() == expected
    assert frame["probability"].between(0.5, 1).all()


@pytest.mark.parametrize("name", ["mine.parquet", "notes.txt", "0.parquet", "mine/000000.parquet"])
@pytest.mark.parametrize("has_plan", [False, True])
def test_a_folder_that_holds_what_no_run_made_is_refused_and_left_alone(places, monkeypatch, name, has_plan):
    if has_plan:
        stop(places, monkeypatch)
    mine = places[2].with_name("all.parquet.shards") / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"mine")
    there = sorted(places[0].parent.rglob("*"))
    monkeypatch.setattr(work, "annotate", None)  # nothing is embedded
    with pytest.raises(StoreError, match=f"holds '{name.partition('/')[0]}', which is not a shard; move it away"):
        annotate_folder(*places, shard=3, progress=False)
    assert sorted(places[0].parent.rglob("*")) == there
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["plan.json", "000000.parquet"])
def test_a_pipe_among_the_shards_keeps_no_run_waiting(places, name):
    shards = places[2].with_name("all.parquet.shards")
    shards.mkdir()
    os.mkfifo(shards / name)
    with pytest.raises(ValueError, match=f"{name} is a link or not a regular file, and would be written to; remove it"):
        annotate_folder(*places, shard=3, progress=False)


def test_what_is_put_among_the_shards_meanwhile_stays(places, monkeypatch):
    mine = places[2].with_name("all.parquet.shards") / "notes.txt"
    write = ParquetTable.write
    monkeypatch.setattr(ParquetTable, "write", lambda *a: mine.write_text("mine") and write(*a))
    annotate_folder(*places, progress=False)
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]


def test_parts_of_files_that_a_killed_run_has_left_are_removed(places):
    shards = places[2].with_name("all.parquet.shards")
    shards.mkdir()
    for name in (".plan.json.99999999-34.partial", ".000000.parquet.99999999-34.partial", "000007.parquet"):
        (shards / name).write_bytes(b"part")
    leave_partial(shards / "000001.parquet")
    leave_partial(places[2])
    others = leave_partial(places[2].with_name("other.parquet"))
    annotate_folder(*places, progress=False)
    assert not shards.exists()
    assert list(places[2].parent.glob(".*")) == [others]


@pytest.mark.parametrize("out", ["", ".", "photos", "photos/"])
def test_a_folder_is_no_place_for_a_table(places, monkeypatch, out):
    monkeypatch.chdir(places[0].parent)
    monkeypatch.setattr(work, "_model", None)  # nothing is loaded
    with pytest.raises(ValueError, match=f"out is '{out}', a folder; expected the name of a file"):
        annotate_folder("photos", "model", out, progress=False)
    assert sorted(os.listdir()) == ["model", "photos"]


def test_a_table_has_any_name(places):
    out = os.fsdecode(os.fsencode(places[2].parent) + b"/\xe9.parquet")
    assert annotate_folder(*places[:2], out, progress=False)["images"] == 12
    with open(out, "rb") as file:
        assert pq.read_table(file).num_rows == 12


def damaged(shards):
    """Yield what may lie in the place of the first shard."""
    first, content = pq.read_table(shards / "000000.parquet"), (shards / "000000.parquet").read_bytes()
    yield from (b"", content[:-20], content[:4] + bytes(400) + content[404:])
    yield (shards / "000001.parquet").read_bytes()
    for other in (first.replace_schema_metadata({"fewshot": "{}"}), first.select(["id"]), first.select(["vector"])):
        pq.write_table(other, shards.parent / "other")
        yield (shards.parent / "other").read_bytes()


def test_a_shard_that_is_damaged_or_of_other_images_is_made_again(places, monkeypatch):
    whole, shards = places[2].with_name("whole.parquet"), places[2].with_name("all.parquet.shards")
    annotate_folder(*places[:2], whole, shard=3, progress=False)
    stop(places, monkeypatch)
    for i, content in enumerate(damaged(shards)):
        out = places[2].with_name(f"{i}.parquet")
        shutil.copytree(shards, out.with_name(f"{i}.parquet.shards"))
        (out.with_name(f"{i}.parquet.shards") / "000000.parquet").write_bytes(content)
        assert annotate_folder(*places[:2], out, shard=3, progress=False)["resumed"] == 2, i
        assert pq.read_table(out).equals(pq.read_table(whole)), i


class Elsewhere(Serial):
    """Works in another folder, as processes of another machine do."""

    def map(self, function, tasks):
        os.chdir("/")
        return super().map(function, tasks)


def test_relative_paths_are_those_of_the_caller_and_the_same_work_as_absolute_ones(places, monkeypatch):
    monkeypatch.chdir(places[0].parent)
    annotate_folder("photos", "model", "whole.parquet", shard=3, progress=False)
    monkeypatch.setattr(work, "make_executor", lambda *_: Elsewhere())
    stop(("photos", "model", places[2]), monkeypatch)
    assert annotate_folder(*places, shard=3, progress=False)["resumed"] == 3
    assert pq.read_table(places[2]).equals(pq.read_table(places[2].with_name("whole.parquet")))


def test_a_pipe_is_sent_the_table_and_nothing_is_left_beside_it(places, monkeypatch):
    pipe, got = places[2].with_name("pipe"), places[2].with_name("got.parquet")
    monkeypatch.setattr(work.tempfile, "tempdir", str(places[0].parent / "temporary"))
    os.mkdir(work.tempfile.tempdir)
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.write_bytes(pipe.read_bytes()))
    reader.start()
    annotate_folder(places[0], places[1], pipe, shard=3, progress=False)
    reader.join(30)
    assert pq.read_table(got).num_rows == 12
    assert pipe.is_fifo()
    assert os.listdir(work.tempfile.tempdir) == []
    assert sorted(os.listdir(pipe.parent)) == ["got.parquet", "model", "photos", "pipe", "temporary"]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O")]
)
def test_what_says_nothing_of_an_image_stops_and_the_finished_shards_are_kept(places, monkeypatch, error):
    read = Path.read_bytes

    def fails(path):
        if path.name == "07.png":
            raise error
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        with pytest.raises(StoreError, match=r"1 of 4 shards failed, .*07\.png: .* .the image may be intact"):
            annotate_folder(*places, shard=3, progress=False)
    assert not places[2].exists()
    assert annotate_folder(*places, shard=3, progress=False) == {"images": 12, "unreadable": 0, "resumed": 3}


def test_a_data_url_is_no_name():
    url = "data:image/png;base64," + base64.b64encode(b"no image").decode()
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    model.fit([np.zeros((9, 9), np.uint8), np.full((9, 9), 99, np.uint8)], ["a", "b"])
    assert [(one.id, one.vector) for one in annotate(model, [url])] == [("0", None)]
