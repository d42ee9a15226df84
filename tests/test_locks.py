import os
import threading

from fewshot.locks import new_lock


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
