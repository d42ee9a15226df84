import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot.data.cache import cache_folder, decode_all
from fewshot.data.images import LabeledImages
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ImageDecodeError

PREPROCESSING = Preprocessing(3, 8, 8)


@pytest.fixture
def paths(tmp_path):
    rng, names = np.random.default_rng(0), []
    for i, size in enumerate([(20, 12), (8, 8), (9, 30)]):
        names.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(names[-1])
    return np.array(names, dtype=object)


@pytest.fixture
def decoded(monkeypatch):
    """The sources that were decoded, in any order."""
    seen, original = [], Preprocessing.__call__

    def count(self, source):
        seen.append(source)
        return original(self, source)

    monkeypatch.setattr(Preprocessing, "__call__", count)
    return seen


def files(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_are_those_of_one_image_at_a_time(paths, tmp_path, channels):
    preprocessing = Preprocessing(channels, 8, 10, crop_pct=0.9)
    pixels = decode_all(paths, preprocessing, tmp_path / "c", False)
    np.testing.assert_array_equal(pixels, np.stack([preprocessing(path) for path in paths]))


def test_images_are_decoded_once(paths, tmp_path, decoded):
    first = decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert sorted(decoded) == sorted(paths)
    second = decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert len(decoded) == 3
    np.testing.assert_array_equal(first, second)
    assert len(files(tmp_path / "c")) == 1


def test_what_changes_the_pixels_decodes_again(paths, tmp_path, decoded):
    first = decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    Image.new("RGB", (20, 12), (255, 0, 0)).save(paths[0])
    changed = decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert (changed[0] == (255, 0, 0)).all()
    np.testing.assert_array_equal(changed[1:], first[1:])
    np.testing.assert_array_equal(decode_all(paths[::-1], PREPROCESSING, tmp_path / "c", False), changed[::-1])
    decode_all(paths, Preprocessing(3, 8, 8, background=(0, 0, 0)), tmp_path / "c", False)
    assert len(decoded) == 12


def test_a_change_of_the_time_alone_decodes_again(paths, tmp_path, decoded):
    decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    os.utime(paths[1], ns=(1, 1))
    decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert len(decoded) == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ImageDecodeError])
def test_an_interrupted_decode_leaves_nothing(paths, tmp_path, monkeypatch, error):
    original = Preprocessing.__call__

    def fail(self, source):
        if source == paths[2]:
            raise error(*([source, "broken"] if error is ImageDecodeError else []))
        return original(self, source)

    with monkeypatch.context() as patch:
        patch.setattr(Preprocessing, "__call__", fail)
        with pytest.raises(error):
            decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert files(tmp_path / "c") == []
    pixels = decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    np.testing.assert_array_equal(pixels, np.stack([PREPROCESSING(path) for path in paths]))


def test_an_error_names_the_image_and_its_place(paths, tmp_path):
    with open(paths[1], "r+b") as file:
        file.truncate(60)
    with pytest.raises(ImageDecodeError, match=r"image 1, .*1\.png: ") as caught:
        decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert (caught.value.source, caught.value.index) == (paths[1], 1)


def test_the_pixels_on_disk_cannot_be_written_to(paths, tmp_path):
    before = [Path(path).read_bytes() for path in paths]
    pixels = decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0
    assert [Path(path).read_bytes() for path in paths] == before


def _decode(paths, folder, barrier, answers):
    barrier.wait(60)
    answers.put(int(decode_all(paths, PREPROCESSING, folder, False).sum()))


def test_two_processes_at_once_are_fine(paths, tmp_path):
    many = np.repeat(paths, 40)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_decode, args=(many, tmp_path / "c", barrier, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert sums == {sum(int(PREPROCESSING(path).sum()) for path in paths) * 40}
    assert len(files(tmp_path / "c")) == 1


def test_pixels_in_memory_are_scaled_and_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "c"))
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    images.flags.writeable = False
    pixels = decode_all(images, PREPROCESSING, None, False)
    np.testing.assert_array_equal(pixels, np.stack([PREPROCESSING(image) for image in images]))
    assert not (tmp_path / "c").exists()


def test_pixels_of_the_right_size_are_taken_as_they_are_unless_they_are_to_be_cut():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    assert decode_all(images, PREPROCESSING, None, False) is images
    cut = Preprocessing(3, 8, 8, crop_pct=0.5)
    np.testing.assert_array_equal(decode_all(images, cut, None, False), np.stack([cut(image) for image in images]))


def test_no_images_are_no_pixels(tmp_path):
    assert LabeledImages([], []).decoded(8, grey=True, cache=tmp_path).images.shape == (0, 8, 8)


def test_the_folder_is_the_one_given_or_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("FEWSHOT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fewshot"
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("FEWSHOT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "fewshot")


def test_no_thread_is_left_behind(paths, tmp_path):
    before = threading.active_count()
    decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert threading.active_count() == before


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 300])
def test_a_file_that_is_not_whole_is_made_anew(paths, tmp_path, decoded, damage):
    expected = np.array(decode_all(paths, PREPROCESSING, tmp_path / "c", False))
    (name,) = files(tmp_path / "c")
    path = tmp_path / "c" / name
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(decode_all(paths, PREPROCESSING, tmp_path / "c", False), expected)
    assert len(decoded) == 6


def test_where_there_is_no_room_it_is_said_before_anything_is_lost(paths, tmp_path, monkeypatch):
    """A mapped file without room on the disk would end the process when it is written to."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left on device; decoded images are kept there, set FEWSHOT_CACHE"):
        decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert files(tmp_path / "c") == []
