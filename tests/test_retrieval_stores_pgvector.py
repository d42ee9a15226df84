import json

import numpy as np
import pytest

from fewshot.errors import StoreError
from fewshot.retrieval.stores.pgvector import HNSW_LIMIT, PgVectorStore
from fewshot.retrieval.stores.records import Record
from fewshot.search.similarity import METRICS
from tests.postgres import postgres, table  # noqa: F401

psycopg = pytest.importorskip("psycopg", reason="psycopg is missing; run: pip install 'fewshot-learn[pgvector]'")


def records(n, d=2, start=0):
    x = np.random.default_rng(start).normal(size=(n, d)).astype(np.float32)
    return [Record(f"{start + i:05d}", row, "ab"[i % 2], {"rare": i % 50 == 0}) for i, row in enumerate(x)]


def test_a_table_is_opened_again_and_refuses_other_vectors(postgres, table):  # noqa: F811
    with PgVectorStore(postgres, table, "cosine", "f" * 64, 2) as store:
        store.add(records(3))
    again = PgVectorStore(postgres, table, "cosine", "f" * 64, 2, create=False)
    assert len(again) == 3
    for metric, fingerprint, d, message in [
        ("dot", "f" * 64, 2, "metric='cosine', not 'dot'"),
        ("cosine", "e" * 64, 2, "embedder ffffffffffff, and eeeeeeeeeeee was given"),
        ("cosine", "f" * 64, 3, "d=2, not 3"),
    ]:
        with pytest.raises(StoreError, match=message):
            PgVectorStore(postgres, table, metric, fingerprint, d)
    again.close()
    assert len(again) == 3  # opens another connection
    again.close()


def test_what_is_no_store_is_refused(postgres, table):  # noqa: F811
    with pytest.raises(StoreError, match="no table"):
        PgVectorStore(postgres, table, "cosine", "f", 2, create=False)
    with psycopg.connect(postgres) as connection:
        connection.execute(f"CREATE TABLE {table} (id text)")
        for comment in (None, "flowers", "[]", '{"fewshot_store": 3}'):
            connection.execute(f"COMMENT ON TABLE {table} IS {'NULL' if comment is None else repr(comment)}")
            connection.commit()
            with pytest.raises(StoreError, match="not a store"):
                PgVectorStore(postgres, table, "cosine", "f", 2)
    with pytest.raises(StoreError, match="make sure that"):
        PgVectorStore("host=/nowhere dbname=x", table, "cosine", "f", 2)
    for arguments, message in [
        ({"table": "é" * 32}, "63 bytes"),
        ({"table": ""}, "63 bytes"),
        ({"d": 16001}, "16000"),
        ({"ef_search": 0}, "1 to 1000"),
    ]:
        given = {"table": table, "metric": "dot", "fingerprint": "f", "d": 2, **arguments}
        with pytest.raises(ValueError, match=message):
            PgVectorStore(postgres, **given)


@pytest.mark.parametrize("name", ['x\'; DROP TABLE "y"; --', "%s %% %(a)s", "{table} {}", "ü\U0001f600", "A.b"])
def test_a_table_may_have_any_name(postgres, name):  # noqa: F811
    with PgVectorStore(postgres, name, "dot", "f\"'%s", 2, exact=False) as store:
        assert store.add(records(3)) == 3
        assert store.remove(["00001"]) == 1
        assert len(store.search([[1, 0]], where={"label": "a"})[0]) == len(store) == 2
        assert len(store.nearest_per_class([[1, 0]])[0]) == len(store.labels()) == 1
        assert [record.id for record in store.snapshot()] == ["00000", "00002"]
    PgVectorStore(postgres, name, "dot", "f\"'%s", 2, exact=False).close()


def test_a_connection_lost_midway_writes_nothing_and_the_next_call_connects_anew(postgres, table):  # noqa: F811
    store = PgVectorStore(postgres, table, "cosine", "f", 2)
    store.add(records(5))
    killed = []

    def lost():
        for i, record in enumerate(records(4000, start=100)):
            if i == 1300:  # the first thousand have been sent
                with psycopg.connect(postgres, autocommit=True) as other:
                    mine = "pid <> pg_backend_pid() AND query LIKE %s"
                    killed.extend(
                        other.execute(
                            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}",
                            [f'%COPY "{table}"%'],
                        ).fetchall()
                    )
            yield record

    with pytest.raises(StoreError, match="nothing was written, unless the server was just committing; make"):
        store.add(lost())
    assert killed == [(True,)]
    assert [record.id for record in store.snapshot()] == [record.id for record in records(5)]
    assert store.add(records(1500, start=100)) == 1500
    store.close()


