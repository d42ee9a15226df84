"""Memory that networks free and allocate at every layer is kept, and threads of a service share a heap."""

from threading import Thread

import pytest

from fewshot.utils import malloc
from fewshot.utils.malloc import keeping_memory, share_one_heap
from tests.processes import python

PAGE_FAULTS = """
import resource
from contextlib import nullcontext
import torch
from fewshot import create_backbone
from fewshot.utils.malloc import keeping_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

network = create_backbone("tf_efficientnet_lite0").to(memory_format=torch.channels_last)
images = torch.zeros(6, 3, 224, 224).to(memory_format=torch.channels_last)
for how in (nullcontext, keeping_memory):
    with how(), torch.inference_mode():
        network(images)
        before = faults()
        for _ in range(2):
            network(images)
    print(faults() - before)
"""


@pytest.mark.skipif(malloc._mallopt() is None, reason="the C library is not glibc")
@pytest.mark.parametrize("n", [6, pytest.param(64, marks=pytest.mark.slow)])  # of 64, blocks are beyond glibc's limit
def test_memory_is_not_fetched_again_inside_the_block(n):
    code = PAGE_FAULTS.replace("zeros(6,", f"zeros({n},")
    not_kept, kept = map(int, python(code).stdout.split())
    assert kept < 0.2 * not_kept


def test_blocks_may_be_nested_and_on_several_threads(monkeypatch):
    calls = []
    monkeypatch.setattr(malloc, "_kept_after", malloc.KEPT_AFTER)
    monkeypatch.setattr(malloc, "_mallopt", lambda: lambda option, value: calls.append((option, value)))

    def nested():
        with keeping_memory(), keeping_memory():
            pass

    threads = [Thread(target=nested) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert malloc._inside == 0
    assert calls[-2:] == [
        (malloc._TRIM_THRESHOLD, malloc.KEPT_AFTER),
        (malloc._MMAP_MAX, malloc.MAPPED_AFTER),
    ]
    entered, left = (calls.count((malloc._TRIM_THRESHOLD, kept)) for kept in (malloc.KEPT_INSIDE, malloc.KEPT_AFTER))
    assert entered == left >= 1


def test_an_error_ends_the_block_too_and_other_libraries_are_left_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(malloc, "_kept_after", malloc.KEPT_AFTER)
    monkeypatch.setattr(malloc, "_mallopt", lambda: lambda option, value: calls.append(value))
    with pytest.raises(KeyError), keeping_memory():
        raise KeyError
    assert calls[-2:] == [malloc.KEPT_AFTER, malloc.MAPPED_AFTER]
    monkeypatch.setattr(malloc, "_mallopt", lambda: None)
    with keeping_memory():
        assert malloc._inside == 0


def test_threads_that_share_a_heap_keep_what_their_batches_need(monkeypatch):
    calls = []
    monkeypatch.setattr(malloc, "_kept_after", malloc.KEPT_AFTER)
    monkeypatch.setattr(malloc, "_mallopt", lambda: lambda option, value: calls.append((option, value)))
    share_one_heap()
    assert calls == [(malloc._ARENA_MAX, 1)]
    with keeping_memory():
        pass
    assert calls[-2] == (malloc._TRIM_THRESHOLD, malloc.KEPT_SHARED)
    monkeypatch.setattr(malloc, "_mallopt", lambda: None)
    share_one_heap()
