"""Files below a folder of images that are not taken for images: how many of which kind, and what can be done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from fewshot.utils.text import printable

#: What lies beside images everywhere, and nobody misses.
_DOCUMENTS = (
    "cfg csv db doc docx htm html ini ipynb json jsonl lnk log md npy npz parquet py rst tex toml tsv txt url xls xlsx "
    "xml yaml yml"
)
_SILENT = frozenset(f".{name}" for name in _DOCUMENTS.split())
#: How the files begin that are images, whatever they are called.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")
#: Kinds that are named in a sentence.
_NAMED = 6


class LeftOut:
    """Counts the files that are left out, by suffix."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.loose = 0

    def note(self, name: str) -> None:
        """Count a file that is not an image."""
        suffix = os.path.splitext(name)[1].lower()
        if suffix and suffix not in _SILENT:
            self.kinds[suffix] += 1

    def sentence(self) -> str:
        """Return what was left out, and the cure; empty if nothing was that anybody would miss.

        Examples
        --------
        >>> left = LeftOut()
        >>> for name in ("a.HEIC", "b.heic", "c.dcm", "notes.txt"):
        ...     left.note(name)
        >>> left.sentence()
        'left out: 2 .heic, 1 .dcm (convert images to JPEG or PNG)'
        """
        parts = list(self._parts())
        return f"left out: {', '.join(parts)}" if parts else ""

    def _parts(self) -> Iterator[str]:
        if self.kinds:
            named = [f"{n} {printable(kind)}" for kind, n in self.kinds.most_common(_NAMED)]
            if others := self.kinds.total() - sum(n for _, n in self.kinds.most_common(_NAMED)):
                named.append(f"{others} of other kinds")
            yield f"{', '.join(named)} (convert images to JPEG or PNG)"
        if self.loose:
            yield f"{self.loose} image{'' if self.loose == 1 else 's'} in no class folder"


def is_image_without_suffix(path: str) -> bool:
    """Whether a file whose name has no suffix begins as an image does."""
    if os.path.splitext(path)[1]:
        return False
    try:
        with open(path, "rb") as file:
            beginning = file.read(12)
    except OSError:
        return False
    return beginning.startswith(_BEGINNINGS) or (beginning[:4], beginning[8:]) == (b"RIFF", b"WEBP")