def test_what_a_generator_raises_undoes_what_was_sent(postgres, table):  # noqa: F811
    store = PgVectorStore(postgres, table, "cosine", "f", 2)

    def broken(last):
        yield from records(2500)
        yield last() if callable(last) else last

    for last, message in [
        (lambda: [][0], "index out of range"),
        (records(1)[0], "the id '00000' is already in the store or occurs twice"),
        (Record("zzz", np.float32([1, np.nan])), "'zzz' holds NaN"),
    ]:
        with pytest.raises((IndexError, ValueError), match=message):
            store.add(broken(last))
        assert len(store) == 0
    store.close()


def test_a_failing_upsert_changes_nothing_and_a_table_is_made_by_the_first_record(postgres, table):  # noqa: F811
    store, other = (PgVectorStore(postgres, table, "cosine", "f", exact=False) for _ in range(2))
    assert (store.d, len(store), store.exact) == (None, 0, False)
    assert store.add(records(1500)) == 1500
    assert (len(other), other.d) == (1500, 2)  # it looks
    before = [(r.id, r.vector.tolist(), r.label) for r in store.snapshot()]
    changed = [Record(r.id, -r.vector, "new") for r in records(1500)]
    for last, message in [
        (Record("zzz", np.float32([1, np.nan])), "'zzz' holds NaN"),
        (changed[0], "the id '00000' occurs twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            other.upsert(iter([*changed, last]))
        assert [(r.id, r.vector.tolist(), r.label) for r in store.snapshot()] == before
    assert other.upsert(iter(changed)) == 1500
    assert store.relabel({"00001": "one", "00002": None}) == 2
    assert [r.label for r in store.get(["00002", "00001", "00000"])] == [None, "one", "new"]
    with pytest.raises(StoreError, match="there is no table"):
        PgVectorStore(postgres, f"{table}x", "cosine", "f", create=False)
    with pytest.raises(StoreError, match="d=2, not 3"):
        PgVectorStore(postgres, table, "cosine", "f", 3)
    assert PgVectorStore(**other.parameters).search_one([1, 0]) == other.search_one([1, 0])
    secret = PgVectorStore(f"{postgres.replace('postgres:@', 'postgres:s3cret@')}", table, "cosine", "f")
    with pytest.raises(ValueError, match="holds a password, which must not be written down; leave it out"):
        _ = secret.parameters
    for one in (store, other, secret):
        one.close()


def test_two_stores_see_each_other(postgres, table):  # noqa: F811
    one, two = (PgVectorStore(postgres, table, "cosine", "f", 2) for _ in range(2))
    one.add(records(3))
    assert len(two) == 3
    with pytest.raises(ValueError, match="'00001' is already in the store"):
        two.add([Record("00001", np.float32([1, 0]))])
    two.remove(["00001"])
    assert len(one) == 2
    with psycopg.connect(postgres) as connection:
        (comment,) = connection.execute("SELECT obj_description(to_regclass(%s))", [table]).fetchone()
        assert json.loads(comment) == {"fewshot_store": {"metric": "cosine", "fingerprint": "f", "d": 2}}
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreError, match="PostgreSQL refused"):
        one.search([[1, 0]])
    one.close()
    two.close()


@pytest.mark.parametrize("metric", METRICS)
def test_hnsw_finds_nearly_all_neighbours_also_those_that_pass_a_filter(postgres, table, metric):  # noqa: F811
    kept = records(3000, d=8)
    with PgVectorStore(postgres, table, metric, "f", 8, exact=False) as store:
        store.add(kept)
        store.add([Record("zero", np.zeros(8, np.float32))])
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"ANALYZE {table}")
            (plan,) = connection.execute(
                "SELECT count(*) FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%hnsw%%'", [table]
            ).fetchone()
            assert plan == 1
        exact = PgVectorStore(postgres, table, metric, "f", 8)
        queries = np.random.default_rng(9).normal(size=(20, 8)).astype(np.float32)
        for where in (None, {"rare": True}):
            pairs = zip(store.search(queries, 10, where), exact.search(queries, 10, where), strict=True)
            shares = [len({m.id for m in a} & {m.id for m in b}) / 10 for a, b in pairs]
            assert np.mean(shares) > 0.95
        zero = np.zeros((1, 8), np.float32)
        assert store.search(zero, 3)[0] == exact.search(zero, 3)[0] or metric == "sqeuclidean"
        # Before version 0.8 a filter would leave too few of what HNSW proposes.
        store._iterative = False
        assert store.search(queries, 10, {"rare": True}) == exact.search(queries, 10, {"rare": True})
        exact.close()


def test_beyond_2000_dimensions_there_is_no_index_and_search_is_exact(postgres, table):  # noqa: F811
    with PgVectorStore(postgres, table, "cosine", "f", HNSW_LIMIT + 1, exact=False) as store:
        assert store.exact
        store.add(records(5, d=HNSW_LIMIT + 1))
        assert store.search([records(5, d=HNSW_LIMIT + 1)[3].vector], 1)[0][0].id == "00003"
