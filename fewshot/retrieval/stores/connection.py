"""Connections to databases: to PostgreSQL one that is opened when it is needed, and anew after it was lost."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot.errors import MissingExtraError, StoreError


class PostgresConnection:
    """A connection to a database with pgvector, used by one thread at a time.

    Parameters
    ----------
    connection_string : str
        As libpq takes it.
    what : str
        What is kept there, for messages.

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
        """Give the connection in a transaction, which any error undoes.

        Without `vectors` the type of pgvector need not be there yet.

        Raises
        ------
        StoreError
            If the server cannot be reached, is lost, or refuses something.
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
                    f"the connection to PostgreSQL, {self._what}, failed ({_line(error)}) and nothing was written, but "
                    "for what it may just have committed; see that the server runs and call again, which connects anew"
                ) from error
            except psycopg.Error as error:
                raise StoreError(
                    f"PostgreSQL refused, {self._what}: {_line(error)}; nothing was written, so call again once that "
                    "is mended"
                ) from error


def _loads(text: str | bytes) -> Any:
    """Read JSON from PostgreSQL, which writes a large float with all its digits."""
    return json.loads(text, parse_int=lambda digits: int(digits) if -(2**63) <= int(digits) < 2**63 else float(digits))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def connect_qdrant(client: Any, location: str | Path) -> Any:
    """Return a client of Qdrant on a server, in a folder, or in this process."""
    if str(location) == ":memory:":
        return client(":memory:")
    if str(location).startswith(("http://", "https://")):
        return client(url=str(location))
    if re.fullmatch(r"[\w.-]+:\d+", str(location)):
        raise ValueError(f"{str(location)!r} is neither a URL nor a folder; for a server give 'http://{location}'")
    try:
        return client(path=str(location))
    except RuntimeError as error:
        raise StoreError(
            f"the folder {location} is used by another Qdrant client ({error}); close that one, or run a server"
        ) from None
