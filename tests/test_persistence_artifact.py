import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import is_artifact, read_artifact, size_of, write_artifact
from fewshot.persistence.manifest import FORMAT, MANIFEST, PLAIN
from tests.processes import python


def write(folder, text, key=None):
    parts = {
        "memory": (None, lambda path: path.write_text(f"memory of {text}")),
        "weights": (key, lambda path: path.write_text(f"weights {key}")),
    }
    write_artifact(folder, "classifier", {"says": text, "labels": ["ü", "\n", '"']}, parts, {})


def read(folder):
    manifest, paths = read_artifact(folder, "classifier")
    return manifest["says"], {name: path.read_text() for name, path in paths.items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "a", "one", "abc0" * 16)
    return tmp_path / "a"


def test_what_was_written_is_read(folder):
    assert read(folder) == ("one", {"memory": "memory of one", "weights": "weights " + "abc0" * 16})
    assert is_artifact(folder)
    assert size_of(folder) == sum(path.stat().st_size for path in folder.iterdir())
    assert not is_artifact(folder.parent)


def test_row_70_every_flipped_byte_is_detected_and_the_file_named(folder):
    for path in list(folder.iterdir()):
        good = path.read_bytes()
        for i in range(len(good)):
            path.write_bytes(good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :])
            with pytest.raises(ArtifactError, match=path.name):
                read_artifact(folder, "classifier")
        path.write_bytes(good)
    assert read(folder)[0] == "one"


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"", lambda b: b[: len(b) // 2]])
def test_row_69_another_length_is_detected(change, folder):
    for path in list(folder.iterdir()):
        good = path.read_bytes()
        path.write_bytes(change(good))
        with pytest.raises(ArtifactError, match=path.name):
            read_artifact(folder, "classifier")
        path.write_bytes(good)


def test_a_missing_file_is_named(folder):
    for path in list(folder.iterdir()):
        good = path.read_bytes()
        path.unlink()
        with pytest.raises(ArtifactError, match=path.name):
            read_artifact(folder, "classifier")
        path.write_bytes(good)


def test_a_cache_that_is_gone_or_damaged_is_passed_over(tmp_path):
    def write_with_cache(text):
        caches = {"lists.faiss": ("abc0" * 16, lambda path: path.write_text(text))}
        write_artifact(tmp_path, "index", {}, {"keys": (None, lambda path: path.write_text("keys"))}, caches)

    write_with_cache("lists")
    write_with_cache("not asked: the key is the same")
    paths = read_artifact(tmp_path, "index")[1]
    assert {name: path.read_text() for name, path in paths.items()} == {"keys": "keys", "lists.faiss": "lists"}
    good = paths["lists.faiss"].read_bytes()
    for i in range(len(good)):
        paths["lists.faiss"].write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        assert list(read_artifact(tmp_path, "index")[1]) == ["keys"]
    paths["lists.faiss"].unlink()
    assert list(read_artifact(tmp_path, "index")[1]) == ["keys"]
    write_with_cache("made again")
    assert read_artifact(tmp_path, "index")[1]["lists.faiss"].read_text() == "made again"


def test_an_artifact_of_another_kind_is_refused_and_left_alone(folder):
    with pytest.raises(ArtifactError, match="is not a saved index: it holds a saved classifier"):
        read_artifact(folder, "index")
    with pytest.raises(ArtifactError, match="holds a saved classifier, so no index was written there"):
        write_artifact(folder, "index", {}, {}, {})
    assert read(folder)[0] == "one"


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "memory-0123456789abcdef.safetensors").write_text("looks like ours")
    before = names(tmp_path)
    with pytest.raises(ArtifactError, match="holds other files"):
        write(tmp_path, "one")
    with pytest.raises(ArtifactError, match="is a file"):
        write(tmp_path / "thesis.txt", "one")
    assert names(tmp_path) == before
    for place, reason in (
        (tmp_path, "no manifest.json"),
        (tmp_path / "thesis.txt", "this is a file"),
        (tmp_path / "gone", "no such folder"),
    ):
        with pytest.raises(ArtifactError, match=reason):
            read_artifact(place, "classifier")


