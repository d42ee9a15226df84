"""Garbage is collected rarely in our own processes, and only there."""

import gc
import subprocess
import sys

CODE = """
import atexit, gc
from fewshot.utils.collector import collect_rarely
atexit.register(lambda: print(gc.get_freeze_count() > 1000))  # runs last
collect_rarely()
print(gc.isenabled(), gc.get_threshold()[0])
"""


def test_it_is_collected_rarely_and_not_at_exit():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "50000", "True"]


def test_the_collector_of_a_host_program_stays_as_it_is():
    from fewshot.cli import main

    before = gc.get_threshold()
    assert main(["history", "no-such-folder"]) == 2
    assert gc.get_threshold() == before
