import subprocess
import sys
import threading

import pytest

from fewshot.utils import heap
from fewshot.utils.heap import keeping_memory

PAGE_FAULTS = """
import resource, sys
from contextlib import nullcontext
import torch
from fewshot import create_backbone
from fewshot.utils.heap import keeping_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

network = create_backbone("tf_efficientnet_lite0").to(memory_format=torch.channels_last)
images = torch.zeros(6, 3, 224, 224).to(memory_format=torch.channels_last)
with keeping_memory() if sys.argv[1] == "kept" else nullcontext(), torch.inference_mode():
    network(images)
    before = faults()
    for _ in range(5):
        network(images)
print(faults() - before)
"""


@pytest.mark.skipif(heap._mallopt() is None, reason="the C library is not glibc")
@pytest.mark.parametrize("n", [6, pytest.param(64, marks=pytest.mark.slow)])  # of 64, blocks are beyond glibc's limit
def test_memory_is_not_fetched_again_inside_the_block(n):
    code = PAGE_FAULTS.replace("zeros(6,", f"zeros({n},")
    kept, not_kept = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, check=True).stdout)
        for how in ("kept", "as it comes")
    )
    assert kept < 0.2 * not_kept


def test_blocks_may_be_nested_and_on_several_threads(monkeypatch):
    calls = []
    monkeypatch.setattr(heap, "_mallopt", lambda: lambda option, value: calls.append((option, value)))

    def nested():
        with keeping_memory(), keeping_memory():
            pass

    threads = [threading.Thread(target=nested) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heap._inside == 0
    assert calls[-2:] == [(heap._TRIM_THRESHOLD, heap.KEPT_AFTER), (heap._MMAP_MAX, heap.MAPPED_AFTER)]
    entered, left = (calls.count((heap._TRIM_THRESHOLD, kept)) for kept in (heap.KEPT_INSIDE, heap.KEPT_AFTER))
    assert entered == left >= 1


def test_an_error_ends_the_block_too_and_other_libraries_are_left_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(heap, "_mallopt", lambda: lambda option, value: calls.append(value))
    with pytest.raises(KeyError), keeping_memory():
        raise KeyError
    assert calls[-2:] == [heap.KEPT_AFTER, heap.MAPPED_AFTER]
    monkeypatch.setattr(heap, "_mallopt", lambda: None)
    with keeping_memory():
        assert heap._inside == 0
