import hashlib
import os
import stat
import subprocess
import sys
import threading

import pytest

from fewshot.cli import main
from fewshot.persistence.files import (
    check_writable,
    descriptor_of,
    digest,
    is_special,
    leftovers,
    open_regular,
    partial_file,
    read_regular,
    refuse_other_files,
    replacing,
    write_text,
)
from tests.abandoned import leave_partial


def mode(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("when", ["before anything is written", "halfway"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, when):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with replacing(path) as partial:
            if when == "halfway":
                partial.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert digest(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_folder_is_no_file_to_write_and_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path}'"), replacing(tmp_path):
        raise AssertionError("nothing is computed for it")


@pytest.mark.parametrize("old", [0o600, 0o640, 0o755, 0o444])
def test_a_file_keeps_its_mode_and_is_never_more_readable_while_it_is_written(tmp_path, old):
    if old == 0o444 and os.getuid():
        pytest.skip("only root may replace it")
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(old)
    with replacing(path) as partial:
        partial.write_text("new")
        assert mode(partial) == "0o600"
    assert (path.read_text(), mode(path)) == ("new", oct(old))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_new_file_gets_the_mode_that_the_umask_leaves(tmp_path, umask):
    code = f"import os; os.umask({umask}); from fewshot.persistence.files import write_text; write_text('new', 'x')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert mode(tmp_path / "new") == oct(0o666 & ~umask)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 1234, 5678)
    write_text(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid, path.read_text()) == (1234, 5678, "new")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anything")
def test_a_read_only_file_is_refused_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(PermissionError, match="file"), replacing(tmp_path / "file"):
        raise AssertionError


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    check_writable(tmp_path / "new" / "model")
    assert not (tmp_path / "new").exists()
    with pytest.raises(NotADirectoryError, match="file/model"):
        check_writable(tmp_path / "file" / "model")
    monkeypatch.setattr("os.access", lambda place, _: place != str(tmp_path))  # root may write anything
    (tmp_path / "empty").mkdir()
    for command in ("fit", "export"):  # there is nothing that they could read, which they would say later
        assert main([command, str(tmp_path / "empty"), "--out", str(tmp_path / "new" / "model")]) == 1
        assert "Permission denied; choose another place with --out" in capsys.readouterr().err


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, depth, is_there):
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "0"
    if is_there:
        target.write_text("old")
        target.chmod(0o600)
    for i in range(depth):
        (tmp_path / "far" / f"{i + 1}").symlink_to(f"{i}")
    (tmp_path / "link").symlink_to(f"far/{depth}")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert mode(target) == "0o600" or not is_there
    assert sorted(os.listdir(tmp_path / "far")) == [str(i) for i in range(depth + 1)]


def test_a_link_that_leads_to_itself_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"Too many levels .*'.*/a'"):
        write_text(tmp_path / "a", "x")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_pipe_is_sent_the_content_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        got = []
        reader = threading.Thread(target=lambda got=got: got.append((tmp_path / "pipe").read_text()))
        reader.start()
        write_text(tmp_path / name, "whole")
        reader.join(10)
        assert got == ["whole"]
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_pipe_is_sent_nothing_by_a_block_that_fails(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "pipe") as partial:
        1 / partial.write_text("")


@pytest.mark.parametrize("minor", [3, 7])  # null, full
def test_a_device_is_written_to_and_stays(tmp_path, minor):
    device = tmp_path / "device"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        device.open("wb").close()
    except OSError:
        pytest.skip("devices cannot be made here")
    assert is_special(device)
    if minor == 3:
        write_text(device, "x")
    else:
        with pytest.raises(OSError, match=r"No space left on device: '.*/device'"):
            write_text(device, "x")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert os.listdir(tmp_path) == ["device"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_an_open_file_of_the_process_is_gone_on_with(tmp_path, name, kind):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = f"from fewshot.persistence import files; print('before'); files.write_text({name!r}, 'x\\n'); print('after')"
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=out if kind == "file" else subprocess.PIPE, check=True
        )
    told = (tmp_path / "out").read_bytes() if kind == "file" else done.stdout
    assert told.split() == [b"before", b"x", b"after"]
    assert sorted(os.listdir(tmp_path)) == ["link", "out"]


def test_an_open_file_that_there_is_not_is_an_error():
    assert descriptor_of("/dev/fd/987") == 987
    with pytest.raises(OSError, match=r"Bad file descriptor: '/dev/fd/987'"):
        write_text("/dev/fd/987", "x")


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*/none/file'"):
        write_text(tmp_path / "none" / "file", "x")


def test_a_long_name_and_the_leavings_of_a_killed_process_are_no_hindrance(tmp_path):
    path = tmp_path / ("ä" * 127)
    with partial_file(path) as partial:
        left = partial
    left.write_text("of another")
    write_text(path, "x")
    assert os.listdir(tmp_path) == [path.name]


def test_only_regular_files_are_opened_and_none_is_waited_for(tmp_path):
    (tmp_path / "file").write_bytes(b"whole")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular(tmp_path / "file", 5) == b"whole"
    assert read_regular(tmp_path / "link", 5, follow=True) == b"whole"
    with pytest.raises(OSError, match="5 bytes, more than the 4 expected"):
        read_regular(tmp_path / "file", 4)
    for name in ("link", "device"):
        with pytest.raises(OSError, match="it is a link"):
            open_regular(tmp_path / name)
    for name in ("pipe", "device", ""):
        with pytest.raises(OSError, match="not a regular file|Is a directory"):
            open_regular(tmp_path / name, follow=True)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")


def test_what_killed_processes_have_left_is_found_and_nothing_else(tmp_path):
    left, other = leave_partial(tmp_path / "a.npy"), leave_partial(tmp_path / "b.npy")
    assert left.read_bytes() == b"half"
    elsewhere = tmp_path / ".a.npy.0123abcd-1-2.partial"
    for path in (elsewhere, tmp_path / ".mine.partial", tmp_path / "a.npy"):
        path.touch()
    with partial_file(tmp_path / "a.npy") as mine:
        mine.touch()
        os.utime(mine, (0, 0))
        assert leftovers(tmp_path, ["a.npy"]) == [left]
        assert set(leftovers(tmp_path)) == {left, other}
        os.utime(elsewhere, (0, 0))
        assert set(leftovers(tmp_path, ["a.npy"])) == {left, elsewhere}


def test_a_folder_for_results_may_hold_only_its_own_and_hidden_files(tmp_path):
    refuse_other_files(tmp_path / "new")
    for name in (".hidden", "own"):
        (tmp_path / name).touch()
    refuse_other_files(tmp_path, ["own"])
    with pytest.raises(ValueError, match=r"holds other files, such as 'own'; choose an empty folder, or a new one"):
        refuse_other_files(tmp_path)
    with pytest.raises(ValueError, match=r"own is a file; expected a folder"):
        refuse_other_files(tmp_path / "own")
