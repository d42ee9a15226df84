"""Earlier versions of an artifact, and faults in the middle of changes and of going back."""

import hashlib
import json
import os
import shutil
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from fewshot.errors import ArtifactError
from fewshot.persistence import versions
from fewshot.persistence.artifact import forget_versions, read_artifact, restore_artifact, write_artifact
from fewshot.persistence.manifest import FORMAT, MANIFEST
from fewshot.persistence.versions import EMPTY, read_versions
from tests.processes import python
from tests.together import together

KEY = "abc0" * 16


def write(folder, text, size=10, known=None):
    parts = {
        "memory": (None, lambda path: path.write_text(f"{text} " * size)),
        "weights": (KEY, lambda path: path.write_text("weights")),
    }
    return write_artifact(folder, "classifier", {"says": text}, parts, {}, known, f"write {text}")


def read(folder):
    manifest, paths = read_artifact(folder, "classifier")
    assert paths["memory"].read_text().startswith(manifest["says"] + " ")
    assert paths["weights"].read_text() == "weights"
    return manifest["says"]


def notes(folder):
    return [one.note.removeprefix("write ") for one in read_versions(folder, "classifier")]


def undo(folder, number=None):
    return restore_artifact(folder, "classifier", number).note.removeprefix("write ")


def changed(folder, **facts):
    """Change what the manifest of a stranger says, with a digest that fits."""
    path = next(folder.glob("history-*"))
    said = {**json.loads(path.read_text()), **facts}
    del said["digest"]
    body = json.dumps(said)[:-1].encode()
    digest = hashlib.sha256(body).hexdigest()
    path.unlink()
    (folder / f"history-{digest[:16]}.json").write_bytes(body + b', "digest": "%s"}\n' % digest.encode())


@pytest.fixture
def folder(tmp_path):
    for text in ("one", "two", "three"):
        write(tmp_path / "a", text)
    return tmp_path / "a"


def test_each_change_is_a_version_and_versions_share_what_did_not_change(folder):
    assert notes(folder) == ["one", "two", "three"]
    assert [one.is_current for one in read_versions(folder, "classifier")] == [False, False, True]
    assert len(list(folder.glob("memory-*"))) == 3
    assert len(list(folder.glob("weights-*"))) == 1
    write(folder, "three")  # nothing new
    assert notes(folder) == ["one", "two", "three"]


def test_going_back_and_forth(folder):
    assert (undo(folder), read(folder)) == ("two", "two")
    assert (undo(folder), read(folder)) == ("one", "one")
    with pytest.raises(ArtifactError, match="no earlier version to go back to: it keeps 2, 3"):
        undo(folder)
    assert (undo(folder, 3), read(folder)) == ("three", "three")
    undo(folder, 1)
    write(folder, "four")  # what was undone is not lost
    assert notes(folder) == ["one", "two", "three", "four"]
    assert undo(folder) == "one"
    with pytest.raises(ArtifactError, match="no other version 1 to go back to"):
        undo(folder, 1)


def test_going_back_to_nothing_where_there_was_nothing(tmp_path):
    folder, nothing = tmp_path / "new", {os.path.realpath(tmp_path / "new"): EMPTY}
    write(folder, "one", known=nothing)
    write(folder, "two")
    assert undo(folder) == "one"
    for number in (None, 0):
        assert restore_artifact(folder, "classifier", number) is None
        with pytest.raises(ArtifactError, match="no current classifier, only earlier versions"):
            read(folder)
        assert notes(folder) == ["one", "two"]
        assert (undo(folder, 1), read(folder)) == ("one", "one")
    restore_artifact(folder, "classifier")
    write(folder, "three", known=nothing)
    assert [(one.number, one.after) for one in read_versions(folder, "classifier")][::2] == [(1, EMPTY), (3, EMPTY)]
    assert restore_artifact(folder, "classifier") is None


def test_the_same_content_again_is_a_version_of_its_own(folder):
    """Otherwise one could not go back past it."""
    write(folder, "one")
    assert [undo(folder) for _ in range(3)] == ["three", "two", "one"]


