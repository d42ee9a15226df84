"""Pages about one classifier that lie in one folder: each has links to the others."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import quote

from fewshot.persistence.files import write_text
from fewshot.report.escaping import text_of

#: Most pages that are looked at, bytes at the beginning of one that say what it is about, and bytes of one in all.
_MOST_PAGES, _HEAD, _MOST = 200, 4096, 50_000_000
_ABOUT = re.compile(r'<meta name="fewshot" content="([0-9a-f]{16}) ([^"]*)">')
_LINKS = re.compile(r'<nav class="pages"[^>\n]*>[^\n]*</nav>')
#: Where the links are written.
PLACE = '<nav class="pages" hidden></nav>'


@dataclass(frozen=True)
class About:
    """What a page is about.

    Attributes
    ----------
    name : str
        The classifier.
    kind : str
        What the page tells of it, in a word or two.
    key : str
        The same for all pages about this classifier, and tells nothing else.
    """

    name: str
    kind: str
    key: str

    @classmethod
    def of(cls, folder: str | Path | None, kind: str) -> About | None:
        """Return that a page is about the classifier in a folder; None if there is no folder.

        Examples
        --------
        >>> check, test = About.of("birds", "Check"), About.of("./birds", "Test")
        >>> check.name, check.key == test.key
        ('birds', True)
        """
        if folder is None:
            return None
        whole = os.path.realpath(folder)
        return cls(os.path.basename(whole), kind, hashlib.blake2b(os.fsencode(whole), digest_size=8).hexdigest())

    @property
    def mark(self) -> str:
        """What a page says in its head, so that others find it."""
        return f'<meta name="fewshot" content="{self.key} {text_of(self.kind)}">'


def link(path: Path) -> None:
    """Write links into a page and into those beside it that are about the same classifier."""
    found = dict(_pages(path.parent))
    if path not in found:
        return
    same = _named(sorted((kind, one) for one, (key, kind) in found.items() if key == found[path][0]))
    for _, one in same:
        shown = "".join(
            f'<a href="{text_of(quote(other.name))}"{" aria-current=page" if other == one else ""}>{text_of(kind)}</a>'
            for kind, other in same
        )
        links = f'<nav class="pages" aria-label="Pages of this classifier">{shown}</nav>' if len(same) > 1 else PLACE
        with suppress(OSError, UnicodeDecodeError):  # of others, which may be read-only
            before = one.read_text(encoding="utf-8")
            if (after := _LINKS.sub(links.replace("\\", r"\\"), before, count=1)) != before:
                write_text(one, after)


def _named(pages: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return pages by what they tell, those that tell the same also by their file."""
    times = Counter(kind for kind, _ in pages)
    return [(kind if times[kind] == 1 else f"{kind} ({one.stem})", one) for kind, one in pages]


def _pages(folder: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yield the pages in a folder, each with the key of its classifier and its kind."""
    for path in sorted(folder.glob("*.html"))[:_MOST_PAGES]:
        with suppress(OSError):
            if not path.is_file() or path.stat().st_size > _MOST:
                continue
            with open(path, "rb") as file:
                head = file.read(_HEAD).decode("utf-8", "replace")
            if found := _ABOUT.search(head):
                yield path, (found[1], unescape(found[2]))
