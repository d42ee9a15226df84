"""Keys in half precision and in 8 bits: what is rounded, refused, kept and saved."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot import PrototypeIndex
from fewshot.errors import ArtifactError, UnknownNameError
from fewshot.search import snapshot
from fewshot.search.packing import packed, precision_of, unpacked, width
from tests.forging import copied, manifest_of, seal

RNG = np.random.default_rng(0)
KEYS = RNG.normal(size=(600, 24)).astype(np.float32)
QUERIES = KEYS[:50] + RNG.normal(0, 0.2, (50, 24)).astype(np.float32)
METRICS, PACKED = ("sqeuclidean", "cosine", "dot"), {"float16": 2**-11, "int8": 1 / 254}


@given(arrays(np.float32, (5, 7), elements=st.floats(-1000, 1000, width=32)))
def test_rounding_is_bounded_by_the_largest_number_of_a_key(x):
    x[np.abs(x) < 1e-3] = 0
    for precision, step in PACKED.items():
        kept = packed(torch.from_numpy(x), precision)
        assert precision_of(kept) == precision
        assert width(kept) == 7
        assert packed(kept, precision) is kept
        assert unpacked(kept[2:3]).equal(unpacked(kept)[2:3])  # bytes of any alignment
        assert (np.abs(unpacked(kept).numpy() - x) <= 1.001 * step * np.abs(x).max(1, keepdims=True)).all()


@pytest.mark.parametrize("precision", PACKED)
@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
def test_it_answers_as_an_index_of_the_rounded_keys(precision, kind, metric, tmp_path):
    index = PrototypeIndex(metric, kind, keys=precision).add(KEYS[:500]).add(KEYS[500:]).remove([3, 520])
    index.build()
    rounded = unpacked(packed(torch.from_numpy(KEYS), precision)).numpy()
    whole = PrototypeIndex(metric, "exact").add(rounded).remove([3, 520])
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path)
    assert loaded.keys == precision
    for one in (index, loaded, pickle.loads(pickle.dumps(index)).compact()):
        for queries in (QUERIES, QUERIES[:1], QUERIES.astype(np.float64), QUERIES[:1].astype(np.float64)):
            labels, similarities = one.search(queries, 4)
            expected = whole.search(queries, 4)
            assert similarities.dtype == queries.dtype
            assert (labels == expected[0]).mean() > 0.95
            if (labels == expected[0]).all():
                np.testing.assert_allclose(similarities, expected[1], rtol=1e-5, atol=1e-5)
    assert loaded.update(KEYS[7:8] * 2, [7]).search(KEYS[7:8] * 2)[0].tolist() == [[7]]


@pytest.mark.parametrize("precision", PACKED)
def test_exact_search_answers_while_the_graph_is_built(precision, monkeypatch):
    monkeypatch.setattr(snapshot, "QUICK", 100)
    monkeypatch.setattr(snapshot, "begin", lambda *args: None)
    index, whole = PrototypeIndex(index="hnsw", keys=precision).add(KEYS), PrototypeIndex().add(KEYS)
    for queries in (QUERIES, QUERIES.astype(np.float64), QUERIES[:1]):
        labels, similarities = index.search(queries, 2)
        assert (labels[:, 0] == whole.search(queries)[0][:, 0]).mean() > 0.9
        assert np.isfinite(similarities).all()


def test_what_cannot_be_held_is_refused_and_nothing_is_added():
    index = PrototypeIndex(keys="float16").add(KEYS)
    with pytest.raises(ValueError, match=r"the largest number of key 1 is 7e\+04; keys='float16' holds .* keys='full'"):
        index.add([[1.0] * 24, [7e4] * 24])
    with pytest.raises(ValueError, match="the largest number of key 0 is 1e-06"):
        index.add([[1e-6] * 24])
    assert len(index) == 600
    assert index._next == 600
    with pytest.raises(UnknownNameError, match="no precision is called 'int4'"):
        PrototypeIndex(keys="int4")
    zero = PrototypeIndex("cosine", keys="int8").add(np.zeros((1, 24)))
    assert zero.search(KEYS[:2])[1].tolist() == [[0.0], [0.0]]


def test_a_folder_of_another_precision_is_refused(tmp_path):
    PrototypeIndex(keys="int8").add(KEYS).save(tmp_path / "saved")
    for other, expected in (("full", "float32 or float64"), ("float16", "float16")):
        folder = copied(tmp_path / "saved", tmp_path / other)
        content = manifest_of(folder)
        seal(folder, {**content, "keys": other})
        with pytest.raises(ArtifactError, match=f"its keys are torch.int8 .*; expected {expected}"):
            PrototypeIndex.load(folder)
