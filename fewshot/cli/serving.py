"""The command ``fewshot serve``: a page, and an HTTP API, to teach, try and correct a classifier."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from fewshot.cli.options import backbone, shared, whole

#: Fewest characters of a token.
SHORTEST = 16


def serve_options(serve: argparse.ArgumentParser) -> None:
    """Define ``fewshot serve``."""
    serve.description = (
        "Serve a page to teach a classifier by example, try it and correct it, and the same over HTTP (/v1). What is "
        "taught is saved to MODEL before it is acknowledged; all commands read it. A new MODEL begins empty, with the "
        "network that the options choose. Needs the extra 'serve'."
    )
    serve.add_argument("dir", metavar="MODEL", help="a classifier, or a new folder")
    serve.add_argument("--port", type=whole(0, 65535), default=8000, help="0 is any free one (default: %(default)s)")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; beyond this machine with --token only "
        "(default: %(default)s)",
    )  # fmt: skip
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="name under which a proxy or other machines reach it; repeat it for several",
    )  # fmt: skip
    serve.add_argument("--token", metavar="FILE", help=f"what clients must show, at least {SHORTEST} characters")
    serve.add_argument("--root-path", metavar="PATH", help="path under which a proxy puts it")
    serve.add_argument("--read-only", action="store_true", help="refuse all changes")
    serve.add_argument("--open", action="store_true", help="open the page in a browser")
    serve.add_argument(
        "--workers", type=whole(1, 64), default=1, metavar="N", help="processes that answer (default: %(default)s)"
    )
    levels = ("debug", "info", "warning", "error")
    serve.add_argument(
        "--log-level", choices=levels, default="info",
        help="of the log on standard error, which is JSON unless that is a terminal (default: %(default)s)",
    )  # fmt: skip
    backbone(serve)
    serve.add_argument(
        "--max-pixels", type=whole(1, 10**12), metavar="N", help="refuse images with more pixels (default: 64000000)"
    )
    shared(serve, "--domain", "--device")


def serve(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from fewshot.errors import missing
    from fewshot.utils.malloc import share_one_heap

    share_one_heap()
    for name in ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client"):
        try:
            import_module(name)
        except ImportError:
            raise missing(f"{name} is missing", "serve") from None
    from fewshot.cli.terminal import say
    from fewshot.serve.run import serve as run

    run(_settings(options), say, options.open)
    return 0


def _settings(options: argparse.Namespace) -> Any:
    from fewshot.cli.labelling import refuse_network
    from fewshot.persistence.artifact import is_artifact
    from fewshot.serve.settings import Settings

    if is_artifact(options.dir):
        refuse_network(options)
    root = (options.root_path or "").rstrip("/")
    if root and not root.startswith("/"):
        raise ValueError(f"--root-path is {root!r:.100}; expected a path such as /fewshot")
    names = ("weights", "pretrained", "bits", "crop", "views", "domain")
    network = {name: getattr(options, name) for name in names}
    network |= {
        "backbone": Path(options.checkpoint) if options.checkpoint else options.backbone, "img_size": options.size
    }  # fmt: skip
    limit = {} if options.max_pixels is None else {"max_pixels": options.max_pixels}
    return Settings(
        options.dir, options.host, options.port, tuple(options.allow_host),
        None if options.token is None else read_token(options.token), options.read_only, root, options.workers,
        network, options.device, log_level=options.log_level, plugins=tuple(options.plugin), **limit,
    )  # fmt: skip


def read_token(path: str) -> str:
    """Return the token in a file, without the end of its line.

    Raises
    ------
    ValueError
        If it is too short to be a secret, or is not printable ASCII, which a header can hold.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        if not {"/", "\\", "."} & set(path):  # it may be the secret itself
            raise ValueError("--token names no file here; give the file that holds the secret") from None
        raise ValueError(f"--token {path} cannot be read: {error.strerror}") from None
    if len(text) < SHORTEST or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(
            f"--token {path} holds no token; expected a line of at least {SHORTEST} printable characters, such as that "
            "of: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return text
