"""Functions that run at the same time, in threads that change places as often as they can."""

import sys
import threading
from contextlib import contextmanager

from fewshot.persistence.locking import locked


def together(*functions):
    """Run functions in threads of their own and return what each gave; the first exception is raised."""
    start, results, errors = threading.Barrier(len(functions)), [None] * len(functions), []

    def run(place, function):
        try:
            start.wait()
            results[place] = function()
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    return results


@contextmanager
def held(folder):
    """Let another thread be the only writer in a folder for the time of a block."""
    inside, done = threading.Event(), threading.Event()

    def hold():
        with locked(folder):
            inside.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()
