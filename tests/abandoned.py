"""What a killed process leaves."""

from pathlib import Path

from tests.processes import python

CODE = """
import os, signal, sys
from fewshot.persistence.files import partial_file
with partial_file(sys.argv[1]) as partial:
    partial.write_bytes(b"half")
    print(partial, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_partial(path):
    """Let a process be killed while it writes a file; return what it has left."""
    return Path(python(CODE, path).stdout.strip())
