"""The same operations and queries through all three stores: the same answers, and those of a dict and numpy."""

import json
import sys
import threading
import unicodedata
import uuid
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewshot import PrototypeIndex
from fewshot.errors import ArtifactError, StoreError, UnknownNameError
from fewshot.retrieval.stores.base import similarities
from fewshot.retrieval.stores.faiss import FaissStore
from fewshot.retrieval.stores.pgvector import PgVectorStore
from fewshot.retrieval.stores.qdrant import QdrantStore
from fewshot.retrieval.stores.records import Record, check_queries, check_record, token, uuid_of
from fewshot.search.similarity import METRICS, pairwise_similarity
from tests.forging import put
from tests.postgres import postgres, table  # noqa: F401

KINDS = ("faiss", "pgvector", "qdrant")
LONG = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FFF, 5000)))
HOSTILE = ["x'; DROP TABLE x; --", '"; --', "%s %% %(a)s", "{table} {}", "ü\U0001f600", "\\", " ", 'a"b.c[0]', LONG]


@pytest.fixture
def make(postgres):  # noqa: F811
    """Return what makes an empty store; all are closed after the test."""
    made = []

    def make(kind, metric="cosine", d=3, fingerprint="f" * 64):
        if kind == "faiss":
            store = FaissStore(metric, fingerprint, d)
        elif kind == "pgvector":
            store = PgVectorStore(postgres, f"t{uuid.uuid4().hex}", metric, fingerprint, d)
        else:
            store = QdrantStore(":memory:", "c", metric, fingerprint, d)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def records(n, d=3, seed=0, distinct=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) if distinct else rng.integers(-1, 2, (n, d))
    labels = ["cat", "dog", 1, "1", True, None, 1.5]
    return [
        Record(f"{i:03d}", np.float32(v), labels[i % 7], {"n": i % 3, "list": [i % 2, str(i % 2)], "f": i / 4})
        for i, v in enumerate(x)
    ]


def same(one, other):
    if isinstance(one, str) and isinstance(other, str):
        return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def passes(record, where):
    values = {**record.payload, "label": record.label}
    for name, wanted in (where or {}).items():
        mine = values.get(name, [])
        mine = mine if isinstance(mine, list) else [mine]
        if isinstance(wanted, dict):
            numbers = [one for one in mine if type(one) in (int, float)]
            if not any(all(eval(f"{one!r} {sign} {bound!r}") for sign, bound in wanted.items()) for one in numbers):
                return False
            continue
        wanted = wanted if isinstance(wanted, list) else [wanted]
        if not any(same(one, other) for one in mine for other in wanted):
            return False
    return True


