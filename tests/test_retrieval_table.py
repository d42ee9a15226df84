"""Tables that lack something, are damaged, or hold classes that are no Unicode; and what `annotate` leaves alone."""

import json

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError

from fewshot import FaissStore, FewShotImageClassifier, LabeledImages, Record, annotate, retrieve
from fewshot.errors import ImageDecodeError, StoreError
from fewshot.retrieval.annotation import Annotation
from fewshot.retrieval.table import (
    annotation_schema,
    annotations_to_arrow,
    export_store,
    import_records,
    table_facts,
    write_table,
)
from fewshot.retrieval.work import annotate_folder
from tests.photographs import quick_embedder, write_photos


def fitted(folder, labels, **params):
    """Return a classifier of two photographs, and their paths."""
    paths = write_photos(folder, 3)
    model = FewShotImageClassifier(quick_embedder(), progress=False, **params)
    return model.fit(paths, np.repeat(labels, 3)), paths


def test_classes_that_are_no_unicode_have_their_rows(tmp_path):
    model, paths = fitted(tmp_path / "photos", ["caf\udce9", "moss"], unknown_label="\udce9", reject=2.0)
    model.save(tmp_path / "unknowing")
    model.set_params(reject=None).save(tmp_path / "model")
    for name, labels in (("model", ["caf\\xe9", "moss"]), ("unknowing", ["\\xe9"])):
        annotate_folder(tmp_path / "photos", tmp_path / name, tmp_path / "all.parquet", overwrite=True, progress=False)
        table = pq.read_table(tmp_path / "all.parquet")
        assert sorted(set(table["label"].to_pylist())) == labels
        assert sorted(set(table["nearest"].to_pylist())) == ["caf\\xe9", "moss"]
        if name == "model":
            store = FaissStore("cosine", model.embedder_.fingerprint, 256)
            store.add(import_records(tmp_path / "all.parquet"))
    assert model.predict(paths[:1]).tolist() == ["caf\udce9"]
    (found,) = retrieve(model, store, paths[:1], by_label=True)
    assert {match.label for match in found} == {"caf\\xe9"}
    assert {match.probability for match in found} == {model.predict_proba(paths[:1]).max()}


