import subprocess
import sys

import numpy as np
import pytest
import torch

from fewshot.persistence.arrays import arrays_digest, read_arrays, read_metadata, write_arrays
from fewshot.persistence.tensors import read_tensors, tensors_digest, write_tensors

ARRAYS = {
    "big": np.arange(12).reshape(3, 4).T,
    "none": np.empty((0, 3), np.float32),
    "one": np.array(2.5),
    "ü/\n": np.array([True, False]),
    "bytes": np.array([1, 2, 255], np.uint8),
}


def test_arrays_and_tensors_are_written_alike(tmp_path):
    notes = {"says": "ü", "more": '"'}
    tensors = {name: torch.from_numpy(value.copy()) for name, value in ARRAYS.items()}
    write_arrays(tmp_path / "arrays", ARRAYS, notes)
    write_tensors(tmp_path / "tensors", tensors, notes)
    assert (tmp_path / "arrays").read_bytes() == (tmp_path / "tensors").read_bytes()
    assert arrays_digest(ARRAYS, notes) == tensors_digest(tensors, notes)
    found, said = read_arrays(tmp_path / "tensors")
    assert said == notes == read_metadata(tmp_path / "arrays")
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
        assert torch.equal(read_tensors(tmp_path / "arrays")[0][name], tensors[name])


def test_damage_is_found(tmp_path):
    write_arrays(tmp_path / "x", ARRAYS)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged: its SHA-256 does not match"):
        read_arrays(tmp_path / "x")
    with pytest.raises(OSError, match="gone"):
        write_arrays(tmp_path / "gone" / "x", ARRAYS)


def test_torch_is_not_imported():
    code = "import sys, fewshot.persistence.arrays; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_does_not_fit_in_memory_is_a_sentence_with_the_sizes(tmp_path, monkeypatch, capsys):
    from fewshot import FewShotModel, OwnEmbedder
    from fewshot.cli import main

    embedder = OwnEmbedder(np.asarray, "rows")
    FewShotModel(embedder).fit(np.eye(3), [0, 1, 2]).save(tmp_path)
    monkeypatch.setattr("fewshot.utils.heap.ALWAYS_FITS", 0)
    monkeypatch.setattr("fewshot.utils.heap.available_memory", lambda: 1e-3)
    with pytest.raises(MemoryError, match=r"safetensors and its arrays take 0\.0 GB, and 0\.0 GB of memory are free"):
        FewShotModel.load(tmp_path, embedder=embedder)
    assert main(["rename", str(tmp_path), "1", "7"]) == 1
    assert "of memory are free; read it where more is free" in capsys.readouterr().err
    monkeypatch.setattr("fewshot.utils.heap.available_memory", lambda: 1e9)
    assert FewShotModel.load(tmp_path, embedder=embedder).classes_.tolist() == [0, 1, 2]