def test_what_only_looks_like_ours_is_left_alone(tmp_path, folder):
    app = tmp_path / "app"
    app.mkdir()
    (app / MANIFEST).write_text('{"name": "my web app"}')
    with pytest.raises(ArtifactError, match="holds other files but no saved classifier"):
        write(app, "one")
    (app / "index.html").write_text("hello")
    with pytest.raises(ArtifactError, match="holds other files but no saved classifier"):
        write(app, "one")
    assert (app / MANIFEST).read_text() == '{"name": "my web app"}'
    other = tmp_path / "other"
    other.mkdir()
    (other / "model-0123456789abcdef.safetensors").write_text("somebody's")
    with pytest.raises(ArtifactError, match="holds other files"):
        write(other, "one")
    raw = (folder / MANIFEST).read_bytes()
    body = raw[: raw.rindex(b', "digest"')].replace(b'"format": %d' % PLAIN, b'"format": %d' % (FORMAT + 1))
    (folder / MANIFEST).write_bytes(body + b', "digest": "%s"}\n' % hashlib.sha256(body).hexdigest().encode())
    before = names(folder)
    with pytest.raises(ArtifactError, match="upgrade fewshot"):
        write(folder, "two")
    assert names(folder) == before


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_nothing_is_written_through_a_manifest_that_is_no_file(tmp_path, folder, kind):
    trap = tmp_path / "trap"
    write(trap, "one")
    (trap / MANIFEST).unlink()
    make = {
        "link": lambda path: path.symlink_to(folder / MANIFEST),
        "dangling link": lambda path: path.symlink_to(tmp_path / "new"),
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "device": lambda path: path.symlink_to(os.devnull),
    }
    make[kind](trap / MANIFEST)
    before = names(trap)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be replaced \(.*\).*; give a new folder"):
        write(trap, "two")
    assert names(trap) == before
    assert names(tmp_path) == ["a", "trap"]
    assert read(folder)[0] == "one"


def test_a_child_forked_while_saving_does_not_keep_the_next_save_waiting(folder):
    reader, writer = os.pipe()
    children = []

    def forking(path):
        children.append(os.fork())
        if not children[-1]:
            os.close(writer)
            os.read(reader, 1)  # lives until the parent closes the pipe
            os._exit(0)
        path.write_text("memory")

    try:
        write_artifact(folder, "classifier", {"says": "two"}, {"memory": (None, forking)}, {})
        start = time.monotonic()
        write(folder, "three")
        assert time.monotonic() - start < 5
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(children[0], 0)
    assert read(folder)[0] == "three"


def test_what_cannot_be_swept_away_does_no_harm(folder):
    old = folder / ".memory.npz.12-34.partial"
    old.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    write(folder, "two")
    assert read(folder)[0] == "two"


def test_the_old_content_goes_and_what_has_not_changed_is_not_written_again(folder):
    (weights,) = folder.glob("weights-*")
    stamp = weights.stat().st_mtime_ns
    write(folder, "two", "abc0" * 16)
    assert read(folder)[0] == "two"
    assert len(names(folder)) == 3
    assert weights.stat().st_mtime_ns == stamp
    write(folder, "two", "def0" * 16)
    assert read(folder)[1]["weights"] == "weights " + "def0" * 16
    assert len(names(folder)) == 3


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_saving_mends_what_is_damaged(damage, folder):
    for path in folder.glob("*.safetensors"):
        path.write_bytes(damage(path.read_bytes()))
    write(folder, "two", "abc0" * 16)
    assert read(folder)[0] == "two"


def test_saving_mends_a_damaged_manifest(folder):
    (folder / MANIFEST).write_bytes(b"")
    write(folder, "two", "abc0" * 16)
    assert read(folder)[0] == "two"


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_row_74_a_failure_leaves_the_old_content_whole(fails_at, folder, monkeypatch):
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(folder, "two", "def0" * 16)
    monkeypatch.undo()
    assert read(folder) == ("one", {"memory": "memory of one", "weights": "weights " + "abc0" * 16})
    assert not [name for name in names(folder) if name.endswith(".partial")]
    write(folder, "two", "def0" * 16)
    assert read(folder)[0] == "two"
    assert len(names(folder)) == 3


def test_row_74_a_disk_that_is_full_leaves_the_old_content_whole(folder):
    code = f"""
import resource, signal
from fewshot.persistence.artifact import write_artifact
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
memory = (None, lambda path: path.write_bytes(bytes(1_000_000)))
write_artifact({str(folder)!r}, "classifier", {{"says": "two"}}, {{"memory": memory}}, {{}})
"""
    assert "File too large" in python(code).stderr
    assert read(folder)[0] == "one"
    assert len(names(folder)) == 3


def test_a_first_save_that_was_interrupted_can_be_repeated(tmp_path):
    (tmp_path / "memory-0123456789abcdef.safetensors").write_text("half of a save")
    (tmp_path / ".weights-0123456789abcdef.safetensors.77-1.partial").write_text("half of a file")
    write(tmp_path, "one")
    assert read(tmp_path)[0] == "one"


