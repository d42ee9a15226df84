"""Reject file names whose suffix belongs to another format than what is written, or read."""

from __future__ import annotations

import os
from pathlib import PurePath

_FORMATS = {
    "CSV": (".csv", ".txt"),
    "JSON": (".json", ".txt"),
    "HTML": (".html", ".htm"),
    "Parquet": (".parquet", ".parq", ".pq"),
}
#: Suffixes of known formats.
_KNOWN = (
    "csv txt tsv tab psv json jsonl ndjson json5 xml yaml yml toml ini md rst html htm xhtml mhtml pdf tex log "
    "xls xlsx xlsm xlsb ods doc docx odt rtf ppt pptx parquet parq pq arrow feather ipc avro orc lance "
    "h5 hdf hdf5 nc zarr mat db sqlite sqlite3 duckdb sql dta sav rds npy npz pkl pickle pt pth safetensors "
    "onnx faiss py ipynb zip gz tgz bz2 xz zst lz4 7z rar tar png jpg jpeg gif bmp tif tiff webp svg heic avif"
)
#: Those of spreadsheets, which open CSV.
_SPREADSHEETS = frozenset(["xls", "xlsx", "xlsm", "xlsb", "ods"])


def check_suffix(path: str | os.PathLike[str], written: str, what: str = "out", or_else: str | None = None) -> None:
    """Raise if the suffix of a file name belongs to another format.

    Parameters
    ----------
    path : path
        The file to write. A name without a suffix, or with an unknown one, is accepted, and so is any name of a link, a
        pipe or a device, which says nothing about its content.
    written : {"CSV", "JSON", "HTML", "Parquet"}
        The format of the content.
    what : str, default="out"
        Name of `path` in the error.
    or_else : {"CSV", "JSON", "HTML", "Parquet"}, optional
        A format that is written instead if the name asks for it.

    Raises
    ------
    ValueError
        If the suffix belongs to another format.

    Examples
    --------
    >>> check_suffix("all.csv", "Parquet")
    Traceback (most recent call last):
    ValueError: out is 'all.csv', but Parquet is written to it; expected a name that ends in .parquet
    """
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
        return
    suffix, own = PurePath(path).suffix.lower(), _FORMATS[written]
    if suffix[1:] in _KNOWN.split() and suffix not in own:
        formats = [written] if or_else is None else [written, or_else]
        ends = " or ".join(_FORMATS[one][0] for one in formats)
        hint = ", which spreadsheets open" if suffix[1:] in _SPREADSHEETS and formats[-1] == "CSV" else ""
        raise ValueError(
            f"{what} is {os.fspath(path)!r}, but {' or '.join(formats)} is written to it; expected a name that ends in "
            f"{ends}{hint}"
        )


def refuse_spreadsheet(path: str | os.PathLike[str]) -> None:
    """Raise for the file of a spreadsheet where a table or images are read.

    Examples
    --------
    >>> import os, tempfile
    >>> place = os.path.join(tempfile.mkdtemp(), "labels.ods")
    >>> refuse_spreadsheet(place)
    >>> open(place, "w").close()
    >>> refuse_spreadsheet(place)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...labels.ods is a spreadsheet; in Excel and the like, save it as CSV UTF-8, and give that file
    """
    if PurePath(path).suffix.lower()[1:] in _SPREADSHEETS and os.path.isfile(path):
        raise ValueError(
            f"{os.fspath(path)} is a spreadsheet; in Excel and the like, save it as CSV UTF-8, and give that file"
        )
