"""A seal covers every byte of a file, and is not seen by readers of its format."""

import numpy as np
import pytest

from fewshot.persistence.sealed import SEAL, seal, seal_fits


def whole(path, tail=0):
    with path.open("rb") as file:
        return seal_fits(file, tail)


@pytest.mark.parametrize("size", [1, 7, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("tail", [0, 3])
def test_each_byte_counts(tmp_path, size, tail):
    path, content = tmp_path / "file", bytes(i % 251 for i in range(size)) + b"end"[:tail]
    path.write_bytes(content)
    seal(path, tail)
    sealed = path.read_bytes()
    assert sealed[:size] + sealed[size + SEAL :] == content
    assert whole(path, tail) is True
    for place in {0, size // 2, size - 1, size + SEAL - 1, len(sealed) - 1} & set(range(len(sealed))):
        path.write_bytes(sealed[:place] + bytes([sealed[place] ^ 4]) + sealed[place + 1 :])
        assert whole(path, tail) is False
    path.write_bytes(sealed[:-1])
    assert not whole(path, tail)


def test_files_of_others_have_none(tmp_path):
    for content in (b"", b"text", bytes(99)):
        (tmp_path / "file").write_bytes(content)
        assert whole(tmp_path / "file") is None


def test_numpy_reads_a_sealed_array(tmp_path):
    path, array = tmp_path / "x.npy", np.arange(12).reshape(3, 4)
    np.save(path, array)
    seal(path)
    for mode in (None, "r"):
        np.testing.assert_array_equal(np.load(path, mmap_mode=mode), array)
