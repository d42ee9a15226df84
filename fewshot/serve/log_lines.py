"""What the log looks like: a line of JSON for each record, or a short one in a terminal. Light to import."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

#: What every record of `logging` has.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JSONFormatter(logging.Formatter):
    """Write a record as one line of JSON in ASCII, so that no client can forge a line or move a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        found |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            found["trace"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


class TerminalFormatter(logging.Formatter):
    """Write a record for a person who watches: time, request and status, or the message; in ASCII, too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the trace of an error below it."""
        found, at = vars(record), datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        told = f"{found['method']} {found['path']} {found['status']}" if "status" in found else record.getMessage()
        after = f" {found['milliseconds']:.0f} ms" if "milliseconds" in found else ""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        # Escaped like a string of JSON, without the quotes around it.
        line = f"{at} {level}{json.dumps(told)[1:-1]}{after}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(level: str) -> None:
    """Log to standard error: requests, the server's own messages, and warnings.

    In a terminal, the server's messages about how it begins and ends are left out: they bury the address.
    """
    handler, is_watched = logging.StreamHandler(), sys.stderr.isatty()
    handler.setFormatter(TerminalFormatter() if is_watched else JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("fewshot", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
    if is_watched and level == "info":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.captureWarnings(True)