def test_one_image_is_no_stream_of_images(tmp_path):
    model, paths = fitted(tmp_path / "photos", ["a", "b"])
    image = Image.open(paths[0])
    pixels = np.asarray(image)
    for one in (paths[0], tmp_path / "photos", b"bytes", image, pixels, {paths[0]: 1}):
        with pytest.raises(TypeError, match=r"X is |X has shape"):
            list(annotate(model, one))
    for several in ([image], pixels[None], set(paths[:1]), LabeledImages(pixels[None], ["a"]), iter([pixels])):
        (found,) = annotate(model, several)
        np.testing.assert_allclose(found.vector, model.embedder_.transform(paths[:1])[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(NotFittedError):
        list(annotate(FewShotImageClassifier(quick_embedder()), paths))


def test_annotating_leaves_the_classifier_as_it_is(tmp_path, monkeypatch):
    model, paths = fitted(tmp_path / "photos", ["a", "b"])
    assert [bool(one.error) for one in annotate(model, [paths[0], str(tmp_path / "none.png")])] == [False, True]
    with monkeypatch.context() as patched:
        patched.setattr(model.embedder_.__class__, "embed", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(annotate(model, paths))
    assert (model.embedder_.on_error, model.classifier_.on_error) == ("raise", "raise")
    with pytest.raises(ImageDecodeError):
        model.embedder_.transform([str(tmp_path / "none.png")])


GOOD = {"fingerprint": "abc", "metric": "dot"}
ROW = {"id": "a", "label": "b", "vector": [1.0, 2.0]}
VECTORS = pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("about", "row", "vectors", "message"),
    [
        ({}, ROW, VECTORS, "does not say which embedder made its vectors"),
        ({"fingerprint": 1}, ROW, VECTORS, "does not say which embedder made its vectors"),
        ({"metric": "dot"}, {**ROW, "embedder": None}, VECTORS, "does not say which embedder made its vectors"),
        ([], ROW, VECTORS, "does not say which embedder made its vectors"),
        (b"junk", ROW, VECTORS, "it is damaged"),
        (b"\xff", ROW, VECTORS, "it is damaged"),
        (b"[" * 100_000, ROW, VECTORS, "it is damaged"),
        *((GOOD, {k: ROW[k] for k in ROW if k != name}, VECTORS, f"has no columns '{name}'") for name in ROW),
        (GOOD, {**ROW, "vector": ["x", "y"]}, pa.list_(pa.string(), 2), "expected lists of floats"),
        (GOOD, {**ROW, "vector": [1, 2]}, pa.list_(pa.int8()), "expected lists of floats"),
        (GOOD, {**ROW, "vector": 1.0}, pa.float32(), "are float; expected lists of floats"),
        (GOOD, {**ROW, "vector": None}, pa.list_(pa.float32()), "has no vectors"),
        (GOOD, {**ROW, "payload": "{}"}, VECTORS, "it is damaged"),  # its label is no JSON
        (GOOD, {**ROW, "label": "1", "payload": None}, VECTORS, "it is damaged"),
        (GOOD, {**ROW, "label": "1", "payload": "[1]"}, VECTORS, "it is damaged"),
        (GOOD, {**ROW, "label": "[" * 100_000, "payload": "{}"}, VECTORS, "it is damaged"),
    ],
)
def test_a_table_that_lacks_something_is_refused_in_a_sentence(tmp_path, about, row, vectors, message):
    about = about if isinstance(about, bytes) else json.dumps(about).encode()
    columns = [(name, vectors if name == "vector" else pa.string()) for name in row]
    table = pa.Table.from_pylist([row], pa.schema(columns, {"fewshot": about}))
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(StoreError, match=f"t.parquet.*{message}"):
        list(import_records(tmp_path / "t.parquet"))
    if "payload" not in row:
        with pytest.raises(StoreError, match=message):
            table_facts(tmp_path / "t.parquet")


def test_vectors_of_different_lengths_are_refused(tmp_path):
    columns = {"id": ["a", "b"], "label": ["a", "b"], "embedder": ["abc"] * 2, "vector": [[1.0, 2.0], [1.0]]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(StoreError, match=r"the vectors of .*t.parquet have 2 and 1 numbers; make it again"):
        list(import_records(tmp_path / "t.parquet"))


def write_annotations(path, classes=("ant", "bee")):
    """Write a table of six images, one of them unreadable, as `annotate_folder` does."""
    x, labels = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), [classes[i % 2] for i in range(5)]
    found = [Annotation(f"{i}.png", x[i], labels[i], 0.5, False, labels[i], 0.25, "", "abc") for i in range(5)]
    found.insert(2, Annotation("bad.png", None, None, 0.0, False, None, np.nan, "no image", "abc"))
    schema = annotation_schema(4, "abc", "dot", classes)
    write_table(path, [annotations_to_arrow(found, schema)], schema)
    return path


def records(path):
    return [(r.id, r.vector.tolist(), r.label, dict(r.payload), r.embedder) for r in import_records(path)]


def cast(table, place, kind):
    values = table.column(place).to_pylist()
    return table.set_column(place, table.schema.names[place], pa.array(values, kind))


#: What other software makes of a table.
REWRITERS = {
    "pandas": lambda file, to: pd.read_parquet(file).to_parquet(to),
    "pandas, filtered": lambda file, to: pd.read_parquet(file).query("error == ''").to_parquet(to),
    "pandas, categories": lambda file, to: pd.read_parquet(file).astype({"label": "category"}).to_parquet(to),
    "duckdb": lambda file, to: duckdb.sql(f"copy (from '{file}') to '{to}' (format parquet)"),
    "duckdb, filtered": lambda file, to: duckdb.sql(f"copy (from '{file}' where error = '') to '{to}'"),
    "polars": lambda file, to: pytest.importorskip("polars").read_parquet(file).write_parquet(to),
    "pyarrow, filtered": lambda file, to: pq.write_table(pq.read_table(file, filters=[("error", "=", "")]), to),
    "pyarrow, double": lambda file, to: pq.write_table(cast(pq.read_table(file), 2, pa.list_(pa.float64(), 4)), to),
    "pyarrow, large": lambda file, to: pq.write_table(
        cast(cast(pq.read_table(file), 0, pa.large_string()), 2, pa.large_list(pa.float32())), to
    ),
    "pyarrow, dictionary": lambda file, to: pq.write_table(
        cast(pq.read_table(file), 0, pa.dictionary(pa.int8(), pa.string())).replace_schema_metadata(None), to
    ),
}


@pytest.mark.parametrize("name", REWRITERS)
@pytest.mark.parametrize("classes", [("ant", "bee"), (1, 2)], ids=["text", "numbers"])
def test_a_table_that_other_software_has_written_again_is_read(tmp_path, name, classes):
    file = write_annotations(tmp_path / "all.parquet", classes)
    REWRITERS[name](file, tmp_path / "again.parquet")
    assert [row[0] for row in records(file)] == [f"{i}.png" for i in range(5)]
    assert records(tmp_path / "again.parquet") == records(file)
    facts = table_facts(tmp_path / "again.parquet")
    assert (facts["fingerprint"], facts["d"]) == ("abc", 4)
    assert facts["metric"] in ("dot", None)


def test_lancedb_opens_indexes_and_filters_a_table_with_an_unreadable_image(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    file = write_annotations(tmp_path / "all.parquet")
    table = lancedb.connect(tmp_path / "lance").create_table("images", pq.read_table(file))
    assert table.count_rows() == 6
    found = table.search(np.zeros(4, np.float32)).where("error = ''").limit(9).to_arrow()
    assert sorted(found["id"].to_pylist()) == [f"{i}.png" for i in range(5)]
    pq.write_table(table.to_arrow(), tmp_path / "again.parquet")
    assert records(tmp_path / "again.parquet") == records(file)


def test_tables_of_earlier_versions_are_read(tmp_path):
    rows = [
        {"id": "a", "label": "ant", "vector": [1.0, 2.0], "probability": 0.5, "error": ""},
        {"id": "b", "label": None, "vector": None, "probability": 0.0, "error": "no image"},
    ]
    kinds = [("id", pa.string()), ("label", pa.string()), ("vector", VECTORS), ("probability", pa.float32())]
    schema = pa.schema([*kinds, ("error", pa.string())], {"fewshot": json.dumps(GOOD)})
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "old.parquet")
    if tuple(map(int, pa.__version__.split(".")[:1])) < (26,):
        with pytest.raises(StoreError, match="cannot be read as Parquet: .*Expected all lists to be of size"):
            records(tmp_path / "old.parquet")
    else:
        assert records(tmp_path / "old.parquet") == [("a", [1.0, 2.0], "ant", {"probability": 0.5}, "abc")]
        assert table_facts(tmp_path / "old.parquet") == {**GOOD, "d": 2}


@pytest.mark.parametrize("write", ["annotations", "records"])
def test_a_flipped_bit_anywhere_in_a_table_is_told_or_changes_nothing(tmp_path, write):
    file, damaged = tmp_path / "s.parquet", tmp_path / "d.parquet"
    if write == "annotations":
        write_annotations(file)
    else:
        store = FaissStore("dot", "abc", 4)
        store.add(Record(f"id {i}", np.full(4, i, np.float32), "a") for i in range(9))
        export_store(store, file)
    content, whole, told = file.read_bytes(), records(file), 0
    places = [*range(0, len(content), 23), *range(len(content) - 8, len(content))]
    for i, place in enumerate(places):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 1 << i % 8]) + content[place + 1 :])
        try:
            assert records(damaged) == whole, place
        except StoreError as error:
            told += "d.parquet" in str(error)
    assert told > 0.9 * len(places)
    for start in (0, 40, len(content) - 60):
        damaged.write_bytes(content[:start] + bytes(40) + content[start + 40 :])
        with pytest.raises(StoreError, match=r"d.parquet (is|cannot be read as Parquet: it is) damaged"):
            records(damaged)
    with pytest.raises(StoreError, match="cannot be read as Parquet: Is a directory"):
        table_facts(tmp_path)