def test_their_number_and_their_bytes_are_bounded_and_one_is_always_kept(folder, monkeypatch):
    monkeypatch.setattr(versions, "MOST_VERSIONS", 10)
    for i in range(15):
        write(folder, str(i))
    assert notes(folder) == [str(i) for i in range(4, 15)]
    monkeypatch.setattr(versions, "MOST_HISTORY", 40_000)
    for i in range(15, 20):
        write(folder, str(i), 5000)
    assert notes(folder) == ["17", "18", "19"]
    monkeypatch.setattr(versions, "MOST_HISTORY", 10)
    write(folder, "last")
    assert notes(folder) == ["19", "last"]
    assert len(list(folder.iterdir())) == 5  # two of the memory and of manifests, and the weights
    for _ in range(3):
        undo(folder, min(one.number for one in read_versions(folder, "classifier") if not one.is_current))
    write(folder, "after")
    assert undo(folder) == "19"


def test_they_can_be_forgotten_and_are_copied_with_the_folder(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "b")
    forget_versions(folder, "classifier")
    assert notes(folder) == ["three"]
    assert len(list(folder.iterdir())) == 3
    assert undo(tmp_path / "b") == "two"
    with pytest.raises(ArtifactError, match="no other version is kept"):
        undo(folder)
    with pytest.raises(ArtifactError, match="not a saved classifier"):
        forget_versions(tmp_path, "classifier")
    with pytest.raises(ArtifactError, match="there is no such folder"):
        undo(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_versions_of_a_private_folder_stay_private(folder):
    for path in folder.iterdir():
        path.chmod(0o600)
    write(folder, "four")
    undo(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_folder_without_history_gets_one_from_now_on(tmp_path):
    parts = {"memory": (None, lambda path: path.write_text("old memory"))}
    write_artifact(tmp_path, "classifier", {"says": "old"}, parts, {})  # as older versions do
    assert [(one.number, one.at, one.note) for one in read_versions(tmp_path, "classifier")] == [(0, None, "")]
    write(tmp_path, "new")
    assert notes(tmp_path) == ["", "new"]
    assert undo(tmp_path) == ""
    assert read_artifact(tmp_path, "classifier")[0]["says"] == "old"
    assert undo(tmp_path, 1) == "new"


def test_what_is_missing_is_left_out_and_what_is_damaged_is_not_restored(folder):
    one, two, _ = read_versions(folder, "classifier")
    (folder / one.manifest["files"]["memory"]["name"]).unlink()
    assert notes(folder) == ["two", "three"]
    damaged = folder / two.manifest["files"]["memory"]["name"]
    damaged.write_bytes(damaged.read_bytes().swapcase())
    with pytest.raises(ArtifactError, match=f"{damaged.name} is damaged"):
        undo(folder)
    assert read(folder) == "three"
    (folder / MANIFEST).write_bytes(b"")
    with pytest.raises(ArtifactError, match="damaged"):
        undo(folder)


def test_going_back_mends_a_damaged_manifest(folder):
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-9])
    assert (undo(folder), read(folder)) == ("two", "two")


@pytest.mark.parametrize(
    "facts",
    [
        {"format": FORMAT + 1},
        {"kind": "index"},
        {"kind": 1},
        {"files": {"memory": {"name": "../outside", "sha256": "0" * 64, "bytes": 3}}},
        {"files": {"memory": {"name": "/etc/hostname", "sha256": "0" * 64, "bytes": 3}}},
        {"files": []},
    ],
)
def test_a_strangers_history_is_left_out(folder, facts):
    (folder.parent / "outside").write_text("abc")
    forget_versions(folder, "classifier")
    write(folder, "four")
    changed(folder, **facts)
    assert notes(folder) == ["four"]
    with pytest.raises(ArtifactError, match="no other version"):
        undo(folder)
    write(folder, "five")  # sweeps it away
    assert notes(folder) == ["four", "five"]
    assert (folder.parent / "outside").read_text() == "abc"


