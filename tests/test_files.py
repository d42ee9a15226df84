import hashlib
import os

import pytest

from fewshot.files import digest, replacing


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
