"""Where the work is done: each task once, failures apart, and a dead process takes nothing with it."""

import os
import signal

import numpy as np
import pytest

from fewshot.utils.executors import Failure, Joblib, Serial, Stored, make_executor


def divide(a, b):
    return a / b


def divide_or_die(a, b):
    """End the process without a word where there is nothing to divide by, as the kernel does when memory ends."""
    if b == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return a / b


TASKS = [(8.0, 2), (1.0, 0), (9.0, 3), (10.0, 5)]


@pytest.mark.parametrize(
    "executor", [Serial(), pytest.param(Joblib(2), marks=pytest.mark.slow)], ids=["serial", "joblib"]
)
def test_a_task_that_fails_is_told_with_its_error_and_the_others_have_results(executor):
    found = dict(executor.map(divide, TASKS))
    assert isinstance(found[1], Failure)
    assert found[1].error == "ZeroDivisionError: float division by zero"
    assert "divide" in found[1].trace
    assert [found[i] for i in (0, 2, 3)] == [4.0, 3.0, 2.0]


@pytest.mark.slow
def test_a_process_that_dies_takes_only_its_own_task_with_it():
    found = dict(Joblib(2).map(divide_or_die, TASKS))
    assert isinstance(found[1], Failure)
    assert "its process died" in found[1].error
    assert [found[i] for i in (0, 2, 3)] == [4.0, 3.0, 2.0]


def test_an_array_of_a_file_is_mapped_where_it_is_needed(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(4.0))
    shared = Serial().share(tmp_path / "x.npy")
    assert isinstance(shared, Stored)
    ((_, total),) = Serial().map(np.sum, [(shared,)])
    assert total == 6.0


def test_an_unknown_executor_is_named():
    with pytest.raises(ValueError, match="no executor is called 'jobilb'; did you mean 'joblib'"):
        make_executor("jobilb", 2)
