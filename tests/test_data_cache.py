import multiprocessing
import os
import threading
import time
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


def test_the_content_alone_decides(tmp_path, decoded):
    place = tmp_path / "1.bmp"

    def put(value, path=place):
        Image.new("RGB", (8, 8), (value,) * 3).save(path)
        os.utime(path, ns=(1, 1))

    def pixels(path=place):
        return int(decode_all(np.array([str(path)], dtype=object), PREPROCESSING, tmp_path / "c", False)[0, 0, 0, 0])

    put(10)
    assert pixels() == 10
    put(200)  # of the same name, size and time
    assert pixels() == 200
    put(10, tmp_path / "2.bmp")
    os.utime(tmp_path / "2.bmp")
    assert pixels(tmp_path / "2.bmp") == 10
    assert len(decoded) == 2


def test_a_flipped_bit_anywhere_is_noticed(paths, tmp_path, decoded):
    expected = np.array(decode_all(paths, PREPROCESSING, tmp_path / "c", False))
    (file,) = (tmp_path / "c").iterdir()
    whole = file.read_bytes()
    for n, place in enumerate(range(0, len(whole), 37), start=2):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        np.testing.assert_array_equal(decode_all(paths, PREPROCESSING, tmp_path / "c", False), expected)
        assert len(decoded) == 3 * n
        assert file.read_bytes() == whole


def test_a_file_that_changes_meanwhile_is_decoded_again(paths, tmp_path, monkeypatch):
    original, times = Preprocessing.__call__, []

    def change(self, source):
        pixels = original(self, source)
        if source == paths[0] and len(times) < 1:
            times.append(Image.new("RGB", (8, 8), (9, 9, 9)).save(source))
        return pixels

    monkeypatch.setattr(Preprocessing, "__call__", change)
    assert (decode_all(paths, PREPROCESSING, tmp_path / "c", False)[0] == 9).all()
    assert len(files(tmp_path / "c")) == 1


def test_the_cache_is_bounded_and_keeps_what_was_used_last(paths, tmp_path, monkeypatch, decoded):
    def make(size):
        decode_all(paths, Preprocessing(3, size, size), tmp_path / "c", False)
        for path in (tmp_path / "c").iterdir():  # an hour goes by
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 3600 * 10**9))

    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.npy").write_bytes(bytes(10**6))
    monkeypatch.setenv("FEWSHOT_CACHE_GB", "0.00005")
    for size in (40, 41, 42, 40, 43):  # 14 to 17 kB each, so three of them fit
        make(size)
    assert len(decoded) == 3 * 4
    make(40)
    make(42)
    assert len(decoded) == 3 * 4
    make(41)
    assert len(decoded) == 3 * 5
    assert len(files(tmp_path / "c")) == 1 + 3
    monkeypatch.setenv("FEWSHOT_CACHE_GB", "0")
    make(60)
    assert len(files(tmp_path / "c")) == 1 + 1
    monkeypatch.setenv("FEWSHOT_CACHE_GB", "much")
    with pytest.raises(ValueError, match="FEWSHOT_CACHE_GB is 'much'; expected gigabytes, such as 20"):
        make(60)


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
    with pytest.raises(OSError, match="No space left on device; decoded images are cached there; set FEWSHOT_CACHE"):
        decode_all(paths, PREPROCESSING, tmp_path / "c", False)
    assert files(tmp_path / "c") == []


def _decode_slowly(paths, folder):
    Preprocessing.__call__ = lambda self, source: time.sleep(60)
    decode_all(paths, PREPROCESSING, folder, False)


def test_what_a_kill_has_left_is_swept_by_the_next_run_and_what_others_write_is_not(paths, tmp_path):
    cache, context = tmp_path / "c", multiprocessing.get_context("fork")
    workers = [context.Process(target=_decode_slowly, args=(paths, cache)) for _ in range(2)]
    for i, worker in enumerate(workers):
        worker.start()
        while len(list(cache.glob(".*.partial"))) <= i:
            time.sleep(0.01)
    (cache / ".mine.partial").write_bytes(b"mine")
    workers[0].kill()
    workers[0].join()
    decode_all(paths[:1], PREPROCESSING, cache, False)
    left = files(cache)
    assert [f"-{workers[1].pid}-" in name for name in left if name.endswith("-") or ".npy." in name] == [True]
    assert ".mine.partial" in left
    workers[1].kill()
    workers[1].join()
    decode_all(paths[:1], PREPROCESSING, cache, False)
    assert [name for name in files(cache) if name.startswith(".")] == [".mine.partial"]


def test_the_range_of_16_bit_files_is_part_of_what_is_kept(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(path)
    data, cache = LabeledImages([path], ["a"]), tmp_path / "cache"
    for bits, level in ((12, 62), (16, 4), (12, 62)):
        assert data.decoded(8, bits=bits, grey=True, cache=cache, progress=False).images.mean() == level
    with pytest.warns(UserWarning, match="read as 10 bits"):
        assert data.decoded(8, grey=True, cache=cache, progress=False).images.mean() == 249
