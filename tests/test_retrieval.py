"""Vectors and labels of many images, the table they become, and what is found in it."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewshot import FaissStore, FewShotImageClassifier, Record, annotate, retrieve
from fewshot.cli import main
from fewshot.errors import StoreError
from fewshot.retrieval import work
from fewshot.retrieval.shards import ParquetTable
from fewshot.retrieval.table import export_store, import_records, table_facts
from fewshot.retrieval.work import annotate_folder
from tests.photographs import quick_embedder, write_photos
from tests.processes import fewshot


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "photos", 6)
    return tmp_path / "photos"


@pytest.fixture
def model(tmp_path):
    paths = write_photos(tmp_path / "support", 3, seed=1)
    labels = [path.split("/")[-2] for path in paths]
    return FewShotImageClassifier(quick_embedder(), progress=False).fit(paths, labels)


def paths_of(folder):
    return sorted(map(str, folder.rglob("*.png")))


def test_an_annotation_is_what_the_classifier_says(folder, model):
    paths = paths_of(folder)
    found = list(annotate(model, iter(paths), chunk=5))
    assert [one.id for one in found] == paths
    assert [one.label for one in found] == model.predict(paths).tolist()
    np.testing.assert_allclose([one.probability for one in found], model.predict_proba(paths).max(1), rtol=1e-6)
    np.testing.assert_allclose([one.vector for one in found], model.embedder_.transform(paths), rtol=1e-5, atol=1e-6)
    labels, similarities = model.nearest(paths)
    assert [one.nearest for one in found] == labels[:, 0].tolist()
    np.testing.assert_allclose([one.similarity for one in found], similarities[:, 0], rtol=1e-5)
    assert not any(one.unknown or one.error or one.likeliest != one.label for one in found)


def test_the_stream_is_taken_a_chunk_at_a_time(folder, model):
    taken = []
    stream = (taken.append(path) or path for path in itertools.cycle(paths_of(folder)))
    found = annotate(model, stream, chunk=4)
    for _ in range(5):
        next(found)
    assert len(taken) == 8
    with pytest.raises(ValueError, match="chunk is 0; expected at least 1"):
        next(annotate(model, [], chunk=0))


def test_what_cannot_be_read_is_told_and_passed_over_and_what_is_far_is_unknown(folder, model):
    bad = folder / "temple" / "bad.png"
    bad.write_bytes(b"no image")
    found = {one.id: one for one in annotate(model.set_params(reject=2.0), paths_of(folder))}
    broken = found.pop(str(bad))
    assert (broken.vector, broken.label, broken.probability) == (None, None, 0.0)
    assert broken.error
    with pytest.raises(ValueError, match="could not be read"):
        broken.record()
    assert {one.label for one in found.values()} == {"unknown"}  # no cosine is above 2
    assert all(one.unknown and one.nearest in ("temple", "flower") for one in found.values())
    assert [one.likeliest for one in found.values()] == model.set_params(reject=None).predict(list(found)).tolist()
    one = found.popitem()[1]
    assert dict(one.record().payload).keys() == {"likeliest", "probability", "unknown", "nearest"}
    own = {"price": 12.5, "shop": "Oslo"}
    assert one.record(own).payload == {**one.record().payload, **own}
    store = FaissStore("cosine", one.embedder)
    store.add([one.record({"brand": float("nan"), "price": 12.5})])  # an empty cell of a table
    assert store.snapshot()[0].payload == {**one.record().payload, "brand": None, "price": 12.5}
    for name in ("label", "nearest"):
        with pytest.raises(ValueError, match=f"has '{name}', which the annotation gives itself; choose another name"):
            one.record({name: "x"})


def stored(model, paths, metric="cosine"):
    store = FaissStore(metric, model.embedder_.fingerprint, 256)
    store.add(one.record() for one in annotate(model, paths))
    return store


def test_what_is_retrieved_is_near_and_of_the_class_that_is_asked_for(folder, model):
    paths = paths_of(folder)
    store = stored(model, paths)
    found = retrieve(model, store, paths[:3], 4)
    assert [own[0].id for own in found] == paths[:3]
    assert [own[0].similarity for own in found] == pytest.approx([1, 1, 1], abs=1e-5)
    shares = model.predict_proba(paths[:3])
    for own, share in zip(found, shares, strict=True):
        chances = dict(zip(model.classes_.tolist(), share.tolist(), strict=True))
        assert [m.probability for m in own] == pytest.approx([chances[m.label] for m in own], rel=1e-6)
    only = retrieve(model, store, paths[:3], 20, where={"label": "flower"})
    assert {m.label for own in only for m in own} == {"flower"}
    own_class = retrieve(model, store, paths, 20, by_label=True)
    for label, own in zip(model.predict(paths).tolist(), own_class, strict=True):
        assert {m.label for m in own} == {label}


def test_another_embedders_store_is_refused_and_an_unreadable_query_finds_nothing(folder, model):
    paths = paths_of(folder)
    with pytest.raises(StoreError, match="this store holds vectors of the embedder f00d"):
        retrieve(model, FaissStore("cosine", "f00d", 256), paths)
    (folder / "bad.png").write_bytes(b"no image")
    model.set_params(on_error="unknown")
    found = retrieve(model, stored(model, paths), [paths[0], str(folder / "bad.png")], 2)
    assert [len(own) for own in found] == [2, 0]
    assert retrieve(model, stored(model, paths), [str(folder / "bad.png")], 2) == [[]]


def test_a_label_that_is_asked_for_and_that_of_the_query_must_both_fit(folder, model):
    paths = paths_of(folder)
    store, labels = stored(model, paths), model.predict(paths).tolist()
    for where in ({"label": "flower"}, {"label": ["flower", "moss"]}):
        for label, own in zip(labels, retrieve(model, store, paths, 3, where=where, by_label=True), strict=True):
            assert {m.label for m in own} == ({"flower"} if label == "flower" else set())


def test_ids_can_be_given(model):
    images = [np.zeros((8, 8, 3), np.uint8)] * 3
    assert [one.id for one in annotate(model, images, ids=["a", "b", "c"], chunk=2)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="not as many ids as images"):
        list(annotate(model, images, ids=["a", "b"]))


def test_an_annotated_record_belongs_to_its_embedder(folder, model, tmp_path):
    other = FaissStore("cosine", "f00d", 256)
    with pytest.raises(StoreError, match="this store holds vectors of the embedder f00d"):
        other.add(one.record() for one in annotate(model, paths_of(folder)))
    export_store(stored(model, paths_of(folder)), tmp_path / "s.parquet")
    with pytest.raises(StoreError, match="this store holds vectors of the embedder f00d"):
        other.add(import_records(tmp_path / "s.parquet"))
    assert len(other) == 0


def test_shards_that_a_killed_run_has_left_behind_are_not_taken_for_its_own(folder, model, tmp_path):
    model.save(tmp_path / "model")
    left = tmp_path / "all.parquet.shards"
    left.mkdir()
    (left / "000000.parquet").write_bytes(b"of another classifier")  # its plan was removed first
    found = annotate_folder(folder, tmp_path / "model", tmp_path / "all.parquet", progress=False)
    assert found["resumed"] == 0
    assert pq.read_table(tmp_path / "all.parquet").num_rows == len(paths_of(folder))


def test_a_classifier_that_was_replaced_meanwhile_is_not_used(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(StoreError, match="was changed meanwhile; restore it"):
        work.annotate_shard(str(tmp_path / "model"), "of another", "", [], "cpu", False)


def test_names_that_are_no_unicode_and_unknown_labels_of_another_type_have_their_rows(folder, tmp_path):
    paths = paths_of(folder)
    model = FewShotImageClassifier(quick_embedder(), progress=False, reject=2.0, unknown_label="none of these")
    model.fit(paths, [len(path) % 2 for path in paths]).save(tmp_path / "model")
    os.rename(paths[0], os.fsencode(folder) + b"/\xe9.png")
    (folder / "bad.png").write_bytes(b"no image")
    annotate_folder(folder, tmp_path / "model", tmp_path / "all.parquet", progress=False)
    table = pq.read_table(tmp_path / "all.parquet")
    assert "\\xe9.png" in table["id"].to_pylist()
    assert table["label"].type == pa.int64()
    assert table["label"].null_count == len(table)
    assert table["unknown"].to_pylist().count(True) == len(table) - 1


def test_records_travel_as_parquet(tmp_path):
    rng = np.random.default_rng(0)
    labels = ["a", 1, 2.5, True, None, "';--"]
    store = FaissStore("dot", "abc", 4)
    records = [
        Record(f"id {i}", rng.normal(size=4).astype(np.float32), label, {"tags": ["x", 1], "ü": label})
        for i, label in enumerate(labels)
    ]
    store.add(records)
    assert export_store(store, tmp_path / "s.parquet") == 6
    assert table_facts(tmp_path / "s.parquet") == {"fingerprint": "abc", "metric": "dot", "d": 4}
    there = duckdb.sql(f"select id, label, len(vector) from '{tmp_path / 's.parquet'}' order by id limit 1").fetchall()
    assert there == [("id 0", '"a"', 4)]
    for record, expected in zip(import_records(tmp_path / "s.parquet"), records, strict=True):
        assert (record.id, record.label, dict(record.payload)) == (expected.id, expected.label, dict(expected.payload))
        assert type(record.label) is type(expected.label)
        np.testing.assert_array_equal(record.vector, expected.vector)


def test_a_database_opens_the_table_as_it_is(folder, model, tmp_path):
    model.save(tmp_path / "model")
    annotate_folder(folder, tmp_path / "model", tmp_path / "all.parquet", progress=False)
    query = "select label, count(*), max(list_dot_product(vector, vector)) from '{}' where not unknown group by label"
    rows = duckdb.sql(query.format(tmp_path / "all.parquet")).fetchall()
    found = model.predict(paths_of(folder)).tolist()
    assert {label: n for label, n, _ in rows} == {label: found.count(label) for label in set(found)}
    largest = (model.embedder_.transform(paths_of(folder)) ** 2).sum(1).max()
    assert max(square for *_, square in rows) == pytest.approx(largest, rel=1e-4)


def test_other_files_are_no_tables_of_vectors(tmp_path):
    (tmp_path / "text.parquet").write_text("text")
    for name, reason in (("text.parquet", "cannot be read as Parquet"), ("none.parquet", "there is no such file")):
        with pytest.raises(StoreError, match=reason):
            table_facts(tmp_path / name)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(StoreError, match="has no columns 'label'"):
        list(import_records(tmp_path / "other.parquet"))


def test_a_folder_becomes_a_table_whatever_does_the_work(folder, model, tmp_path):
    model.save(tmp_path / "model")
    (folder / "bad.png").write_bytes(b"no image")
    settings = {"shard": 4, "progress": False}
    found = annotate_folder(folder, tmp_path / "model", tmp_path / "one.parquet", **settings)
    assert found == {"images": 13, "unreadable": 1, "resumed": 0}
    annotate_folder(folder, tmp_path / "model", tmp_path / "two.parquet", executor="joblib", jobs=2, **settings)
    one, two = (pq.read_table(tmp_path / f"{name}.parquet").to_pydict() for name in ("one", "two"))
    assert one == two
    assert one["id"] == [os.path.relpath(path, folder) for path in paths_of(folder)]
    read = [i for i, vector in enumerate(one["vector"]) if any(vector)]
    assert [one["label"][i] for i in read] == model.predict([paths_of(folder)[i] for i in read]).tolist()
    assert [bool(error) for error in one["error"]] == [not any(vector) for vector in one["vector"]]
    assert table_facts(tmp_path / "one.parquet")["fingerprint"] == model.embedder_.fingerprint
    assert len(list(import_records(tmp_path / "one.parquet"))) == 12
    assert not list(tmp_path.glob("*.shards"))


def test_a_run_goes_on_with_the_shards_that_are_missing_and_takes_no_others(folder, model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    out, saved = tmp_path / "out.parquet", tmp_path / "model"
    done = []

    def stops(table, path, part):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        return write(table, path, part)

    write = ParquetTable.write
    with monkeypatch.context() as patched:
        patched.setattr(ParquetTable, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            annotate_folder(folder, saved, out, shard=3, progress=False)
    with pytest.raises(StoreError, match="holds shards of a different run"):
        annotate_folder(folder, saved, out, shard=5, progress=False)
    assert not out.exists()
    assert annotate_folder(folder, saved, out, shard=3, progress=False) == {
        "images": 12, "unreadable": 0, "resumed": 2,
    }  # fmt: skip
    # In the same shards: how a network rounds may depend on the number of images.
    annotate_folder(folder, saved, tmp_path / "whole.parquet", shard=3, progress=False)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_a_shard_that_fails_is_told_when_the_others_are_there(folder, model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")

    def fails(opened, paths):
        if paths[0].endswith("00.png"):
            raise RuntimeError("no luck")
        return annotate(opened, paths)

    monkeypatch.setattr(work, "annotate", fails)
    with pytest.raises(StoreError, match="1 of 4 shards failed, first shard 2: RuntimeError: no luck; the others are"):
        annotate_folder(folder, tmp_path / "model", tmp_path / "out.parquet", shard=3, progress=False)
    monkeypatch.setattr(work, "annotate", annotate)
    found = annotate_folder(folder, tmp_path / "model", tmp_path / "out.parquet", shard=3, progress=False)
    assert found["resumed"] == 3


def test_the_commands_annotate_and_search(folder, model, tmp_path, monkeypatch, capsys):
    model.save(tmp_path / "model")
    done = fewshot("annotate", "photos", "--model", "model", "--out", "all.parquet", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 images in" in done.stdout
    query = paths_of(folder)[0]
    monkeypatch.chdir(tmp_path)
    assert main(["search", "all.parquet", query, "--model", "model", "-k", "3", "--json", "-", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["found"] == os.path.relpath(query, folder)
    filters = ["--where", "label=flower", "--where", "unknown=false"]
    assert main(["search", "all.parquet", query, "--model", "model", "-k", "9", *filters, "--json", "-"]) == 0
    assert {row["label"] for row in json.loads(capsys.readouterr().out)} == {"flower"}
    for line, status, message in (
        ("annotate nowhere --model model --out x.parquet", 2, "nowhere: no such file or directory"),
        ("annotate photos --model nowhere --out x.parquet", 2, "nowhere is not a saved classifier"),
        (f"search none.parquet {query} --model model", 2, "none.parquet does not exist"),
        (f"search all.parquet {query} --model model --where label", 2, "expected NAME=VALUE"),
    ):
        assert main([*line.split(), "--quiet"]) == status
        (sentence,) = capsys.readouterr().err.splitlines()
        assert message in sentence
    (folder / "bad.png").write_bytes(b"no image")
    assert main(["annotate", "photos", "--model", "model", "--out", "x.parquet", "--quiet"]) == 1
    assert "1 image could not be read; see the column error" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_table(folder, model, tmp_path):
    model.save(tmp_path / "model")
    arguments = ("annotate", "photos", "--model", "model", "--shard", "1", "--quiet", "--out")
    assert fewshot(*arguments, "whole.parquet", cwd=tmp_path).returncode == 0
    command, shards, kills = [sys.executable, "-m", "fewshot", *arguments, "out.parquet"], set(), 0
    while True:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        before = len(shards)
        while process.poll() is None and len(shards) < before + 5:
            shards = set((tmp_path / "out.parquet.shards").glob("0*.parquet"))
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2
    assert process.returncode == 0
    assert pq.read_table(tmp_path / "out.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


NODES = """
import json, pathlib, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from fewshot.retrieval.work import annotate_folder
from fewshot.cli import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
started = len([n for n in ray.nodes() if n["Alive"]])

def kill():
    while len(list(pathlib.Path("ray.parquet.shards").glob("0*.parquet"))) < 3:
        time.sleep(0.02)
    cluster.remove_node(second, allow_graceful=False)
    killed.append(len(list(pathlib.Path("ray.parquet.shards").glob("0*.parquet"))))

killed = []
threading.Thread(target=kill, daemon=True).start()
annotate_folder("photos", "model", "ray.parquet", shard=2, executor="ray", progress=False)
pathlib.Path("nodes.json").write_text(json.dumps([started, killed]))
"""


@pytest.mark.slow
def test_a_cluster_of_which_a_node_is_lost_gives_the_same_table(model, tmp_path):
    pytest.importorskip("ray")
    model.save(tmp_path / "model")
    write_photos(tmp_path / "photos", 100)
    annotate_folder(tmp_path / "photos", tmp_path / "model", tmp_path / "whole.parquet", shard=2, progress=False)
    ran = subprocess.run(
        [sys.executable, "-c", NODES], capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    started, killed = json.loads((tmp_path / "nodes.json").read_text())
    assert started == 2
    assert 3 <= killed[0] < 100  # while there was work left
    assert pq.read_table(tmp_path / "ray.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
