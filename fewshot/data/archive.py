"""Archives as they are published: a local copy, or a download whose checksum fits."""

from __future__ import annotations

import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tqdm.utils import CallbackIOWrapper

from fewshot.errors import DownloadError
from fewshot.persistence.files import digest, replacing
from fewshot.utils.progress import progress_bar

#: Seconds without an answer after which a download fails.
TIMEOUT = 30


def obtain(source: str | Path | None, url: str, sha256: str, folder: str | Path, progress: bool = True) -> Path:
    """Return the path of an archive: `source` as it is, or what is downloaded from `url` and has this checksum.

    A local archive may have been packed anew, so only a download is held against the checksum; whoever unpacks either
    counts what is in it. A download that is there already is not fetched again.

    Parameters
    ----------
    source : path or None
        A local archive.
    url : str
        Where it is published.
    sha256 : str
        Of what is published there.
    folder : path
        Where a download goes.
    progress : bool, default=True
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        If `source` is not there.
    DownloadError
        If the download fails, or is not what was published; nothing is kept then.
    """
    if source is not None:
        if not Path(source).is_file():
            raise ValueError(f"{source} is not there; give the path of {url.rpartition('/')[2]}, or leave it out")
        return Path(source)
    target = Path(folder) / url.rpartition("/")[2]
    if target.is_file() and digest(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        _fetch(url, partial, progress)
        if (found := digest(partial)) != sha256:
            raise DownloadError(
                f"what {url} sent has the SHA-256 {found}, expected {sha256}; try again, or fetch it by hand and give "
                "its path"
            )
    return target


def _fetch(url: str, target: Path, progress: bool) -> None:
    try:
        with urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0) or None
            name = target.name.split(".")[1]
            with progress_bar(size, "B", show=progress, desc=name, unit_scale=True, unit_divisor=1024) as bar:
                shutil.copyfileobj(CallbackIOWrapper(bar.update, answer, "read"), file, 1 << 20)
            if size and file.tell() != size:  # http.client takes a cut connection for the end
                raise OSError(f"it ended after {file.tell()} of {size} bytes")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url} cannot be fetched ({reason}); fetch it by hand and give its path") from error
