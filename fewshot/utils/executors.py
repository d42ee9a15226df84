"""Where work is done that falls into parts: here, on the cores of this machine, or on a cluster."""

from __future__ import annotations

import logging
import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.errors import MissingExtraError, UnknownNameError
from fewshot.utils.waiting import passive_waiting, wait_passively

EXECUTORS = ("serial", "joblib", "ray")
MAX_JOBS = 1024
#: Times that a worker process may die before what it did is done alone, to see whose fault it is.
DEATHS = 2
#: A task: its function's arguments.
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """Why a task has no result.

    Attributes
    ----------
    error : str
        In a sentence.
    trace : str
        Where it happened.
    """

    error: str
    trace: str = ""


class Executor(ABC):
    """Does tasks that depend on nothing but their arguments, in any order."""

    @abstractmethod
    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield the place of each task and its result, or a `Failure`, as they come."""

    def share(self, path: Path) -> Any:
        """Return what stands for the array of a file among the arguments of a task."""
        return Stored(str(path))

    def close(self) -> None:  # noqa: B027 - most take nothing
        """Let go of what was taken."""


@dataclass(frozen=True)
class Stored:
    """An array in a file, which is mapped where it is needed."""

    path: str

    def open(self) -> Any:
        """Return the array."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


def attempt(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the result of a task, or the `Failure` that it ended with."""
    try:
        return function(*(part.open() if isinstance(part, Stored) else part for part in arguments))
    except Exception as error:  # whatever it is: the others go on, and this one is reported
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


class Serial(Executor):
    """One task after another, in this process."""

    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield the result of one task after another."""
        for i, arguments in enumerate(tasks):
            yield i, attempt(function, arguments)


class Joblib(Executor):
    """Processes of this machine.

    Parameters
    ----------
    jobs : int
        How many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield results as they come; a process that dies takes no other task with it."""
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
                    yield i, Failure(f"its process died ({type(error).__name__}), e.g. for want of memory")

    def _run(self, function: Callable[..., Any], tasks: dict[int, Arguments]) -> Iterator[tuple[int, Any]]:
        from joblib import Parallel, delayed

        run = Parallel(
            n_jobs=max(self.jobs, 2),
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="all",
            initializer=wait_passively,
        )
        yield from run(delayed(_numbered)(i, function, arguments) for i, arguments in tasks.items())


class Ray(Executor):
    """A cluster: the one that ``RAY_ADDRESS`` names, else processes of this machine.

    On another machine ``fewshot`` must be installed, and files that the arguments name lie where they lie here: arrays
    travel with the tasks, and tasks of a machine that is lost are done again on another.

    Parameters
    ----------
    jobs : int
        Processes, where a cluster is made of this machine.
    """

    def __init__(self, jobs: int) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray is missing; run: pip install 'fewshot[ray]'") from None
        self.ray = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            address = os.environ.get("RAY_ADDRESS")
            # Not some cluster that happens to run here: it may have other cores, and other versions of packages.
            own: dict[str, Any] = {"address": "local", "num_cpus": jobs, "include_dashboard": False}
            more: dict[str, Any] = {"address": address} if address else own
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **more)

    def map(self, function: Callable[..., Any], tasks: Sequence[Arguments]) -> Iterator[tuple[int, Any]]:
        """Yield results as they come; what a lost machine did is done again."""
        ours = {name: value for name, value in os.environ.items() if name.startswith("FEWSHOT_")}
        runtime = {"env_vars": passive_waiting() | ours}
        remote = self.ray.remote(num_cpus=1, max_retries=5, runtime_env=runtime)(_flat)
        waiting = {remote.remote(function, *arguments): i for i, arguments in enumerate(tasks)}
        while waiting:
            (done,), _ = self.ray.wait(list(waiting), num_returns=1)
            i = waiting.pop(done)
            try:
                yield i, self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                yield i, Failure(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    def share(self, path: Path) -> Any:
        """Put the array into the cluster's memory, once."""
        return self.ray.put(np.load(path, allow_pickle=False))

    def close(self) -> None:
        """Leave the cluster, and end it if it was made here."""
        if self._is_own:
            self.ray.shutdown()


def make_executor(name: str, jobs: int) -> Executor:
    """Return an executor by its name.

    Raises
    ------
    UnknownNameError
        If there is none.
    ValueError
        If `jobs` is not in 1..1024.
    MissingExtraError
        If its package is missing.
    """
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if not 1 <= jobs <= MAX_JOBS:
        raise ValueError(f"jobs is {jobs}; expected a whole number from 1 to {MAX_JOBS}")
    if name == "serial" or (name == "joblib" and jobs == 1):
        return Serial()
    return Joblib(jobs) if name == "joblib" else Ray(jobs)


def _numbered(i: int, function: Callable[..., Any], arguments: Arguments) -> tuple[int, Any]:
    return i, attempt(function, arguments)


def _flat(function: Callable[..., Any], *arguments: Any) -> Any:
    """Do a task whose arrays a cluster has put in their places already."""
    return attempt(function, arguments)


def _pool_errors() -> tuple[type[BaseException], ...]:
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky.process_executor import BrokenProcessPool as LokyBroken
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    return BrokenProcessPool, LokyBroken, TerminatedWorkerError
