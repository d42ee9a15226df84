"""A store in PostgreSQL with the extension pgvector."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import numpy as np

from fewshot.errors import StoreError, missing
from fewshot.retrieval.stores.base import BATCH, UNTOUCHED, Store, Vectors, first_line, refuse_missing
from fewshot.retrieval.stores.records import Conditions, Range, Record, several, uuid_of
from fewshot.search.similarity import Metric

#: For each metric, pgvector's operator and the operator class of an HNSW index.
OPERATORS = {
    "sqeuclidean": ("<->", "vector_l2_ops"),
    "cosine": ("<=>", "vector_cosine_ops"),
    "dot": ("<#>", "vector_ip_ops"),
}
#: Most dimensions that pgvector can index, and can store.
HNSW_LIMIT, VECTOR_LIMIT = 2000, 16000
#: Most bytes of a name in PostgreSQL, which truncates longer ones; and the largest ef_search of HNSW.
NAME_LIMIT, EF_LIMIT = 63, 1000
#: Advisory lock for creating tables, so that only one process does at a time.
_LOCK = 7239461
_RECORD = "id, label, payload, vector"


class PgVectorStore(Store):
    """A store in a table of PostgreSQL (extra ``pgvector``).

    Metric, embedder and vector length are stored in the table's comment, so dumps keep them. Each call is one
    transaction; if the connection is lost, it is rolled back, and the next call reconnects. If the connection is lost
    during the commit itself, the outcome is unknown: check whether the records exist.

    By default a search compares all rows, in PostgreSQL, and is exact. With ``exact=False`` it uses an HNSW index,
    created when the store is opened, which is faster for many rows and may miss neighbours, more of them under ``dot``.
    The index omits vectors of length 0 under ``cosine``; beyond 2000 dimensions there is none, and search stays exact.
    Filters are applied during the index scan (pgvector 0.8, which stops after 20000 rows); in older versions a search
    with a filter is exact. PostgreSQL computes in float32: under ``cosine`` vectors shorter than 1e-19 count as 0.

    Parameters
    ----------
    connection_string : str
        In the format of libpq: ``postgresql://user:password@host/database`` or ``host=... dbname=...``.
    table : str
        Name of the table.
    metric, fingerprint, d
        As for `Store`; must match those of an existing table.
    create : bool, default=True
        Whether to create the table and the extension if they do not exist; the table, as soon as `d` is known.
    exact : bool, default=True
        Whether to compare all rows.
    ef_search : int, default=100
        Rows that HNSW examines for a query, at most 1000.

    Raises
    ------
    MissingExtraError
        If psycopg or pgvector is not installed.
    StoreError
        If the database cannot be reached or lacks pgvector, or the table is missing, is not a store, or belongs to
        another embedder.

    Examples
    --------
    >>> store = PgVectorStore("postgresql://localhost/images", "flowers", "cosine", "3f2a", d=512)  # doctest: +SKIP
    >>> store.search(embedder.embed(["new.jpg"]), k=3, where={"label": ["rose", "tulip"]})  # doctest: +SKIP
    """

    def __init__(
        self,
        connection_string: str,
        table: str,
        metric: Metric,
        fingerprint: str,
        d: int | None = None,
        *,
        create: bool = True,
        exact: bool = True,
        ef_search: int = 100,
    ) -> None:
        try:
            import pgvector.psycopg
            import psycopg
        except ImportError:
            raise missing("psycopg or pgvector is missing", "pgvector") from None
        super().__init__(metric, fingerprint, d)
        if not table or "\0" in table or len(table.encode()) > NAME_LIMIT:
            raise ValueError(f"table is {table!r}; expected a name of 1 to {NAME_LIMIT} bytes")
        _refuse_long(d or 0)
        if not 1 <= ef_search <= EF_LIMIT:
            raise ValueError(f"ef_search is {ef_search}; expected 1 to {EF_LIMIT}")
        self.table, self._exact, self.ef_search = table, bool(exact), int(ef_search)
        self._psycopg, self._register = psycopg, pgvector.psycopg.register_vector
        self._jsonb = psycopg.types.json.Jsonb
        self._connection_string, self._lock = connection_string, threading.RLock()
        self._connection: Any = None
        try:
            with self._transaction(vectors=False) as connection:
                self._open(connection, create)
                if create and self.d is not None:
                    self._create(connection, self.d)
        except BaseException:
            self.close()
            raise

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments that open it; see `Store.parameters`."""
        if self._psycopg.conninfo.conninfo_to_dict(self._connection_string).get("password"):
            raise ValueError(
                "connection_string holds a password, which must not be written down; leave it out of the string, and "
                "set PGPASSWORD or use a password file"
            )
        place = {"connection_string": self._connection_string, "table": self.table}
        return {**place, **self._facts, "exact": self._exact, "ef_search": self.ef_search}

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock, suppress(Exception):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @contextmanager
    def _transaction(self, vectors: bool = True) -> Iterator[Any]:
        """Yield the connection inside a transaction, which any error rolls back.

        With ``vectors=False`` the extension pgvector need not be installed yet.

        Raises
        ------
        StoreError
            If the server cannot be reached, the connection is lost, or a statement is refused.
        """
        psycopg = self._psycopg
        with self._lock:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self._connection_string, autocommit=True)
                    psycopg.types.json.set_json_loads(_loads, self._connection)
                    if vectors:
                        self._register(self._connection)
                with self._connection.transaction():
                    yield self._connection
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self.close()
                raise StoreError(
                    f"the connection to PostgreSQL, table {self.table!r}, failed ({first_line(error)}); nothing was "
                    "written, unless the server was just committing; make sure that it runs, then call again, "
                    "which reconnects"
                ) from error
            except psycopg.Error as error:
                if self._connection is None:  # the message would quote the address, and a password in it
                    raise StoreError(
                        f"the address of PostgreSQL, table {self.table!r}, cannot be read; expected one such as "
                        "postgresql://user:password@server:5432/database"
                    ) from None
                raise StoreError(
                    f"PostgreSQL refused a statement, table {self.table!r}: {first_line(error)}; nothing was written, "
                    "so call again once that is fixed"
                ) from error

    def _sql(self, text: str, **facts: Any) -> Any:
        """Insert the table name, and literals in definitions, which take no parameters."""
        sql = self._psycopg.sql
        # psycopg unescapes the name in statements with parameters.
        name = self.table.replace("%", "%%") if "%s" in text else self.table
        literals = {key: sql.Literal(value) for key, value in facts.items()}
        return sql.SQL(text).format(table=sql.Identifier(name), **literals)

    @property
    def exact(self) -> bool:
        """Whether all rows are compared."""
        return self._exact or (self.d or 0) > HNSW_LIMIT

    def _open(self, connection: Any, create: bool) -> None:
        """Check that an existing table is for the same vectors."""
        if create:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        if not self._is_there(connection) and not create:
            raise StoreError(f"there is no table {self.table!r} in the database; give its name, or create=True")
        self._register(connection)
        version = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0]
        self._iterative = tuple(map(int, re.findall(r"\d+", version)))[:2] >= (0, 8)

    def _is_there(self, connection: Any) -> bool:
        """Return whether the table exists; check its facts."""
        there, comment = connection.execute(
            "SELECT to_regclass(quote_ident(%s)), obj_description(to_regclass(quote_ident(%s)), 'pg_class')",
            [self.table, self.table],
        ).fetchone()
        if there is not None:
            cure = "its comment does not say so; give another name"
            self._check_facts(_facts_in(comment), f"the table {self.table!r}", cure)
        return there is not None

    def _look(self) -> None:
        with self._transaction() as connection:
            self._is_there(connection)

    def _make(self, d: int) -> None:
        _refuse_long(d)
        with self._transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            self._create(connection, d)

    def _create(self, connection: Any, d: int) -> None:
        """Create the table and its index, unless they are there."""
        if not self._is_there(connection):
            # A fixed-length key, because an index on ids would refuse more than 2704 bytes.
            facts = json.dumps({"fewshot_store": {**self._facts, "d": d}})
            connection.execute(self._sql(_TABLE, d=d, facts=facts))
        if not self._exact and d <= HNSW_LIMIT and not connection.execute(_HAS_HNSW, [self.table]).fetchone():
            index = f"CREATE INDEX ON {{table}} USING hnsw (vector {OPERATORS[self.metric][1]})"
            connection.execute(self._sql(index))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._transaction() as connection:
            connection.execute(self._sql("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
            yield

    # ---- records --------------------------------------------------------------------------------------------------

    def add(self, records: Iterable[Record]) -> int:
        """Add records in one transaction, sending 1000 at a time; see `Store.add`.

        Other threads that use this store wait until it ends, so add a long stream in parts.
        """
        total, waiting = 0, iter(several(records))
        batch = self._first(waiting)
        into = self._sql("COPY {table} (key, id, label, payload, vector) FROM STDIN (FORMAT BINARY)")
        try:
            with self._transaction() as connection, connection.cursor() as cursor:
                while batch:
                    with cursor.copy(into) as copy:
                        copy.set_types(["uuid", "text", "jsonb", "jsonb", "vector"])
                        for record in batch:
                            copy.write_row(self._row(record))
                    total += len(batch)
                    batch = self._checked(islice(waiting, BATCH))
        except StoreError as error:
            if isinstance(error.__cause__, self._psycopg.errors.UniqueViolation):
                id = _taken(str(error.__cause__.diag.message_detail), batch)
                raise ValueError(f"the id {id!r} is already in the store or occurs twice; ids must differ") from None
            raise
        return total

    def upsert(self, records: Iterable[Record]) -> int:
        """Add or replace records in one transaction, sending 1000 at a time; see `Store.upsert`."""
        seen, waiting = set[str](), iter(several(records))
        batch = self._first(waiting)
        with self._transaction() as connection, connection.cursor() as cursor:
            while batch:
                for record in batch:
                    if record.id in seen:
                        raise ValueError(f"the id {record.id!r} occurs twice; ids must differ")
                    seen.add(record.id)
                # In the order of the keys, so that two writers do not wait for each other.
                cursor.executemany(self._sql(_UPSERT), sorted(map(self._row, batch), key=lambda row: row[0]))
                batch = self._checked(islice(waiting, BATCH))
        return len(seen)

    def _first(self, waiting: Iterator[Record]) -> list[Record]:
        """Return the first batch, before whose vectors the table may not exist."""
        batch = self._checked(islice(waiting, BATCH))
        self._settle(batch)
        return batch

    def _row(self, record: Record) -> tuple[Any, ...]:
        label, payload = self._jsonb(record.label), self._jsonb(dict(record.payload))
        return uuid_of(record.id), record.id, label, payload, record.vector

    def _get(self, ids: list[str]) -> Iterable[Record]:
        statement = self._sql(f"SELECT {_RECORD} FROM {{table}} WHERE key = ANY(%s)")
        with self._transaction() as connection:
            rows = connection.execute(statement, [[uuid_of(id) for id in ids]], binary=True).fetchall()
        return map(self._to_record, rows)

    def _count(self) -> int:
        with self._transaction() as connection:
            return int(connection.execute(self._sql("SELECT count(*) FROM {table}")).fetchone()[0])

    def _remove(self, ids: list[str]) -> None:
        with self._transaction() as connection:
            statement = self._sql("DELETE FROM {table} WHERE key = ANY(%s) RETURNING id")
            gone = {id for (id,) in connection.execute(statement, [[uuid_of(id) for id in ids]])}
            refuse_missing(ids, gone, UNTOUCHED)

    def _records(self, conditions: Conditions) -> Iterable[Record]:
        passing, values = self._where(conditions)
        statement = self._sql(f"SELECT {_RECORD} FROM {{table}} WHERE {passing}")  # without parameters if all pass
        with self._transaction() as connection:
            rows = connection.execute(statement, values or None, binary=True).fetchall()
        return map(self._to_record, rows)

    def _labels(self) -> Iterable[Any]:
        with self._transaction() as connection:
            return [label for (label,) in connection.execute(self._sql("SELECT DISTINCT label FROM {table}"))]

    # ---- searching ------------------------------------------------------------------------------------------------

    def _candidates(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        passing, values = self._where(conditions)
        found = []
        with self._transaction() as connection:
            for query in queries:
                if walk := not self.exact and (self._iterative or not conditions) and bool(query.any()):
                    self._tune(connection, n)
                order = f"vector {OPERATORS[self.metric][0]} %s" if walk else f'{self._distance}, id COLLATE "C"'
                statement = self._sql(f"SELECT {_RECORD} FROM {{table}} WHERE {passing} ORDER BY {order} LIMIT %s")
                found.append(connection.execute(statement, [*values, query, n], binary=True).fetchall())
        return [list(map(self._to_record, rows)) for rows in found]

    def _candidates_per_class(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        """Exact up to float32 rounding within a class."""
        passing, values = self._where(conditions)
        inner = f"SELECT DISTINCT ON (label) *, {self._distance} AS distance FROM {{table}} WHERE {passing} "
        inner += 'ORDER BY label, distance, id COLLATE "C"'
        statement = self._sql(f'SELECT {_RECORD} FROM ({inner}) best ORDER BY distance, id COLLATE "C" LIMIT %s')
        with self._transaction() as connection:
            found = [connection.execute(statement, [query, *values, n], binary=True).fetchall() for query in queries]
        return [list(map(self._to_record, rows)) for rows in found]

    def _to_record(self, row: tuple[Any, ...]) -> Record:
        id, label, payload, vector = row
        vector = vector.to_numpy() if hasattr(vector, "to_numpy") else vector  # an array before pgvector 0.5
        return Record(id, np.array(vector, np.float32), label, payload, self.fingerprint)

    @property
    def _distance(self) -> str:
        """The distance in a form that no index covers, so that all rows are compared; zero vectors have cosine 0."""
        distance = f"vector {OPERATORS[self.metric][0]} %s"
        return f"coalesce(nullif({distance}, 'NaN'), 1)" if self.metric == "cosine" else f"({distance}) + 0"

    def _where(self, conditions: Conditions) -> tuple[str, list[Any]]:
        """Return conditions and their parameters; ``@>`` compares JSON values and looks into lists, as paths do."""
        jsonb, parts, values = self._jsonb, ["true"], list[Any]()
        for name, some in conditions.items():
            value = "label" if name == "label" else "(payload -> %s)"
            values += [] if name == "label" else [name]
            if isinstance(some, Range):
                bounds = " && ".join(f"@ {sign} {json.dumps(bound)}" for sign, bound in some.bounds.items())
                parts.append(f"coalesce(jsonb_path_exists({value}, %s::jsonpath), false)")
                values.append(f"$[*] ? ({bounds})")
            else:
                parts.append(f"{value} = ANY(%s)" if name == "label" else f"{value} @> ANY(%s)")
                values.append([jsonb(one) for one in some])
        return " AND ".join(parts), values

    def _tune(self, connection: Any, n: int) -> None:
        """Make HNSW examine enough rows for `n` answers, and continue if a filter leaves too few."""
        connection.execute(
            "SELECT set_config('hnsw.ef_search', %s, true)", [str(min(EF_LIMIT, max(self.ef_search, n)))]
        )
        if self._iterative:
            connection.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")


_TABLE = """CREATE TABLE {table}
(key uuid PRIMARY KEY, id text NOT NULL, label jsonb NOT NULL, payload jsonb NOT NULL, vector vector({d}) NOT NULL);
COMMENT ON TABLE {table} IS {facts}"""
_UPSERT = """INSERT INTO {table} (key, id, label, payload, vector) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (key) DO UPDATE SET label = excluded.label, payload = excluded.payload, vector = excluded.vector"""
_HAS_HNSW = """SELECT 1 FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE indrelid = to_regclass(quote_ident(%s)) AND amname = 'hnsw'"""


def _refuse_long(d: int) -> None:
    if d > VECTOR_LIMIT:
        raise ValueError(f"d is {d}; pgvector holds vectors of up to {VECTOR_LIMIT} dimensions: reduce them first")


def _facts_in(comment: str | None) -> Any:
    with suppress(ValueError, KeyError, TypeError):
        return json.loads(comment or "")["fewshot_store"]


def _taken(detail: str, batch: Iterable[Record]) -> str:
    """Return the id whose key is in PostgreSQL's message."""
    return next((record.id for record in batch if str(uuid_of(record.id)) in detail), "?")


def _loads(text: str | bytes) -> Any:
    """Parse JSON from PostgreSQL, which writes large floats with all digits, like integers."""
    return json.loads(text, parse_int=lambda digits: int(digits) if -(2**63) <= int(digits) < 2**63 else float(digits))
