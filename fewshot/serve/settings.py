"""What to serve, to whom, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Where a service listens, who may use it, and how much it takes.

    Attributes
    ----------
    folder : str
        The classifier.
    host, port
        Where it listens; port 0 is any free one.
    hosts : tuple of str
        Names under which it may be reached, besides ``localhost``, addresses and `host`.
    token : str or None
        What clients must show.
    read_only : bool
        Whether nothing can be changed.
    root_path : str
        Where a proxy puts it, such as ``/fewshot``.
    workers : int
        Processes that answer.
    embedder : dict
        Parameters of the embedder of a new classifier.
    device : str
        Where to embed.
    max_body, max_archive : int
        Most bytes of a request, and of a classifier that is uploaded.
    max_pixels : int
        Most pixels of an image.
    max_images, max_queue : int
        Most images of a request, and waiting to be embedded.
    max_memory : int
        Most bytes of all requests that are being read.
    max_requests : int
        Most requests at once.
    head_seconds, body_seconds, send_seconds : float
        How long a client may take to send a head, to send a body, and to take what is sent.
    batch_seconds : float
        How long an image waits for others that are on their way.
    log_level : str
        Least level that is logged.
    plugins : tuple of str
        Files or modules with learners, for worker processes.
    """

    folder: str
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    read_only: bool = False
    root_path: str = ""
    workers: int = 1
    embedder: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    max_body: int = 64 * 2**20
    max_archive: int = 2**30
    max_pixels: int = 64_000_000
    max_images: int = 256
    max_queue: int = 1024
    max_memory: int = 128 * 2**20
    max_requests: int = 256
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    send_seconds: float = 60.0
    batch_seconds: float = 0.002
    log_level: str = "info"
    plugins: tuple[str, ...] = ()
