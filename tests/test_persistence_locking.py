"""One writer at a time in a folder, among threads and processes, whatever happens to the one who holds it."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from fewshot.errors import InUseError
from fewshot.persistence import locking
from fewshot.persistence.locking import LOCK, locked, locked_new
from tests.together import together


@contextmanager
def child(work):
    """Fork a process that does `work(tell)` and stays; give its number when it has told that it is ready."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda: os.write(writer, b"."))
        finally:
            os._exit(0)
    try:
        assert os.read(reader, 1) == b"."
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def holding(folder):
    def work(tell):
        with locked(folder):
            tell()
            signal.pause()

    return work


def test_the_second_is_refused_in_time_and_told_who_holds_it(tmp_path):
    start = time.monotonic()
    with child(holding(tmp_path)) as pid:
        told = rf"is locked by process {pid} \(.+\) since \d{{4}}-.*; nothing was written"
        with pytest.raises(InUseError, match=told), locked(tmp_path, 0.2):
            raise AssertionError("two writers at once")
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(InUseError, match=rf"process {pid} \(.+\), which is stopped"), locked(tmp_path, 0.1):
            pass
        said = json.loads((tmp_path / LOCK).read_text())
        assert (said["pid"], said["host"] != "") == (pid, True)
    assert time.monotonic() - start < 30
    with locked(tmp_path, 5):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_lock_of_another_program_on_the_folder_ends_in_a_sentence_too(tmp_path, kind):
    code = (
        "import fcntl, os, sys; h = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(h, int(sys.argv[2]));"
        "print('x', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(int(kind))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with (
            pytest.raises(InUseError, match=rf"is locked by process {other.pid} \(.*python.*\)"),
            locked(tmp_path, 0.2),
        ):
            pass
        assert list(tmp_path.iterdir()) == []
        other.stdin.close()
    with locked(tmp_path, 5):
        pass


def test_a_thread_may_ask_again_and_others_wait(tmp_path):
    inside = []

    def write():
        for _ in range(15):
            with locked(tmp_path), locked(str(tmp_path) + "/."):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    together(*[write] * 4)
    with locked(tmp_path):
        waiting = threading.Thread(target=write)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join()


def test_an_error_inside_leaves_it_open(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path, 0.1):
        pass


@pytest.mark.parametrize("n", [2, 8])
def test_processes_that_change_a_file_lose_nothing(tmp_path, n):
    counter = tmp_path / "count"
    counter.write_text("0")

    def add():
        for _ in range(25):
            with locked(tmp_path):
                counter.write_text(str(int(counter.read_text()) + 1))

    children = []
    for _ in range(n):
        children.append(os.fork())
        if not children[-1]:
            add()
            os._exit(0)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * n
    assert counter.read_text() == str(25 * n)
    assert os.listdir(tmp_path) == ["count"]


@pytest.mark.slow
def test_a_hundred_kills_leave_nothing_that_blocks(tmp_path):
    for _ in range(100):
        with child(holding(tmp_path)):
            pass
        with locked(tmp_path, 1):
            pass


def test_a_child_of_a_killed_writer_does_not_keep_the_lock(tmp_path):
    reader, writer = os.pipe()

    def work(tell):
        with locked(tmp_path):
            grandchild = os.fork()
            if not grandchild:
                with pytest.raises(InUseError), locked(tmp_path, 0.1):  # its parent has it
                    pass
                tell()
                os.close(writer)
                os.read(reader, 1)  # until the test ends
                os._exit(0)
            os.waitpid(grandchild, 0)

    try:
        with child(work):
            pass
        with locked(tmp_path, 5):
            pass
    finally:
        os.close(writer)
        os.close(reader)


def test_a_child_that_leaves_the_block_does_not_open_it_for_others(tmp_path):
    with ExitStack() as block:
        block.enter_context(locked(tmp_path))
        for _ in range(2):
            pid = os.fork()
            if not pid:
                try:
                    block.close()
                    with locked(tmp_path, 0.1):
                        os._exit(1)
                except InUseError:
                    os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert (tmp_path / LOCK).exists()


def test_without_locks_of_the_system_writing_goes_on(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path, 1):
        assert (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No such file"), locked(tmp_path / "gone"):
        pass


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link", "hard link", "notes"])
def test_what_is_only_called_a_lock_is_refused_and_left_alone(tmp_path, kind):
    folder, mine = tmp_path / "folder", tmp_path / "mine.txt"
    folder.mkdir()
    mine.write_text("mine")
    lock = folder / LOCK
    make = {
        "folder": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
        "link": lambda: lock.symlink_to(mine),
        "dangling link": lambda: lock.symlink_to(tmp_path / "new"),
        "hard link": lambda: lock.hardlink_to(mine),
        "notes": lambda: lock.write_text("mine"),
    }
    make[kind]()
    before = lock.lstat()
    with pytest.raises(ValueError, match=r"\.lock is not a lock file of fewshot.*; remove it"), locked(folder, 1):
        pass
    assert (lock.lstat().st_ino, lock.lstat().st_size) == (before.st_ino, before.st_size)
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "mine.txt"]


def test_a_lock_that_is_replaced_while_it_is_held_keeps_nobody_waiting(tmp_path):
    with locked(tmp_path, 1):
        (tmp_path / LOCK).unlink()
        os.mkfifo(tmp_path / LOCK)
    assert (tmp_path / LOCK).is_fifo()
    (tmp_path / LOCK).unlink()
    with locked(tmp_path, 1):
        pass


def test_what_a_killed_holder_left_is_taken(tmp_path):
    for content in (b"", b'{"pi', b'{"pid": 99999999, "host": "x"}'):
        (tmp_path / LOCK).write_bytes(content)
        with locked(tmp_path, 1):
            pass
        assert not (tmp_path / LOCK).exists()


def test_what_a_lock_file_says_is_only_text(tmp_path):
    for content in (b"", b"[]", b"\xff", b'{"pid": "x"}', b'{"pid": 1, "host": "\\u001b[31m\\n", "command": [1]}'):
        (tmp_path / LOCK).write_bytes(content)
        handle = os.open(tmp_path / LOCK, os.O_RDONLY)
        try:
            assert locking._holder(handle).isprintable()
        finally:
            os.close(handle)


def test_a_writer_that_waits_goes_on_when_the_one_before_has_ended_and_removed_its_new_folder(tmp_path):
    folder, order, has_begun = tmp_path / "new", [], threading.Event()

    def write(name, seconds):
        with locked_new(folder, 5):
            order.append(name)
            has_begun.set()
            time.sleep(seconds)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write, "first", 0.2)
        has_begun.wait(10)
        pool.submit(write, "second", 0).result()
        first.result()
    assert order == ["first", "second"]
    assert not folder.exists()
