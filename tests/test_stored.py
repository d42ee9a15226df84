import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from fewshot.stored import write_tensors


def test_tensors_come_back_whatever_their_layout(tmp_path):
    x = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "x", {"turned": x.T, "half": x.bfloat16(), "none": x[:0]}, {"says": "ü"})
    back = load_file(tmp_path / "x")
    assert torch.equal(back["turned"], x.T)
    assert back["half"].dtype == torch.bfloat16
    assert back["none"].shape == (0, 3)


def test_others_may_read_it_as_they_may_any_file(tmp_path):
    (tmp_path / "other").touch()
    write_tensors(tmp_path / "x", {"x": torch.ones(2)})
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("x", "other")]
    assert modes[0] == modes[1]
    assert sorted(os.listdir(tmp_path)) == ["other", "x"]


def test_a_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="gone"):
        write_tensors(tmp_path / "gone" / "x", {"x": torch.ones(2)})
