"""A connection to PostgreSQL that is opened on demand, and again after it was lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fewshot.errors import MissingExtraError, StoreError


class PostgresConnection:
    """A connection to a database with pgvector, used by one thread at a time.

    Parameters
    ----------
    connection_string : str
        In the format of libpq.
    what : str
        Description of the data there, for error messages.

    Raises
    ------
    MissingExtraError
        If psycopg or pgvector is not installed.
    """

    def __init__(self, connection_string: str, what: str) -> None:
        try:
            import pgvector.psycopg
            import psycopg
        except ImportError:
            raise MissingExtraError("psycopg or pgvector is missing; run: pip install 'fewshot[pgvector]'") from None
        self.psycopg, self.register = psycopg, pgvector.psycopg.register_vector
        self.jsonb = psycopg.types.json.Jsonb
        self._where, self._what = connection_string, what
        self._connection: Any = None
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""
        with self._lock, suppress(Exception):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @contextmanager
    def transaction(self, vectors: bool = True) -> Iterator[Any]:
        """Yield the connection inside a transaction, which any error rolls back.

        With ``vectors=False`` the extension pgvector need not be installed yet.

        Raises
        ------
        StoreError
            If the server cannot be reached, the connection is lost, or a statement is refused.
        """
        psycopg = self.psycopg
        with self._lock:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self._where, autocommit=True)
                    psycopg.types.json.set_json_loads(_loads, self._connection)
                    if vectors:
                        self.register(self._connection)
                with self._connection.transaction():
                    yield self._connection
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self.close()
                raise StoreError(
                    f"the connection to PostgreSQL, {self._what}, failed ({_line(error)}); nothing was written, unless "
                    "the server was just committing; make sure that it runs, then call again, which reconnects"
                ) from error
            except psycopg.Error as error:
                raise StoreError(
                    f"PostgreSQL refused a statement, {self._what}: {_line(error)}; nothing was written, so call again "
                    "once that is fixed"
                ) from error


def _loads(text: str | bytes) -> Any:
    """Parse JSON from PostgreSQL, which writes large floats with all digits, like integers."""
    return json.loads(text, parse_int=lambda digits: int(digits) if -(2**63) <= int(digits) < 2**63 else float(digits))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
