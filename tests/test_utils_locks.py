import copy
import gc
import os
import threading

from fewshot.utils import locks
from fewshot.utils.locks import lock_of, new_lock, one_at_a_time


class Owner:
    def __init__(self):
        self._lock = new_lock(self)


def test_a_lock_that_a_thread_holds_is_open_in_a_forked_child():
    owner, held, go = Owner(), threading.Event(), threading.Event()

    def hold():
        with owner._lock:
            held.set()
            go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if owner._lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    assert not owner._lock.acquire(blocking=False)  # here it is still held
    go.set()
    holder.join()
    assert status == 0


def test_the_lock_of_an_object_belongs_to_it_alone_and_is_open_in_a_forked_child():
    class Counter:
        n = 0

        @one_at_a_time
        def count(self):
            """Count."""
            self.n += 1
            return self.twice() if self.n == 1 else self.n

        @one_at_a_time
        def twice(self):
            return self.count()  # a thread that is inside may go in again

    counter = Counter()
    assert counter.count() == 2
    assert (counter.count.__doc__, vars(counter)) == ("Count.", {"n": 2})
    lock = lock_of(counter)
    assert lock_of(counter) is lock
    assert lock_of(copy.copy(counter)) is not lock
    held, go = threading.Event(), threading.Event()

    def hold():
        with lock_of(counter):
            held.set()
            go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock_of(counter).acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    assert not lock.acquire(blocking=False)
    go.set()
    holder.join()
    assert status == 0


def test_the_lock_goes_with_its_object():
    class Thing:
        pass

    thing = Thing()
    lock_of(thing)
    n = len(locks._OF)
    del thing
    gc.collect()
    assert len(locks._OF) < n
