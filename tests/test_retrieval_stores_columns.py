"""Filters of a store in memory find what looking at each record finds, to the last digit and in its order."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import FaissStore, Record
from fewshot.retrieval.stores import columns as module
from fewshot.retrieval.stores.base import similarities
from fewshot.retrieval.stores.records import COMPARISONS, Range, check_where, token, tokens
from fewshot.search.similarity import METRICS

WORDS = ["a", "1", "", "caf\u00e9", "cafe\u0301", True, False, None]
NUMBERS = [0, -0.0, 1, 1.0, 0.5, 2**53, 2**53 + 1, -(2**53) - 1, 2.0**53, 2**62, 2.0**62, 1e300, 5e-324]
VALUES = st.sampled_from(WORDS + NUMBERS)
NAMES = st.sampled_from(["p", "q", "label"])
PAYLOADS = st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3), max_size=3)
BOUNDS = st.dictionaries(
    st.sampled_from([">", ">=", "<", "<="]), st.sampled_from([-(2**53), 0, 0.5, 1, 2.0, 2**53]), min_size=1
)
WHERE = st.dictionaries(NAMES | st.just("none"), VALUES | st.lists(VALUES, max_size=3) | BOUNDS, min_size=1, max_size=2)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["upsert", "relabel", "remove"]), st.sets(st.integers(0, 60), min_size=1, max_size=25)),
    max_size=4,
)


def slowly(kept, queries, n, conditions, metric):
    """Return the candidates that looking at each record finds."""
    wanted = [{token(name, v) for v in some} for name, some in conditions.items() if not isinstance(some, Range)]
    bounds = [(name, some) for name, some in conditions.items() if isinstance(some, Range)]
    records = [
        record
        for record in kept
        if not any(some.isdisjoint(tokens(record.label, record.payload)) for some in wanted)
        and all(some.holds(record.label if name == "label" else record.payload.get(name)) for name, some in bounds)
    ]
    if len(records) <= n:
        return [[record.id for record in records]] * len(queries)
    values = [similarities(query, [record.vector for record in records], metric) for query in queries]
    return [[records[i].id for i in np.argsort(-own, kind="stable")[:n].tolist()] for own in values]


def check(store, kept, queries, n, where):
    conditions = check_where(where)
    found = store._candidates(queries, n, conditions)
    assert [[record.id for record in row] for row in found] == slowly(kept, queries, n, conditions, store.metric), where
    assert all(np.array_equal(one.vector, next(r.vector for r in kept if r.id == one.id)) for one in found[0])


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    metric=st.sampled_from(METRICS),
    d=st.integers(1, 9),
    scale=st.sampled_from([1e-40, 1e-25, 1e-3, 1.0, 1e15]),
    shift=st.sampled_from([0.0, 1000.0]),
    whole=st.booleans(),
    changes=CHANGES,
)
def test_filters_find_what_looking_at_each_record_finds(data, metric, d, scale, shift, whole, changes):
    rng, kept = np.random.default_rng(data.draw(st.integers(0, 99))), {}
    store = FaissStore(metric, "f", d)
    for what, numbers in [("upsert", set(range(40))), *changes]:
        ids = [f"{i:02d}" for i in numbers]
        if what == "upsert":
            x = rng.integers(-1, 2, (len(ids), d)) if whole else rng.normal(size=(len(ids), d))
            x = np.float32(np.clip((x + shift) * scale, -1e15, 1e15))
            payloads = data.draw(st.lists(PAYLOADS, min_size=3, max_size=3))
            labels = data.draw(st.lists(VALUES, min_size=3, max_size=3))
            new = [Record(id, x[i], labels[i % 3], payloads[i % 2 + i % 3 // 2]) for i, id in enumerate(ids)]
            store.upsert(new)
            kept |= {record.id: record for record in new}
        else:
            ids = [id for id in ids if id in kept]
            if what == "remove":
                store.remove(ids)
                kept = {id: record for id, record in kept.items() if id not in ids}
            else:
                label = data.draw(VALUES)
                store.relabel(dict.fromkeys(ids, label))
                kept |= {id: replace(kept[id], label=label) for id in ids}
        queries = np.float32(np.clip((rng.integers(-1, 2, (2, d)) + shift) * scale, -1e15, 1e15))
        for where in data.draw(st.lists(WHERE, min_size=1, max_size=3)):
            check(store, list(kept.values()), queries, data.draw(st.integers(1, 12)), where)


@pytest.mark.parametrize("value", [2**53, 2**53 + 1, 2**62, -(2**53) - 1])
def test_integers_that_float64_rounds_are_on_their_side_of_a_bound(value):
    store = FaissStore("dot", "f", 1)
    store.add([Record("a", [1], "x", {"p": value})])
    for sign, bound in ((">", 2**53), ("<=", 2**53), ("<", -(2**53)), (">=", -(2**53))):
        found = store.search_one([1], 1, {"p": {sign: bound}})
        assert bool(found) == COMPARISONS[sign](value, bound)


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_among_many_and_parts_of_them_are_ranked_as_in_float64(monkeypatch, metric):
    monkeypatch.setattr(module, "PART", 64)
    rng, store = np.random.default_rng(0), FaissStore(metric, "f", 32)
    near = 1 + 1e-7 * rng.normal(size=(200, 32))  # alike in float32 products
    x = np.float32(np.concatenate([near, rng.normal(size=(800, 32))]))
    kept = [Record(f"{i:03d}", v, i % 7, {"n": i % 10}) for i, v in enumerate(x[rng.permutation(1000)])]
    store.add(kept)
    store.add(more := [Record(f"m{i}", v, 3, {"n": 3}) for i, v in enumerate(x[:30])])
    for where in ({"n": {">=": 0}}, {"n": {"<": 8}}, {"n": 3}, {"label": 3, "n": [3, 4]}):
        check(store, kept + more, np.float32(np.concatenate([np.ones((1, 32)), x[500:502]])), 9, where)


def test_only_candidates_are_compared_in_float64_and_columns_are_made_once(monkeypatch):
    compared, rng = [], np.random.default_rng(0)
    monkeypatch.setattr(module, "similarities", lambda q, x, m: compared.append(len(x)) or similarities(q, x, m))
    store = FaissStore("cosine", "f", 16)
    store.add(Record(str(i), v, i % 2, {"n": i / 4}) for i, v in enumerate(np.float32(rng.normal(size=(4000, 16)))))
    for where in ({"label": 1}, {"n": {"<": 900}}, {"n": {"<": 900}, "label": 1.0}, {"n": {"<": 20}}):
        store.search_one(np.ones(16), 5, where)
    assert sum(compared) < 400
    columns = store._columns
    assert columns._columns.keys() == {"label", "n"}
    with pytest.warns(UserWarning, match="did you mean label"):
        store.search_one(np.ones(16), 5, {"labels": 1})
    assert columns._columns.keys() == {"label", "n"}  # a stranger may ask for any number of names
    assert np.shares_memory(columns._parts[0], store._index.state.base.snapshot.keys.numpy())
    store._index.compact()  # another state with the same keys
    store.search_one(np.ones(16), 5, {"label": 1})
    assert store._columns is columns or store._columns.state is store._index.state


def test_a_filter_finds_what_is_there_while_a_slow_writer_is_at_work():
    store, waiting, go = FaissStore("dot", "f", 2), threading.Event(), threading.Event()
    store.add([Record("a", [1, 0], "x"), Record("b", [0, 1], "y")])

    def slow():
        yield Record("c", [2, 0], "x")
        waiting.set()
        go.wait(60)

    thread = threading.Thread(target=store.add, args=(slow(),))
    thread.start()
    waiting.wait(60)
    found = []
    reader = threading.Thread(target=lambda: found.extend(store.search_one([1, 0], 5, {"label": "x"})))
    reader.start()
    reader.join(60)
    go.set()
    thread.join()
    assert [match.id for match in found] == ["a"]
    assert [match.id for match in store.search_one([1, 0], 5, {"label": "x"})] == ["c", "a"]
    store.remove(["a", "b", "c"])
    assert store.search_one([1, 0], 5, {"label": "x"}) == []
