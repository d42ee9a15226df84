"""OpenMP's threads sleep while they wait, in every process of our own, and as the user says where they say it."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fewshot.classifiers.calibration import score_episodes
from fewshot.learners.prototypical import PrototypicalLearner
from fewshot.utils.threads import compute_on, one_thread, passive_waiting

COMMAND = ["-m", "fewshot", "predict", ".", "x.png"]  # fails, having loaded torch
# A program that is not ours, and does not load torch itself.
HOST = """
import time, timeit
from fewshot.utils.executors import make_executor
print(dict(make_executor("joblib", 2).map(timeit.timeit, [("import torch", "pass", time.time, 1)])))
"""


def policies(arguments, **settings):
    """The policy of each OpenMP library that was loaded, as the library itself tells it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return re.findall(r"(OMP_WAIT_POLICY|GOMP_SPINCOUNT) *= *'(\w+)'", done.stdout + done.stderr)


@pytest.mark.slow
def test_threads_of_a_command_sleep():
    found = policies(COMMAND)
    assert ("OMP_WAIT_POLICY", "PASSIVE") in found
    assert {value for name, value in found if name == "GOMP_SPINCOUNT"} <= {"1000"}


@pytest.mark.slow
def test_threads_of_a_worker_sleep_though_its_host_is_not_ours():
    workers = policies(["-c", HOST])
    assert ("OMP_WAIT_POLICY", "PASSIVE") in workers
    assert {value for name, value in workers if name == "GOMP_SPINCOUNT"} <= {"1000"}


@pytest.mark.slow
def test_threads_of_a_cluster_sleep():
    pytest.importorskip("ray")
    code = (
        "import os\nfrom fewshot.utils.executors import make_executor\nwork = make_executor('ray', 1)\n"
        "print(dict(work.map(os.getenv, [('OMP_WAIT_POLICY',)])))\nwork.close()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["{0:", "'PASSIVE'}"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
        (
            {"OMP_WAIT_POLICY": "passive"},
            {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"},
        ),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "0"}),
        ({"KMP_BLOCKTIME": "9"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "9"}),
    ],
)
def test_what_the_user_has_set_stays(monkeypatch, settings, expected):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert passive_waiting() == expected


def test_the_environment_of_a_host_is_left_alone(monkeypatch, capsys):
    from fewshot.cli import main

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["show", "no-such-folder"]) != 0
    assert "OMP_WAIT_POLICY" not in os.environ


def test_one_thread_of_ours_computes_on_others_than_the_rest():
    usual = torch.get_num_threads()
    with ThreadPoolExecutor(3, initializer=compute_on, initargs=(usual + 1,)) as pool:
        together = threading.Barrier(3, timeout=60)
        found = [pool.submit(lambda: (together.wait(), torch.get_num_threads())[1]) for _ in range(3)]
        assert [one.result() for one in found] == [usual + 1] * 3
    assert torch.get_num_threads() == usual
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == usual


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_block_computes_on_one_thread_while_others_do_as_before(three_threads):
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 3
        with one_thread():
            assert torch.get_num_threads() == 1
            assert other.submit(torch.get_num_threads).result() == 3
            with ThreadPoolExecutor(1) as new:
                assert new.submit(torch.get_num_threads).result() == 3
            with one_thread():
                pass
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3


def test_episodes_of_a_calibration_are_answered_on_one_thread(three_threads):
    seen = set()

    class Counting(PrototypicalLearner):
        def transform(self, x):
            seen.add(torch.get_num_threads())
            return super().transform(x)

    rng = np.random.default_rng(0)
    score_episodes(Counting(), rng.normal(size=(40, 4)), np.repeat(np.arange(8), 5), n_way=3, n_shot=1, n_query=2)
    assert seen == {1}
    assert torch.get_num_threads() == 3