def test_names_that_lead_out_of_the_folder_are_refused(folder, tmp_path):
    (tmp_path / "abc").write_text("abc")
    forget_versions(folder, "classifier")
    write(folder, "four")
    (folder / "abc").write_text("abc")
    changed(folder, files={"memory": {"name": "x/../../abc", "sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}})
    with pytest.raises(ArtifactError, match="not the name of a data file"):
        undo(folder, 3)
    assert read(folder) == "four"


@pytest.mark.parametrize(
    "saved",
    [
        7,
        [],
        {"number": -1},
        {"number": "3", "at": 5, "note": {}, "after": []},
        {"at": "yesterday"},
        {"at": "2026-01-01"},
    ],
)
def test_what_a_version_says_about_itself_is_not_trusted(folder, saved):
    changed(folder, saved=saved)
    forged = read_versions(folder, "classifier")[0]
    assert (forged.number, forged.at, forged.note, forged.after) == (0, None, "", None)
    write(folder, "four")
    assert undo(folder) == "three"


def test_links_pipes_and_folders_are_not_followed(folder, tmp_path):
    target = tmp_path / "mine"
    target.write_text("mine")
    names = [f"history-{digit * 16}.json" for digit in "123"]
    (folder / names[0]).symlink_to(target)
    os.mkfifo(folder / names[1])
    (folder / names[2]).mkdir()
    current = read_versions(folder, "classifier")[-1]
    (folder / current.name).symlink_to(target)  # where the current one would be kept
    assert notes(folder) == ["one", "two", "three"]
    write(folder, "four")
    assert notes(folder) == ["one", "two", "three", "four"]
    assert target.read_text() == "mine"
    assert not any(os.path.lexists(folder / name) for name in names[:2])


@pytest.mark.parametrize("fails_at", range(1, 5))
@pytest.mark.parametrize("act", [lambda folder: write(folder, "four"), undo], ids=["change", "undo"])
def test_a_failure_leaves_the_old_content_whole(folder, monkeypatch, act, fails_at):
    calls, replace = [], os.replace

    def full(source, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    if fails_at <= (3 if act is not undo else 2):
        with pytest.raises(OSError, match="No space"):
            act(folder)
        assert read(folder) == "three"
        assert notes(folder) == ["one", "two", "three"]
    monkeypatch.undo()
    assert not list(folder.glob(".*.partial"))
    act(folder)
    assert read(folder) == ("two" if act is undo or fails_at > 4 else "four")


def test_a_full_disk_leaves_the_old_content_whole(folder):
    code = f"""
import resource, signal
from fewshot.persistence.artifact import restore_artifact
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    restore_artifact({str(folder)!r}, "classifier")
except OSError as error:
    print(error.strerror)
"""
    assert python(code).stdout == "File too large\n"
    assert read(folder) == "three"
    assert undo(folder) == "two"


def killed_at(step, act, folder):
    """Let a process act on a folder and be killed before one of its steps; return whether it was."""
    pid, count = os.fork(), 0
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    def counted(function):
        def run(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return run

    try:
        for owner, names in (os, ("replace", "fsync", "unlink")), (Path, ("write_bytes", "write_text", "unlink")):
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        act(folder)
    finally:
        os._exit(0)


@pytest.mark.parametrize(("act", "after"), [(lambda folder: write(folder, "four"), "four"), (undo, "two")])
def test_a_process_killed_before_any_of_its_steps_leaves_the_old_or_the_new_content(folder, tmp_path, act, after):
    seen, was_killed = [], True
    while was_killed:
        copy = tmp_path / f"copy{len(seen)}"
        shutil.copytree(folder, copy)
        was_killed = killed_at(len(seen) + 1, act, copy)
        seen.append(read(copy))
        assert set(notes(copy)) >= {"one", "two", "three"}
        assert undo(copy) == {"three": "two", "two": "one", "four": "three"}[seen[-1]]
        write(copy, "five")
        assert len(notes(copy)) == len(list(copy.glob("memory-*")))
    assert len(seen) > 6
    assert (seen[0], seen[-1]) == ("three", after)
    assert seen == sorted(seen, key=["three", after].index)


def test_writers_and_those_who_go_back_take_turns(folder, monkeypatch):
    monkeypatch.setattr(versions, "MOST_VERSIONS", 10)
    stop = threading.Event()

    def keep_reading():
        while not stop.is_set():
            with suppress(FileNotFoundError):  # replaced since it was verified: a reader begins anew
                manifest, paths = read_artifact(folder, "classifier")
                assert paths["memory"].read_text().startswith(manifest["says"])

    def keep_writing(name):
        for i in range(20):
            write(folder, f"{name}{i}")

    def keep_going_back():
        for _ in range(20):
            with suppress(ArtifactError):  # at the first
                undo(folder)

    reader = threading.Thread(target=keep_reading)
    reader.start()
    try:
        together(lambda: keep_writing("a"), lambda: keep_writing("b"), keep_going_back)
    finally:
        stop.set()
        reader.join()
    current = read(folder)
    assert current in notes(folder)
    assert len(notes(folder)) == 11
    assert len(list(folder.glob("memory-*"))) == len(notes(folder))