def expected(kept, query, k, metric, where=None):
    some = [record for record in kept if passes(record, where)]
    values = similarities(np.float32(query), [r.vector for r in some], metric)
    order = sorted(range(len(some)), key=lambda i: (-values[i], some[i].id))[:k]
    return [(some[i].id, some[i].label, values[i], dict(some[i].payload)) for i in order]


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_on_what_no_record_has_says_so(make, kind, recwarn):
    store = make(kind)
    store.search([[1, 2, 3]], where={"label": "cat"})
    store.add(records(30))
    for where in ({"label": "cat"}, {"n": 99}, {"label": "cat", "f": {">=": 1000}}, {"label": []}, {"label": ["x", 1]}):
        store.search([[1, 2, 3]], where=where)  # found, or a number that may well be too high, or nothing asked for
    assert not recwarn
    none = "nothing was found, since none of the records that were looked at has a value named"
    for where, said in (
        ({"lable": "cat"}, f"{none} 'lable'; did you mean label?"),
        ({"prob": {">": 0.5}}, f"{none} 'prob'; they have f, label, list, n"),
        ({"label": "cta", "n": 1}, "nothing was found, since no record has label='cta'; did you mean cat?"),
        ({"label": ["dgo", 7]}, "nothing was found, since no record has label among 'dgo', 7; did you mean dog?"),
        ({"n": "1"}, "nothing was found, since no record has n='1'; did you mean 1?"),
        ({"f": "5.2..5"}, "nothing was found, since no record has f='5.2..5'; it has numbers, such as "),
        ({"n": "many"}, "nothing was found, since no record has n='many'; it has numbers, such as "),
        ({"n": (99, -5)}, "nothing was found, since no record has n among 99, -5; for all between the two, give "),
    ):
        assert store.search([[1, 2, 3], [3, 2, 1]], where=where) == [[], []]
        assert str(recwarn.pop(UserWarning).message).startswith(said)
        assert not recwarn
        assert store.snapshot(where) == []
        assert str(recwarn.pop(UserWarning).message).startswith(said)
        assert not recwarn


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_on_numbers_that_came_as_text_say_so(make, kind):
    store = make(kind)
    store.add([Record("a", [1, 2, 3], payload={"price": "12.50"}), Record("b", [1, 2, 3])])
    with pytest.warns(UserWarning, match=r"since bounds compare numbers, and 'price' has text, such as '12\.50'$"):
        assert not store.search_one([1, 2, 3], 1, {"price": {"<": 20}})
    with pytest.raises(TypeError, match=r"records is one record, 'c'; give a list, \[record\]"):
        store.add(Record("c", [1, 2, 3]))


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_another_embedder_are_refused(make, kind):
    store = make(kind)
    with pytest.raises(StoreError, match="this store holds vectors of the embedder ffffffffffff, and these come from"):
        store.add([records(1)[0], Record("other", [1, 2, 3], embedder="e" * 64)])
    assert len(store) == 0
    store.add([Record("own", [1, 2, 3], embedder="f" * 64), *records(1)])
    assert {record.embedder for record in store.snapshot()} == {"f" * 64}


def plain(matches):
    return [(m.id, m.label, m.similarity, m.payload) for m in matches]


def check_nearest(found, kept, query, k, metric, where):
    """Check a search against brute force; of equally near records, any may be found."""
    every = expected(kept, query, len(kept), metric, where)
    assert [match.similarity for match in found] == [match[2] for match in every[:k]], where
    assert len({match.id for match in found}) == len(found)
    assert plain(found) == [match for match in every if match[0] in {one.id for one in found}]


def described(record):
    return record.id, record.vector.tolist(), record.label, type(record.label), dict(record.payload)


def state(store):
    return list(map(described, store.snapshot()))


