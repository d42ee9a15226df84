"""Zip archives of images, which are unpacked beside themselves."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from filecmp import cmp
from pathlib import Path, PurePath, PurePosixPath

from fewshot.data.left_out import LeftOut
from fewshot.data.scan import image_suffixes
from fewshot.errors import brief
from fewshot.utils.warning import warn

_log = logging.getLogger(__name__)
#: Suffixes of tables, which are unpacked too.
_TABLES = (".csv",)


def unpacked_folder(source: str | Path) -> Path:
    """Return the folder to which a zip file is unpacked, and any other path as it is; see `unpack`."""
    path = Path(source)
    return unpack(path) if path.suffix.lower() == ".zip" and os.path.isfile(path) else path


def unpack(archive: str | Path) -> Path:
    """Unpack the images and tables of a zip file into a folder of its name next to it, and return that folder.

    If everything in it lies in one folder, as when a folder was zipped, its content is taken. Nothing lands outside,
    whatever the names in the archive are; links, hidden files and files of other kinds are left in it. A folder of that
    name with the same images and tables, as of an earlier call or the one that was zipped, is returned as it is.

    Parameters
    ----------
    archive : path
        The file, such as ``photos.zip`` for the folder ``photos``.

    Raises
    ------
    ValueError
        If the folder exists already with other content, the file is no zip file, is damaged or has a password, or the
        disk is too small.

    Warns
    -----
    UserWarning
        If files of other kinds, such as HEIC or documents, are left in it.
    """
    archive = Path(archive)
    folder, left = archive.with_suffix(""), LeftOut()
    try:
        with zipfile.ZipFile(archive) as opened, tempfile.TemporaryDirectory(dir=archive.parent or ".") as place:
            visible = [entry for entry in opened.infolist() if _is_visible(entry)]
            wanted = [entry for entry in visible if _is_kept(entry.filename)]
            for entry in visible:
                if not _is_kept(entry.filename):
                    left.note(PurePosixPath(entry.filename).name)
            if sum(entry.file_size for entry in wanted) > shutil.disk_usage(place).free:
                raise ValueError(f"{archive} does not fit on the disk when unpacked; make room, or unpack it elsewhere")
            for entry in wanted:
                opened.extract(entry, place)
            if not wanted:
                raise ValueError(f"{archive} holds no image and no table; expected one folder of images per class")
            content = _only_folder(Path(place)) or Path(place)
            if not folder.exists():
                content.rename(folder)
                Path(place).mkdir(exist_ok=True)  # which the end of the block removes
                folder.chmod(0o755)  # that of temporary folders is for one user
            elif not _same(content, folder):
                raise ValueError(
                    f"{folder} exists already and holds something else than {archive.name}; give {folder}, or move it"
                )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({brief(error)}); make it again without a password") from None
    if told := left.summary():
        warn(f"{archive}: {told}")
    _log.info("unpacked %s to %s", archive, folder)
    return folder


def _is_visible(entry: zipfile.ZipInfo) -> bool:
    is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
    return not (entry.is_dir() or is_link or _is_hidden(PurePosixPath(entry.filename)))


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _is_kept(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in {*image_suffixes(), *_TABLES}


def _same(folder: Path, other: Path) -> bool:
    """Whether two folders have the same images and tables."""
    names, others = ({path.relative_to(top) for path in top.rglob("*") if path.is_file()} for top in (folder, other))
    kept = {name for name in others if not _is_hidden(name) and _is_kept(name.name)}
    return names == kept and all(cmp(folder / name, other / name, shallow=False) for name in names)


def _only_folder(folder: Path) -> Path | None:
    """Return the one folder in a folder, if nothing else is there and it holds folders or a table itself."""
    entries = list(folder.iterdir())
    if len(entries) != 1 or not entries[0].is_dir():
        return None
    inner = list(entries[0].iterdir())
    return entries[0] if any(one.is_dir() or one.suffix.lower() in _TABLES for one in inner) else None