def test_what_an_old_crash_left_is_swept_and_what_another_process_writes_is_not(folder):
    old, new = (folder / f".weights-0123456789abcdef.safetensors.{pid}-1.partial" for pid in (77, 78))
    for path in (old, new):
        path.write_text("half of a file")
    os.utime(old, (time.time() - 7200,) * 2)
    write(folder, "two")
    assert not old.exists()
    assert new.exists()


def test_row_75_a_reader_sees_one_whole_content_or_the_other_while_a_writer_works(folder):
    stop, seen = threading.Event(), set()

    def keep_writing():
        for i in range(10_000):
            if stop.is_set():
                return
            write(folder, f"text {i % 2}", f"{i % 2}bc0" * 16)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        reads, end = 0, time.monotonic() + 120
        while reads < 150 or (not seen >= {"text 0", "text 1"} and time.monotonic() < end):
            reads += 1
            with suppress(FileNotFoundError):  # replaced since it was verified: a reader begins anew
                says, parts = read(folder)
                seen.add(says)
                assert parts["memory"] == f"memory of {says}"
    finally:
        stop.set()
        writer.join()
    assert {"text 0", "text 1"} <= seen


def test_writers_wait_for_each_other(folder):
    def keep_writing(text):
        for i in range(60):
            write(folder, text, f"{text}{i % 2}" * 16)
            with suppress(FileNotFoundError):  # replaced since it was verified: a reader begins anew
                read(folder)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(keep_writing, text) for text in ("abc", "def")]:
            done.result()
    assert read(folder)[0] in ("abc", "def")
    assert len(names(folder)) == 3


STEPS = """
import os, signal, sys
from pathlib import Path
from fewshot.persistence import files
from fewshot.persistence.artifact import write_artifact

folder, last, count = Path(sys.argv[1]), int(sys.argv[2]), 0

def step(function):
    def counted(*args, **kwargs):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return counted

os.replace, os.fsync, os.unlink = step(os.replace), step(os.fsync), step(os.unlink)
Path.write_bytes, Path.unlink = step(Path.write_bytes), step(Path.unlink)
def write(path):
    path.write_bytes(b"new")
parts = {name: (None, write) for name in ("memory", "weights")}
write_artifact(folder, "classifier", {"says": "two"}, parts, {})
print(count)
"""


def test_row_73_a_process_killed_before_any_of_its_steps_leaves_the_old_or_the_new_content(folder, tmp_path):
    def save(last, to):
        return python(STEPS, to, last)

    n_steps = int(save(0, tmp_path / "other").stdout)
    assert n_steps >= 10  # three files written, synced and renamed, and the folder synced
    seen = []
    for last in range(1, n_steps + 5):
        run = save(last, folder)
        seen.append(read(folder)[0])
        assert run.returncode in (0, -signal.SIGKILL)
        if run.returncode == 0:
            break
    assert run.returncode == 0
    assert seen[0] == "one"
    assert seen[-1] == "two"
    assert seen == sorted(seen)  # once it is new it stays so: "one" before "two"
    for path in folder.glob(".*.partial"):
        os.utime(path, (time.time() - 7200,) * 2)
    write(folder, "three")
    assert len(names(folder)) == 3


@pytest.mark.slow
def test_row_73_a_process_killed_while_saving_leaves_the_old_or_the_new_content(folder):
    code = f"""
import sys
from fewshot.persistence.artifact import write_artifact
print("ready", flush=True)
for i in range(10**9):
    say = f"text {{i % 2}}"
    memory = (None, lambda path: path.write_bytes(say.encode() * 200_000))
    write_artifact({str(folder)!r}, "classifier", {{"says": say}}, {{"memory": memory}}, {{}})
"""
    for i in range(40):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.003 + 0.0037 * i)
        process.send_signal(signal.SIGKILL)
        process.wait()
        manifest, paths = read_artifact(folder, "classifier")
        if manifest["says"] != "one":
            assert paths["memory"].read_bytes() == manifest["says"].encode() * 200_000
    write(folder, "two")
    assert read(folder)[0] == "two"


def test_files_of_a_private_folder_stay_private(tmp_path):
    write_artifact(tmp_path / "a", "index", {}, {"keys": (None, lambda path: path.write_text("1"))}, {})
    for path in (tmp_path / "a").iterdir():
        path.chmod(0o600)
    write_artifact(tmp_path / "a", "index", {}, {"keys": (None, lambda path: path.write_text("2"))}, {})
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o600}


def test_hidden_files_of_others_are_not_swept_away(folder):
    mine = [folder / name for name in (".draft.partial", ".tmp-notes.txt", ".tmpnotes")]
    for path in mine:
        path.write_text("mine")
        os.utime(path, (time.time() - 7200,) * 2)
    write(folder, "two")
    assert all(path.exists() for path in mine)
