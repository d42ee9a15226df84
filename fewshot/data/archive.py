"""Published archives: a local copy, or a download with a verified checksum."""

from __future__ import annotations

import logging
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tqdm.utils import CallbackIOWrapper

from fewshot.errors import DownloadError
from fewshot.persistence.files import digest, replacing
from fewshot.utils.progress import progress_bar

_log = logging.getLogger(__name__)
#: Seconds without a response after which a download fails.
TIMEOUT = 30


def obtain(
    source: str | Path | None, url: str, sha256: str, folder: str | Path, progress: bool = True, option: str = "source"
) -> Path:
    """Return the path of an archive: `source`, or a download from `url`.

    Only a download is checked against the checksum, since a local archive may have been repacked; callers count the
    content of both. A complete earlier download is reused.

    Parameters
    ----------
    source : path or None
        A local archive.
    url : str
        Address of the published archive.
    sha256 : str
        Checksum of the published archive.
    folder : path
        Folder for downloads.
    progress : bool, default=True
        Whether to show a progress bar.
    option : str, default="source"
        How messages call `source`.

    Raises
    ------
    ValueError
        If `source` does not exist.
    DownloadError
        If the download fails or has another checksum; nothing is kept.
    """
    if source is not None:
        if not Path(source).is_file():
            raise ValueError(f"{source} does not exist; give {option} the path of {url.rpartition('/')[2]}, or omit it")
        return Path(source)
    target = Path(folder) / url.rpartition("/")[2]
    if target.is_file() and digest(target) == sha256:
        return target
    new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    cure = f"download it yourself and give its path as {option}"
    try:
        with replacing(target) as partial:
            _fetch(url, partial, progress, cure)
            if (found := digest(partial)) != sha256:
                raise DownloadError(f"{url} has the SHA-256 {found}, expected {sha256}; try again, or {cure}")
    except DownloadError:
        if new:
            target.parent.rmdir()
        raise
    return target


def _fetch(url: str, target: Path, progress: bool, cure: str) -> None:
    _log.info("downloading %s", url)
    try:
        with urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0) or None
            name = target.name.split(".")[1]
            with progress_bar(size, "B", show=progress, desc=name, unit_scale=True, unit_divisor=1024) as bar:
                shutil.copyfileobj(CallbackIOWrapper(bar.update, answer, "read"), file, 1 << 20)
            if size and file.tell() != size:  # http.client does not report a dropped connection
                raise OSError(f"it ended after {file.tell()} of {size} bytes")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url} cannot be downloaded ({reason}); {cure}") from error
