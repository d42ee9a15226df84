"""Run a service as a process, or as several that share a port."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewshot.errors import ArtifactError, FewshotError
from fewshot.persistence.artifact import is_artifact, refuse_others
from fewshot.serve.log_lines import set_up
from fewshot.serve.settings import Settings
from fewshot.serve.signals import quiet_signals
from fewshot.serve.worker import run_worker

_log = logging.getLogger("fewshot.serve")
#: How often workers are looked after. The variable under which they share their figures.
POLL_SECONDS, SHARED = 0.1, "PROMETHEUS_MULTIPROC_DIR"
#: Addresses that only this machine reaches.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(settings: Settings, tell: Callable[[str], object], should_open: bool = False) -> None:
    """Serve a classifier until SIGTERM or Ctrl-C; requests that have begun are answered.

    Parameters
    ----------
    settings : Settings
        What to serve, and where.
    tell : callable
        Told where it listens once it answers.
    should_open : bool, default=False
        Whether to open the page in a browser.

    Raises
    ------
    ValueError
        If it would listen beyond this machine without a token, or there is nothing to serve.
    FewshotError
        If the port is taken.
    """
    check(settings)
    listener, is_new = listen(settings.host, settings.port), not is_artifact(settings.folder)

    def ready() -> None:
        url = url_of(listener, settings)
        what = f"{settings.folder}, which is new and knows no class," if is_new else settings.folder
        tell(f"serving {what} at {url} (Ctrl-C stops)")
        if should_open:
            webbrowser.open(url)

    if settings.workers == 1:
        from fewshot.serve.process import work  # only what answers needs torch

        work(settings, listener, ready)
    else:
        supervise(settings, listener, ready)


def check(settings: Settings) -> None:
    """Raise ValueError unless a service of these settings is safe and has something to serve."""
    if settings.host not in LOOPBACK and settings.token is None:
        raise ValueError(
            f"--host {settings.host} is reached by other machines, and there is no token; give one with --token FILE, "
            "or leave --host out"
        )
    if not is_artifact(settings.folder):
        if settings.read_only:
            raise ValueError(f"{settings.folder} holds no classifier to read; make one with fewshot fit")
        if Path(settings.folder).suffix.lower() == ".zip" and not os.path.lexists(settings.folder):
            raise ValueError(f"{settings.folder} does not exist; for a new classifier, give the name of a folder")
        refuse_others(settings.folder, "classifier")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, since asyncio then sets TCP_NODELAY
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(1024)
    except OSError as error:
        found.close()
        raise FewshotError(
            f"cannot listen at {host}:{port} ({error.strerror}); give another --port, 0 for any free one, or --host"
        ) from None
    found.set_inheritable(True)
    return found


def url_of(listener: socket.socket, settings: Settings) -> str:
    """Return the address of the page."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(settings.host, settings.host)
    return f"http://{host}:{listener.getsockname()[1]}{settings.root_path}/"


def supervise(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Keep worker processes running on one port until this process is to stop; one that dies is replaced.

    Any worker may change the folder: its lock lets one do so at a time, and the others notice.
    """
    set_up(settings.log_level)
    stop = threading.Event()
    context = multiprocessing.get_context("spawn")

    def start() -> Any:
        is_ready = context.Event()
        process = context.Process(target=run_worker, args=(settings, listener, is_ready.set))
        process.start()
        return process, is_ready

    with quiet_signals(stop.set), tempfile.TemporaryDirectory() as figures:
        os.environ[SHARED] = figures
        workers = [start() for _ in range(settings.workers)]
        try:
            told = False
            while not stop.wait(POLL_SECONDS):
                if not told and all(is_ready.is_set() for _, is_ready in workers):
                    ready()
                    told = True
                for place, (process, is_ready) in enumerate(workers):
                    if process.exitcode is None:
                        continue
                    if not is_ready.is_set():  # it would fail again
                        raise ArtifactError(f"{settings.folder} cannot be served; see what the worker has said")
                    how = _how(process.exitcode)
                    _log.warning("the worker %d has ended (%s); another one begins", process.pid, how)
                    workers[place] = start()
        finally:
            listener.close()  # else connections would wait for workers that take no more of them
            for process, _ in workers:
                process.terminate()
            for process, _ in workers:
                process.join()
            del os.environ[SHARED]


def _how(exitcode: int) -> str:
    """Return how a process has ended: signal 9 is also what the system sends when memory runs out."""
    return f"signal {-exitcode}" if exitcode < 0 else f"status {exitcode}"
