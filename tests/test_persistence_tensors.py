import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewshot.persistence.arrays import DIGEST, read_metadata
from fewshot.persistence.tensors import read_tensors, tensors_digest, write_tensors


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


TENSORS = {
    "half": torch.arange(5).bfloat16(),
    "none": torch.empty(0, 3),
    "one": torch.tensor(2.5),
    "ü/\n": torch.tensor([True, False]),
    "big": torch.arange(12, dtype=torch.int64).reshape(3, 4).T,
}


def test_tensors_and_metadata_are_read_back(tmp_path):
    write_tensors(tmp_path / "x", TENSORS, {"says": "ü", "more": '"'})
    tensors, said = read_tensors(tmp_path / "x")
    assert said == read_metadata(tmp_path / "x") == {"says": "ü", "more": '"'}
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert {name: value.dtype for name, value in tensors.items()} == {n: v.dtype for n, v in TENSORS.items()}


def test_no_flipped_bit_is_read(tmp_path):
    path = tmp_path / "x"
    write_tensors(path, {"x": torch.ones(3), "y": torch.zeros(2, dtype=torch.int8)}, {"says": "this"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            tensors, said = read_tensors(path)
        except ValueError:
            continue
        # The name of the digest alone: then there is a word more than was said, and nothing else is changed.
        assert said["says"] == "this"
        assert len(said) == 2
        assert torch.equal(tensors["x"], torch.ones(3))


def test_a_file_without_a_digest_is_read(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x", {"says": "this"})
    assert read_tensors(tmp_path / "x")[1] == {"says": "this"}
    save_file({"x": torch.ones(2)}, tmp_path / "y")
    assert read_tensors(tmp_path / "y")[1] == {}


def test_a_digest_that_does_not_fit_is_damage(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x", {DIGEST: tensors_digest({"x": torch.zeros(2)}, {})})
    with pytest.raises(ValueError, match="x is damaged: its SHA-256 does not match"):
        read_tensors(tmp_path / "x")


def test_equal_content_makes_equal_files(tmp_path):
    said = {f"k{i}": "ü\n" for i in range(9)}
    for i in range(20):
        write_tensors(tmp_path / str(i), {"x": torch.ones(3)}, said)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 8, (10**6).to_bytes(8, "little") + b"{}", (10).to_bytes(8, "little") + b"[" * 10]
)
def test_what_is_no_safetensors_file_is_one_sentence(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x is not a complete file of weights") as caught:
        read_tensors(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "x")
    with pytest.raises((OSError, ValueError), match="not a regular file"):
        read(tmp_path / "x")


def test_a_file_that_is_cut_off_after_it_was_read_is_not_missed(tmp_path):
    write_tensors(tmp_path / "x", {"x": torch.arange(100_000)})
    tensors, _ = read_tensors(tmp_path / "x")
    os.truncate(tmp_path / "x", 0)
    assert tensors["x"].sum() == 99_999 * 50_000


def test_a_folder_whose_name_is_not_utf_8_is_written_and_read(tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    write_tensors(folder / "x.safetensors", {"x": torch.ones(2)}, {"made": "here"})
    assert read_metadata(folder / "x.safetensors") == {"made": "here"}
    assert read_tensors(folder / "x.safetensors")[1] == {"made": "here"}
