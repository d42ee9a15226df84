"""Task executors: serial, joblib processes on this machine, or a Ray cluster."""

from __future__ import annotations

import logging
import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fewshot.errors import missing
from fewshot.utils.carried import all_carried, know
from fewshot.utils.orphans import end_with
from fewshot.utils.threads import passive_waiting, wait_passively
from fewshot.utils.values import check_name

ExecutorName = Literal["serial", "joblib", "ray"]
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)
MAX_JOBS = 1024
#: After this many deaths of worker processes, tasks run one at a time, to find the one that kills its process.
DEATHS = 2
#: The arguments of a task's function.
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """Why a task has no result.

    Attributes
    ----------
    error : str
        The error in one sentence.
    trace : str
        Its traceback.
    """

    error: str
    trace: str = ""


class Executor(ABC):
    """Runs tasks that depend on nothing but their arguments, in any order."""

    @abstractmethod
    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield the position of each task with its result or `Failure`, as they finish."""

    def share(self, path: Path) -> Any:
        """Return a reference to the array in a file, to be passed among the arguments of tasks."""
        return Stored(str(path))

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release resources."""


@dataclass(frozen=True)
class Stored:
    """An array in a file, mapped by the process that runs the task."""

    path: str

    def open(self) -> Any:
        """Return the array."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


def attempt(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the result of a task, or its `Failure`."""
    try:
        return function(*(part.open() if isinstance(part, Stored) else part for part in arguments))
    except Exception as error:  # any error is reported, and the other tasks go on
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


class Serial(Executor):
    """Runs one task after another in this process."""

    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield results in order."""
        for i, arguments in enumerate(tasks):
            yield i, attempt(function, arguments)


class Joblib(Executor):
    """Runs tasks in processes on this machine, which end with this one, also if it is killed.

    Parameters
    ----------
    jobs : int
        Number of processes.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield results as they finish; if a process dies, only its own task fails."""
        waiting, deaths = dict(enumerate(tasks)), 0
        while waiting:
            some = dict(list(waiting.items())[: 1 if deaths >= DEATHS else None])
            try:
                for i, outcome in self._run(function, some):
                    del waiting[i]
                    yield i, outcome
            except _pool_errors() as error:
                deaths += 1
                if len(some) == 1:
                    (i,) = some
                    del waiting[i]
                    yield i, Failure(f"its process died ({type(error).__name__}), perhaps for lack of memory")

    def _run(self, function: Callable[..., Any], tasks: dict[int, Arguments]) -> Iterator[tuple[int, Any]]:
        from joblib import Parallel, delayed

        run = Parallel(
            n_jobs=max(self.jobs, 2),
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="all",
            initializer=_begin,
            initargs=(os.getpid(), all_carried()),  # equal bytes keep the processes of an earlier call
        )
        yield from run(delayed(_numbered)(i, function, arguments) for i, arguments in tasks.items())


class Ray(Executor):
    """Runs tasks on the Ray cluster that ``RAY_ADDRESS`` names, else in processes on this machine.

    Other machines need ``fewshot``, and the files that arguments name, under the same paths. Arrays travel with the
    tasks. The tasks of a lost machine run again on another.

    Parameters
    ----------
    jobs : int
        Number of processes if the cluster is started on this machine.
    """

    def __init__(self, jobs: int) -> None:
        try:
            import ray
        except ImportError:
            raise missing("ray is missing", "ray") from None
        self.ray = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            address = os.environ.get("RAY_ADDRESS")
            # Not a cluster that happens to run here: its cores and package versions may differ.
            own: dict[str, Any] = {"address": "local", "num_cpus": jobs, "include_dashboard": False}
            more: dict[str, Any] = {"address": address} if address else own
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **more)

    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield results as they finish; the tasks of a lost machine run again."""
        ours = {name: value for name, value in os.environ.items() if name.startswith("FEWSHOT_")}
        runtime = {"env_vars": passive_waiting() | ours}
        remote = self.ray.remote(num_cpus=1, max_retries=5, runtime_env=runtime)(_flat)
        names = self.ray.put(all_carried())
        waiting = {remote.remote(names, function, *arguments): i for i, arguments in enumerate(tasks)}
        while waiting:
            (done,), _ = self.ray.wait(list(waiting), num_returns=1)
            i = waiting.pop(done)
            try:
                yield i, self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                yield i, Failure(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    def share(self, path: Path) -> Any:
        """Put the array into the cluster's memory."""
        return self.ray.put(np.load(path, allow_pickle=False))

    def close(self) -> None:
        """Shut the cluster down if it was started here."""
        if self._is_own:
            self.ray.shutdown()


def make_executor(name: ExecutorName, jobs: int) -> Executor:
    """Return an executor by its name.

    Raises
    ------
    UnknownNameError
        If no executor has this name.
    ValueError
        If `jobs` is not in 1..1024.
    MissingExtraError
        If its package is missing.
    """
    check_name("executor", name, EXECUTORS)
    if not 1 <= jobs <= MAX_JOBS:
        raise ValueError(f"jobs is {jobs}; expected a whole number from 1 to {MAX_JOBS}")
    if name == "serial" or (name == "joblib" and jobs == 1):
        return Serial()
    return Joblib(jobs) if name == "joblib" else Ray(jobs)


def _numbered(i: int, function: Callable[..., Any], arguments: Arguments) -> tuple[int, Any]:
    return i, attempt(function, arguments)


def _begin(parent: int, names: bytes) -> None:
    """Prepare a process, before it imports torch, and tell it what was registered by hand."""
    end_with(parent)
    wait_passively()
    know(names)


def _flat(names: bytes, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task whose arrays Ray has already put in their places."""
    know(names)
    return attempt(function, arguments)


def _pool_errors() -> tuple[type[BaseException], ...]:
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky.process_executor import BrokenProcessPool as LokyBroken
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    return BrokenProcessPool, LokyBroken, TerminatedWorkerError
