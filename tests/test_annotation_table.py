"""Tables that lack something, are damaged, or hold classes that are no Unicode; and what `annotate` leaves alone."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError

from fewshot import FaissStore, FewShotImageClassifier, LabeledImages, Record, annotate, retrieve
from fewshot.annotation.table import export_store, import_records, table_facts
from fewshot.annotation.work import annotate_folder
from fewshot.errors import ImageDecodeError, StoreError
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
        annotate_folder(tmp_path / "photos", tmp_path / name, tmp_path / "all.parquet", progress=False)
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
    assert (model.embedder_.on_error, model.classifier_.on_invalid) == ("raise", "raise")
    with pytest.raises(ImageDecodeError):
        model.embedder_.transform([str(tmp_path / "none.png")])


GOOD = {"fingerprint": "abc", "metric": "dot"}
ROW = {"id": "a", "label": "b", "vector": [1.0, 2.0]}
VECTORS = pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("about", "row", "vectors", "message"),
    [
        ({}, ROW, VECTORS, "does not say whose vectors it holds"),
        ({"fingerprint": "abc"}, ROW, VECTORS, "does not say whose vectors it holds"),
        ([], ROW, VECTORS, "does not say whose vectors it holds"),
        (b"junk", ROW, VECTORS, "it is damaged"),
        (b"\xff", ROW, VECTORS, "it is damaged"),
        (b"[" * 100_000, ROW, VECTORS, "it is damaged"),
        *((GOOD, {k: ROW[k] for k in ROW if k != name}, VECTORS, f"has no columns '{name}'") for name in ROW),
        (GOOD, ROW, pa.list_(pa.float32()), "are list<.*expected fixed_size_list<float>"),
        (GOOD, {**ROW, "vector": ["x", "y"]}, pa.list_(pa.string(), 2), "expected fixed_size_list<float>"),
        (GOOD, {**ROW, "vector": 1.0}, pa.float32(), "are float; expected fixed_size_list<float>"),
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


def test_wherever_a_table_is_damaged_it_is_told_or_read(tmp_path):
    store = FaissStore("dot", "abc", 4)
    store.add(Record(f"id {i}", np.full(4, i, np.float32), "a") for i in range(9))
    export_store(store, tmp_path / "s.parquet")
    content, told = (tmp_path / "s.parquet").read_bytes(), 0
    for place in range(0, len(content), 7):
        (tmp_path / "d.parquet").write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            list(import_records(tmp_path / "d.parquet"))
        except StoreError as error:
            told += "d.parquet" in str(error)
    assert told > len(content) // 50
    (tmp_path / "d.parquet").write_bytes(content[:40] + bytes(40) + content[80:])
    with pytest.raises(StoreError, match="d.parquet cannot be read as Parquet: it is damaged, or another kind of file"):
        list(import_records(tmp_path / "d.parquet"))
    with pytest.raises(StoreError, match="cannot be read as Parquet: Is a directory"):
        table_facts(tmp_path)
