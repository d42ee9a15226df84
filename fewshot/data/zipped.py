"""Zip archives of images, which are unpacked beside themselves."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fewshot.data.scan import image_suffixes
from fewshot.errors import brief

#: Suffixes of tables, which are unpacked too.
_TABLES = (".csv",)


def unpack(archive: str | Path) -> Path:
    """Unpack the images and tables of a zip file into a folder of its name next to it, and return that folder.

    If everything in it lies in one folder, as when a folder was zipped, its content is taken. Nothing lands outside,
    whatever the names in the archive are; links, hidden files and files of other kinds are left in it.

    Parameters
    ----------
    archive : path
        The file, such as ``photos.zip`` for the folder ``photos``.

    Raises
    ------
    ValueError
        If the folder exists already, the file is no zip file, is damaged or has a password, or the disk is too small.
    """
    archive = Path(archive)
    folder = archive.with_suffix("")
    if folder.exists():
        raise ValueError(
            f"{folder} exists already, so {archive.name} cannot be unpacked to it; give {folder}, or move it"
        )
    try:
        with zipfile.ZipFile(archive) as opened, tempfile.TemporaryDirectory(dir=archive.parent or ".") as place:
            wanted = [entry for entry in opened.infolist() if _is_wanted(entry)]
            if sum(entry.file_size for entry in wanted) > shutil.disk_usage(place).free:
                raise ValueError(f"{archive} does not fit on the disk when unpacked; make room, or unpack it elsewhere")
            for entry in wanted:
                opened.extract(entry, place)
            if not wanted:
                raise ValueError(f"{archive} holds no image and no table; expected one folder of images per class")
            (_only_folder(Path(place)) or Path(place)).rename(folder)
            Path(place).mkdir(exist_ok=True)  # which the end of the block removes
            folder.chmod(0o755)  # that of temporary folders is for one user
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({brief(error)}); make it again without a password") from None
    return folder


def _is_wanted(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not (entry.is_dir() or is_link or is_hidden) and path.suffix.lower() in {*image_suffixes(), *_TABLES}


def _only_folder(folder: Path) -> Path | None:
    """Return the one folder in a folder, if nothing else is there and it holds folders or a table itself."""
    entries = list(folder.iterdir())
    if len(entries) != 1 or not entries[0].is_dir():
        return None
    inner = list(entries[0].iterdir())
    return entries[0] if any(one.is_dir() or one.suffix.lower() in _TABLES for one in inner) else None
