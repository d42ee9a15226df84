"""No process outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time

import pytest

RUN = """
import os, time
from fewshot.utils.executors import Joblib

def wait(seconds):
    os.write(1, f"{os.getpid()}\\n".encode())  # in one piece
    time.sleep(seconds)

for _ in Joblib(2).map(wait, [(120,), (120,)]):
    pass
"""
#: Waits for its parent, and says when it begins.
WATCH = """
import os, time
from fewshot.utils.orphans import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(120)
"""
START = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def is_running(process):
    """Whether a process runs; one that ended may wait for its parent to ask how."""
    try:
        with open(f"/proc/{process}/stat") as told:
            return told.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "n"),
    [((START, WATCH), 1), pytest.param((RUN,), 2, marks=pytest.mark.slow)],
    ids=["one", "joblib"],
)
def test_a_process_ends_with_its_parent_however_that_ends(arguments, n, how):
    with subprocess.Popen([sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True) as parent:
        children = [int(parent.stdout.readline()) for _ in range(n)]
        assert all(map(is_running, children))
        parent.send_signal(how)
        parent.stdout.close()
        parent.wait()
    end = time.monotonic() + 30
    while (left := [child for child in children if is_running(child)]) and time.monotonic() < end:
        time.sleep(0.1)
    for child in left:
        os.kill(child, signal.SIGKILL)
    assert not left
