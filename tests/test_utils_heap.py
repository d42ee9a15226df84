import pytest

from fewshot.utils import heap


def test_what_does_not_fit_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr(heap, "available_memory", lambda: 1e9)
    heap.refuse_too_large(1e9, "the scores", "ask for fewer")
    with pytest.raises(MemoryError, match=r"the scores take 2\.0 GB, and 1\.0 GB of memory are free; ask for fewer"):
        heap.refuse_too_large(2e9, "the scores", "ask for fewer")


def test_a_file_that_does_not_fit_on_the_disk_is_refused_before_it_is_written(tmp_path, monkeypatch):
    heap.refuse_full_disk(tmp_path / "x", 2**20)
    with pytest.raises(OSError, match=r"the file takes 1000000\.0 GB, and .* GB of disk are free"):
        heap.refuse_full_disk(tmp_path / "x", 10**15)


def test_the_free_memory_is_known_or_infinite():
    assert heap.available_memory() > 2**20
