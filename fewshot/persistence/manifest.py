"""The manifest of an artifact: parsed, checked, and the data files that it names verified."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot._version import __version__
from fewshot.errors import ArtifactError
from fewshot.persistence.content import is_whole, json_object
from fewshot.persistence.files import PARTIAL, open_regular
from fewshot.persistence.locking import LOCK

MANIFEST = "manifest.json"
KINDS = ("classifier", "index", "export", "store")
#: Bump when older versions cannot read the format; folders that they can read are written in an earlier one.
FORMAT, PLAIN = 3, 2
BEGIN = b'{"format": '
_DIGEST = re.compile(rb', "digest": "([0-9a-f]{64})"\}\n\Z')
#: Names of the data files of an artifact, and of earlier manifests.
_PARTS = "memory|weights|learner|domain|background|support|keys|changes|lists|encoder|preprocess|history|records"
_SUFFIXES = "safetensors|faiss|onnx|json|npz"
_NAME = re.compile(rf"({_PARTS})-[0-9a-f]{{16}}\.({_SUFFIXES})")
#: Data files, and what a killed writer leaves (``.tmp`` is safetensors' own); not the hidden files of other programs.
DATA_FILE = re.compile(
    rf"{_NAME.pattern}|{re.escape(LOCK)}|\.(({_PARTS})(-[0-9a-f]{{16}})?\.({_SUFFIXES})|manifest\.json){PARTIAL}|\.tmp\w{{6}}"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Largest size of a manifest; a million labels take some 20 MB.
MOST_BYTES = 1 << 30


def parse_manifest(raw: bytes) -> dict[str, Any]:
    """Return a manifest; raise ValueError if its digest does not match or no version writes such content."""
    found = _DIGEST.search(raw)
    if found is None or hashlib.sha256(raw[: found.start()]).hexdigest().encode() != found[1]:
        raise ValueError("it is damaged, because its digest does not match")
    manifest = json_object(raw)
    if not is_whole(manifest.get("format"), 1) or not isinstance(manifest.get("version"), str):
        raise ValueError("it does not name the version that wrote it")
    if manifest["format"] <= FORMAT:
        if manifest.get("kind", KINDS[0]) not in KINDS:
            raise ValueError(f"its kind is {manifest['kind']!r:.60}; expected {', '.join(KINDS)}")
        for part in ("files", "caches"):
            entries = manifest.get(part, {} if part == "caches" else None)
            if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
                raise ValueError(f"not all of its {part} have a name, sha256 and bytes")
    return manifest


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("name", "sha256"))
        and _SHA256.fullmatch(entry["sha256"]) is not None
        and is_whole(entry.get("bytes"))
    )


def refuse_newer(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise if a newer version has written the manifest, in a format that this one cannot read."""
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{folder} was written by fewshot {manifest['version']!s:.40} in format {manifest['format']}; this is "
            f"{__version__}, which reads up to format {FORMAT}: upgrade fewshot"
        )


def verified(folder: Path, entry: Mapping[str, Any]) -> Path:
    """Return the path of a data file, given its entry in a manifest; raise unless it is a regular file and whole."""
    if not _NAME.fullmatch(entry["name"]):
        raise ArtifactError(
            f"{folder / MANIFEST} names {entry['name']!r:.80}, which is not the name of a data file; save again"
        )
    path = folder / entry["name"]
    try:
        with open_regular(path) as file:
            # The size first, because a far larger file takes long to read.
            fits = os.fstat(file.fileno()).st_size == entry["bytes"]
            found = hashlib.file_digest(file, "sha256").hexdigest() if fits else ""
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; restore it from a copy, or save again") from None
    if found != entry["sha256"]:
        what = "SHA-256" if found else "size"
        raise ArtifactError(f"{path} is damaged: its {what} does not match; restore it from a copy, or save again")
    return path
