"""Files in a folder of images that are none, or cannot be read: counted by kind, with what helps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from fewshot.errors import pip_install
from fewshot.utils.text import counted, printable

#: Suffixes of files that this package writes, and names that systems write: they are left out silently.
_OURS = frozenset(f".{name}" for name in ["csv", "html", "json", "npy", "onnx", "parquet", "safetensors", "xml"])
_OF_SYSTEMS = ("desktop.ini", "ehthumbs.db", "thumbs.db")
#: Suffixes of documents that may hold pictures, and of files that are text or numbers, of which no image can be made.
_DOCUMENTS = frozenset(f".{name}" for name in ["doc", "docx", "odp", "odt", "pdf", "ppt", "pptx", "rtf", "xls", "xlsx"])
_TEXTS = "cfg db htm ini ipynb jsonl lnk log md npz py rst tex toml tsv txt url yaml yml"
_NO_IMAGES = frozenset(f".{name}" for name in _TEXTS.split())
#: Suffixes that the package of the extra ``heif`` decodes.
_HEIF = (".heic", ".heics", ".heif", ".heifs", ".hif")
#: Number of kinds named in a message.
_NAMED = 6


class LeftOut:
    """Count the files that are left out, by suffix.

    Attributes
    ----------
    kinds : Counter of str
        Files of each suffix.
    loose : int
        Images in no class folder.
    """

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.loose = 0

    def note(self, name: str) -> None:
        """Count a file that is not an image."""
        suffix = os.path.splitext(name)[1].lower()
        if suffix and suffix not in _OURS and name.lower() not in _OF_SYSTEMS:
            self.kinds[suffix] += 1

    def summary(self) -> str:
        """Return what was left out and the cure; empty if there is nothing to report.

        Examples
        --------
        >>> left = LeftOut()
        >>> for name in ("a.HEIC", "b.heic", "c.dcm", "table.csv"):
        ...     left.note(name)
        >>> left.summary()
        'left out: 2 .heic, 1 .dcm (for .heic: pip install "fewshot-learn[heif]"; or convert images to JPEG or PNG)'
        """
        parts = list(self._parts())
        return f"left out: {', '.join(parts)}" if parts else ""

    def _parts(self) -> Iterator[str]:
        if self.kinds:
            named = [f"{n} {printable(kind)}" for kind, n in self.kinds.most_common(_NAMED)]
            if others := self.kinds.total() - sum(n for _, n in self.kinds.most_common(_NAMED)):
                named.append(f"{others} of other kinds")
            cure = "; ".join(self._cures())
            yield f"{', '.join(named)} ({cure})" if cure else ", ".join(named)
        if self.loose:
            yield f"{counted(self.loose, 'image')} in no class folder"

    def _cures(self) -> Iterator[str]:
        kinds = sorted(self.kinds)
        if heif := next((kind for kind in kinds if kind in _HEIF), None):
            yield f"for {heif}: {pip_install('heif')}"
        if not all(kind in _DOCUMENTS or kind in _NO_IMAGES for kind in kinds):
            yield f"{'or ' if heif else ''}convert images to JPEG or PNG"
        if any(kind in _DOCUMENTS for kind in kinds):
            yield "save the pictures in documents as JPEG or PNG"