WHERES = [
    None,
    {},
    {"label": "cat"},
    {"label": ["cat", "dog"]},
    {"label": 1},
    {"label": "1"},
    {"label": True},
    {"label": None},
    {"label": 1.5},
    {"n": 1},
    {"n": [0, 2.0]},
    {"n": True},
    {"f": 2.25},
    {"f": 2},
    {"list": 1},
    {"list": "1"},
    {"label": ["cat", 1], "n": 2},
    {"missing": 1},
    {"missing": None},
    {"label": []},
    {"n": {">=": 1}},
    {"f": {">": 2.5, "<=": 11}, "n": [0, 1]},
    {"f": {">": 5, "<": 5}},
    {"list": {"<": 1}},
    {"label": {">=": 1}},
    {"label": {"<": 1.5}, "f": {">=": 0.25}},
    {"missing": {">": 0}},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("distinct", [True, False])
def test_search_is_what_numpy_finds(make, kind, metric, distinct):
    store, kept = make(kind, metric), records(80, distinct=distinct)
    assert store.add(iter(kept)) == len(store) == 80
    queries = np.float32([[1, 0, 0], [0.5, -2, 3], [0, 0, 0]])
    for where in WHERES:
        for k in (1, 7, 200):
            found = store.search(queries, k, where)
            for query, row in zip(queries, found, strict=True):
                check_nearest(row, kept, query, k, metric, where)
        passing = {match[0] for match in expected(kept, queries[0], 80, metric, where)}
        assert list(map(described, store.snapshot(where))) == sorted(
            described(one) for one in kept if one.id in passing
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_nearest_per_class_is_the_best_record_of_each_near_label(make, kind, metric):
    store, kept = make(kind, metric), records(80)
    store.add(kept)
    for where in (None, {"n": 1}, {"label": []}):
        for k in (1, 3, 50):
            every = expected(kept, [0.5, -2, 3], 80, metric, where)
            best = {token("label", match[1]): match for match in reversed(every)}
            best = sorted(best.values(), key=lambda match: -match[2])[:k]
            assert plain(store.nearest_per_class([[0.5, -2, 3]], k, where)[0]) == best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_snapshot_is_what_was_added_to_the_last_bit(make, kind, metric):
    store, kept = make(kind, metric), records(30)
    kept += [Record("zero", np.zeros(3, np.float32)), Record("tiny", np.float32([1e-30, 0, 3e-38]), 10**18)]
    kept += [Record("large", np.float32([1e15, -1e15, 0]), 1e300, {"f": [5e-324, -0.0, 1e22, 2.0**70], "e": []})]
    store.add(reversed(kept))
    wanted = sorted(kept, key=lambda record: record.id)
    assert [(r.id, r.vector.tolist(), r.label, dict(r.payload)) for r in store.snapshot()] == [
        (r.id, r.vector.tolist(), r.label, dict(r.payload)) for r in wanted
    ]
    labels = {token("label", label) for label in store.labels()}
    assert labels == {token("label", record.label) for record in kept}
    assert len(store.labels()) == len(labels)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_comes_back_and_can_be_found(make, kind):
    store = make(kind)
    kept = [Record(text, np.float32([i, 1, 0]), text, {text: text}) for i, text in enumerate(HOSTILE)]
    store.add(kept)
    assert [r.id for r in store.snapshot()] == sorted(HOSTILE)
    for i, text in enumerate(HOSTILE):
        store.upsert([Record(text, np.float32([i, 1, 0]), text, {text: text, text + "n": i})])
        (match,) = store.search([[0, 0, 1]], 5, {text + "n": {">=": i}})[0]
        assert (match.id, match.payload[text + "n"]) == (text, i)
        store.upsert([kept[i]])
    for text in HOSTILE:
        for where in ({"label": text}, {text: text}, {text: [text, "other"], "label": text}):
            (match,) = store.search([[0, 0, 1]], 5, where)[0]
            assert (match.id, match.label, match.payload) == (text, text, {text: text})
    assert store.remove(HOSTILE) == len(HOSTILE)
    assert len(store) == 0 == len(store.snapshot())
    assert store.search([[0, 0, 1]]) == [[]]


VECTOR = np.ones(3, np.float32)
BAD = [
    (Record("", VECTOR), "not text"),
    (Record(3, VECTOR), "not text"),
    (Record("a\0", VECTOR), "zero byte"),
    (Record("a", VECTOR, "b\0"), "zero byte"),
    (Record("a", VECTOR, None, {"n\0": 1}), "zero byte"),
    (Record("a", VECTOR, None, {"n": ["\0"]}), "zero byte"),
    (Record("\ud800", VECTOR), "Unicode"),
    (Record("a", VECTOR, None, {1: 1}), "names must be text"),
    (Record("a", VECTOR, {"a": 1}), "keeps text"),
    (Record("a", VECTOR, None, {"n": (1,)}), "keeps text"),
    (Record("a", VECTOR, float("nan")), "JSON cannot hold"),
    (Record("a", VECTOR, 2**63), "64 bits"),
    (Record("a", np.ones(2)), "shape"),
    (Record("a", np.float32([1, np.nan, 1])), "NaN"),
    (Record("a", np.float32([1, 1e16, 1])), "too large"),
    (Record("000", VECTOR), "already in the store"),
    (Record("004", VECTOR), "occurs twice"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_record_is_refused_and_nothing_is_written(make, kind):
    store = make(kind)
    first, more = records(3), records(8)[3:]
    store.add(first)
    before = state(store)
    for bad, message in BAD:
        with pytest.raises(ValueError, match=message):
            store.add([*more, bad])
        if "already" not in message:
            with pytest.raises(ValueError, match=message):
                store.upsert([*more, replace(first[0], label="other"), bad])
        assert state(store) == before, bad.id
    with pytest.raises(ValueError, match="there is no record 'zz' in the store"):
        store.get(["000", "zz"])
    for labels, message in [({"000": "a", "zz": "b"}, "there is no record 'zz'"), ({"000": {}}, "keeps text")]:
        with pytest.raises(ValueError, match=message):
            store.relabel(labels)
    assert store.relabel({}) == store.upsert([]) == 0
    assert store.add([]) == 0
    with pytest.raises(ValueError, match="'zz' in the store; nothing was removed"):
        store.remove(["001", "zz"])
    with pytest.raises(ValueError, match="give a list"):
        store.remove("001")
    assert state(store) == before
    assert store.remove([]) == 0
    assert store.remove(["001", "001"]) == 1
    assert [r.id for r in store.snapshot()] == ["000", "002"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_cell_of_a_table_is_none_in_the_payload(make, kind, recwarn):
    stock = pd.DataFrame({"brand": ["Acme", np.nan, "Bolt"], "price": [np.nan, 2.0, 3.0]}, index=["a", "b", "c"])
    stock["day"] = [pd.NaT, None, None]
    stock["n"] = pd.array([1, None, 3], dtype="Int64")
    own, store = stock.to_dict("index"), make(kind)
    assert store.add(Record(id, VECTOR, "x", {**own[id], "tags": [own[id]["price"], "t"]}) for id in own) == 3
    assert [dict(record.payload) for record in store.snapshot()] == [
        {"brand": "Acme", "price": None, "day": None, "n": 1, "tags": [None, "t"]},
        {"brand": None, "price": 2.0, "day": None, "n": None, "tags": [2.0, "t"]},
        {"brand": "Bolt", "price": 3.0, "day": None, "n": 3, "tags": [3.0, "t"]},
    ]
    for where, ids in [
        ({"brand": None}, ["b"]),
        ({"brand": [None, "Bolt"]}, ["b", "c"]),
        ({"price": {"<": 9}}, ["b", "c"]),
        ({"price": None}, ["a"]),
        ({"n": {">=": 0}}, ["a", "c"]),
        ({"day": None}, ["a", "b", "c"]),
        ({"tags": None}, ["a"]),
        ({"tags": {"<=": 2}}, ["b"]),
    ]:
        assert [match.id for match in store.search_one(VECTOR, 5, where)] == ids, where
    assert not recwarn
    for infinite in (np.inf, -np.inf, np.float32("inf")):
        with pytest.raises(ValueError, match="inf, which JSON cannot hold; leave it out"):
            store.upsert([Record("a", VECTOR, "x", {"price": infinite})])
    for one in (pd.Timestamp("2026-01-02"), date(2026, 1, 2), Decimal("1.5")):
        cure = "" if isinstance(one, Decimal) else ", so write it as text, such as '2026-05-31'"
        said = f"is a {type(one).__name__}; a store keeps text, numbers and booleans{cure}$"
        with pytest.raises(ValueError, match=said):
            store.upsert([Record("a", VECTOR, "x", {"day": one})])


@pytest.mark.parametrize("kind", KINDS)
def test_bad_queries_and_filters_are_refused(make, kind):
    store = make(kind)
    assert store.search([[1, 0, 0]]) == store.nearest_per_class([[1, 0, 0]]) == [[]]
    assert store.search(np.empty((0, 3))) == []
    for vectors, k, where, message in [
        ([1, 0, 0], 1, None, "shape"),
        ([[1, 0]], 1, None, "shape"),
        ([[1, 0, np.inf]], 1, None, "NaN or infinity"),
        ([[1, 0, 0]], 0, None, "k is 0"),
        ([[1, 0, 0]], True, None, "k is True"),
        ([[1, 0, 0]], 1, {1: 2}, "filter names 1"),
        ([[1, 0, 0]], 1, {"a": {}}, r"'a' in the filter has no bounds; expected values, or bounds such as {'>=': 1"),
        ([[1, 0, 0]], 1, {"a": {"=>": 1}}, "'a' in the filter is compared by '=>'"),
        ([[1, 0, 0]], 1, {"a": {">": "b"}}, r"has the bound 'b'; expected a number between -2\*\*53 and 2\*\*53"),
        ([[1, 0, 0]], 1, {"a": {">": True}}, "has the bound True"),
        ([[1, 0, 0]], 1, {"a": {">": float("nan")}}, "has the bound nan"),
        ([[1, 0, 0]], 1, {"a": {">": 2**53 + 1}}, "has the bound 9007199254740993"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.search(vectors, k, where)
        with pytest.raises(ValueError, match=message):
            store.nearest_per_class(vectors, k, where)
    with pytest.raises(TypeError, match=r"where is 'price > 3'; expected a mapping such as"):
        store.search([[1, 0, 0]], 1, "price > 3")
    with pytest.raises(TypeError, match="a record is {'id': 'a'}; expected Record"):
        store.add([{"id": "a"}])
    assert len(store) == 0
    with pytest.raises(StoreError, match="another store"):
        store.check_embedder("other")
    store.check_embedder("f" * 64)
    with store as same_store:
        assert same_store is store


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_length_the_first_record_decides(make, kind):
    store = make(kind, d=None)
    assert len(store) == 0
    assert store.snapshot() == store.labels() == store.get([]) == store.search_one([1.0]) == []
    assert store.search(np.ones((2, 7))) == store.nearest_per_class(np.ones((2, 7))) == [[], []]
    for change in (store.remove, store.get, lambda ids: store.relabel(dict.fromkeys(ids, "x"))):
        with pytest.raises(ValueError, match="there is no record 'a'"):
            change(["a"])
    with pytest.raises(ValueError, match=r"the vector of 'b' has shape \(2,\); this store holds \(3,\)"):
        store.add([Record("a", VECTOR), Record("b", VECTOR[:2])])
    with pytest.raises(ValueError, match=r"has shape \(0,\); this store holds \(d,\)"):
        store.add([Record("a", VECTOR[:0])])
    assert (len(store), store.d) == (0, None)
    assert store.upsert([Record("a", VECTOR[:2], "x")]) == 1
    assert (len(store), store.d) == (1, 2)
    assert store.search_one([1, 0])[0].label == "x"
    with pytest.raises(ValueError, match=r"searched with \(n, 2\); for one vector there is search_one"):
        store.search([1, 0])
    for images in (["a.jpg"], [Path("a.jpg")], np.zeros((1, 8, 8, 3))):
        with pytest.raises(ValueError, match=r"to search by images, use retrieve\(model, store, images\)"):
            store.search(images)
    with pytest.raises(ValueError, match=r"has shape \(3,\); this store holds \(2,\)"):
        store.add([Record("b", VECTOR)])
    assert "2" in repr(store)


def held(store):
    return state(store), [plain(found) for found in store.search(np.eye(3), 50)]


@pytest.mark.parametrize("metric", METRICS)
def test_a_saved_store_is_the_same_and_changes_like_it(tmp_path, metric):
    store = FaissStore(metric, "f" * 64)
    store.save(tmp_path / "empty")
    assert len(FaissStore.load(tmp_path / "empty")) == 0
    store.add(records(80))
    store.upsert([replace(record, label="new") for record in records(9, seed=1)])
    store.remove(["011", "012"])
    store.save(tmp_path / "store")
    again = FaissStore.load(tmp_path / "store")
    assert held(again) == held(store)
    assert repr(again) == f"FaissStore({metric!r}, 'ffffffffffff', d=3, 78 records)"
    for one in (store, again):
        one.upsert([*records(4, seed=2), *records(90, seed=3)[80:]])
        one.relabel({"020": True})
    again.save(tmp_path / "store")
    assert held(FaissStore.load(tmp_path / "store")) == held(store)
    with pytest.raises(ArtifactError, match="changed"):
        store.save(tmp_path / "store")
    store.save(tmp_path / "store", overwrite=True)
    new = FaissStore(metric, "f" * 64)
    with pytest.raises(ArtifactError, match=r"holds a saved store already, which a new one would replace: load it and"):
        new.save(tmp_path / "store")
    assert held(FaissStore.load(tmp_path / "store")) == held(store)
    new.save(tmp_path / "store", overwrite=True)
    new.save(tmp_path / "store")
    with pytest.raises(ArtifactError, match="it holds a saved store"):
        PrototypeIndex.load(tmp_path / "store")


def test_a_saved_store_that_is_forged_or_damaged_is_refused(tmp_path):
    store = FaissStore("cosine", "f" * 64)
    store.add(records(5))
    store.save(tmp_path)
    (path,) = tmp_path.glob("records-*.json")
    columns = json.loads(path.read_text())
    for name, value in [
        ("number", [0, 1, 2, 3, 9]),
        ("number", [0, 1, 2, 3]),
        ("number", [0, 1, 2, 3, 3]),
        ("number", [0, 1, 2, 3, 4.0]),
        ("id", ["000"] * 5),
        ("id", [0, 1, 2, 3, 4]),
        ("label", [{}] * 5),
        ("payload", [[]] * 5),
        ("payload", [{"n": {}}] * 5),
    ]:
        put(tmp_path, "records.json", json.dumps({**columns, name: value}).encode())
        with pytest.raises(ArtifactError, match="restore it from a copy, or save again"):
            FaissStore.load(tmp_path)
    path.write_bytes(b"{}")
    with pytest.raises(ArtifactError, match="damaged"):
        FaissStore.load(tmp_path)


VALUES = st.sampled_from(["a", "1", 1, 1.0, True, False, 0, None, 0.5])
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "upsert", "relabel", "remove"]),
        st.lists(st.integers(0, 11), min_size=1, max_size=4),
        VALUES,
        VALUES,
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metric=st.sampled_from(METRICS), operations=OPERATIONS, seed=st.integers(0, 99), where=VALUES)
def test_any_order_of_changes_is_as_in_a_dict(make, kind, metric, operations, seed, where):
    store, oracle, rng = make(kind, metric, d=None), {}, np.random.default_rng(seed)
    for what, numbers, label, value in operations:
        ids = [f"r{i}" for i in numbers]
        if what == "relabel":
            if set(ids) <= oracle.keys():
                assert store.relabel(dict.fromkeys(ids, label)) == len(set(ids))
                oracle |= {id: replace(oracle[id], label=label) for id in ids}
            else:
                with pytest.raises(ValueError, match="there is no record"):
                    store.relabel(dict.fromkeys(ids, label))
        elif what in ("add", "upsert"):
            new = [Record(id, np.float32(rng.integers(-2, 3, 3)), label, {"v": value, "w": [value, 7]}) for id in ids]
            if len(set(ids)) < len(ids) or (what == "add" and oracle.keys() & set(ids)):
                with pytest.raises(ValueError, match="already in the store|occurs twice"):
                    getattr(store, what)(new)
            else:
                assert getattr(store, what)(new) == len(new)
                oracle |= {record.id: record for record in new}
        elif not set(ids) <= oracle.keys():
            with pytest.raises(ValueError, match="nothing was removed"):
                store.remove(ids)
        else:
            assert store.remove(ids) == len(set(ids))
            oracle = {id: record for id, record in oracle.items() if id not in ids}
    kept = list(oracle.values())
    assert state(store) == sorted(described(record) for record in kept)
    assert list(map(described, store.get(list(oracle)))) == list(map(described, kept))
    assert len(store) == len(kept)
    for query in np.float32([[1, 0, 2], [0, 0, 0]]):
        for condition in (None, {"label": where}, {"v": [where, "a"]}, {"w": where}, {"v": {">": 0.2, "<=": 1}}):
            check_nearest(store.search([query], 4, condition)[0], kept, query, 4, metric, condition)
            passing = {match[0] for match in expected(kept, query, 12, metric, condition)}
            assert {record.id for record in store.snapshot(condition)} == passing


@pytest.mark.parametrize("metric", METRICS)
def test_similarities_are_those_of_the_package(metric):
    rng = np.random.default_rng(0)
    keys, query = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    keys[3] = 0
    wanted = pairwise_similarity(torch.from_numpy(query[None]).double(), torch.from_numpy(keys).double(), metric)[0]
    assert similarities(query, list(keys), metric) == pytest.approx(wanted.numpy(), abs=1e-12)
    one_by_one = [similarities(query, [key], metric)[0] for key in keys]
    assert similarities(query, list(keys), metric).tolist() == one_by_one
    assert similarities(query, [], metric).shape == (0,)


def test_tokens_know_types():
    values = ["1", 1, True, None, "true", "null", 0, False, 0.1, "0.1", 2**62, float(2**62)]
    assert len({token("a", value) for value in values}) == len(values)
    assert token("a", 1) == token("a", 1.0) != token("b", 1)
    assert token("a", 0) == token("a", -0.0) == token("a", 0.0)
    assert token("a", 1e22) == token("a", 10**22)
    assert uuid_of("a") != uuid_of("b")


def test_a_store_is_made_for_one_metric_embedder_and_length():
    for arguments, error in [
        (("cosin", "f", 3), UnknownNameError),
        (("cosine", "", 3), ValueError),
        (("cosine", "f", 0), ValueError),
    ]:
        with pytest.raises(error):
            FaissStore(*arguments)


def test_what_goes_in_and_comes_out_of_memory_is_a_copy():
    vector, store = np.float32([1, 0]), FaissStore("cosine", "f", 2)
    store.add([Record("a", vector, "x", {"n": 1})])
    vector[:] = 9
    (record,) = store.snapshot()
    record.vector[:] = 7
    store.search([[1, 0]])[0][0].payload["n"] = 2
    assert store.search([[1, 0]])[0][0].payload == {"n": 1}
    assert store.snapshot()[0].vector.tolist() == [1, 0]


def test_threads_may_search_while_one_adds_and_removes():
    store, wrong, done = FaissStore("sqeuclidean", "f", 3), [], threading.Event()
    store.add(records(40))

    def search():
        while not done.is_set():
            for where in (None, {"label": "cat"}):
                found = store.search([[1, 0, 0]], 5, where)[0]
                if len(found) < 5 or found != sorted(found, key=lambda m: (-m.similarity, m.id)):
                    wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(60):
        extra = [Record(f"x{i}-{j}", np.float32([1, j, 0]), "cat") for j in range(5)]
        store.add(extra)
        store.remove([record.id for record in extra])
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(store) == 40


@pytest.mark.parametrize(("kind", "module"), [("pgvector", "psycopg"), ("qdrant", "qdrant_client")])
def test_a_missing_package_is_named(monkeypatch, kind, module):
    from fewshot.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "fewshot-learn\[{kind}\]"'):
        _ = PgVectorStore("", "t", "dot", "f", 2) if kind == "pgvector" else QdrantStore(":memory:", "t", "dot", "f", 2)


def test_checks_return_what_a_store_keeps():
    record = check_record(Record("a", [1, 2], np.int64(3), {"n": [np.float32(0.5)]}), 2, "abc")
    assert (record.vector.dtype, type(record.label), record.payload) == (np.float32, int, {"n": [0.5]})
    masked = np.ma.masked_array([1.5], [True])[0]
    missing = [None, np.nan, np.float32("nan"), np.array(np.nan), torch.tensor(np.nan), pd.NA, pd.NaT, masked]
    missing += [np.datetime64("NaT"), pa.scalar(None, pa.float64())]
    given = {"list": missing, **{str(i): value for i, value in enumerate(missing)}}
    kept = check_record(Record("a", [1, 2], payload=given), 2, "abc").payload
    assert kept == {"list": [None] * len(missing), **dict.fromkeys(map(str, range(len(missing))))}
    assert check_queries([[1, 2]], 2, np.int64(3)).dtype == np.float32


@pytest.mark.parametrize("metric", ["sqeuclidean", "dot"])
def test_tiny_vectors_are_told_apart(metric):
    vectors = (1e-25 * np.random.default_rng(0).normal(size=(300, 8))).astype(np.float32)
    made = FaissStore(metric, "f", 8)
    made.add(Record(str(i), vector) for i, vector in enumerate(vectors))
    for query, found in zip(vectors[::30], made.search(vectors[::30], 1), strict=True):
        assert found[0].id == str(similarities(query, list(vectors), metric).argmax())


def test_an_address_that_cannot_be_read_is_not_quoted_with_its_password():
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="address of PostgreSQL") as told:
        len(PgVectorStore("postgres//u:secret@server/db", "products", "cosine", "3f2a"))
    assert "secret" not in str(told.value)
