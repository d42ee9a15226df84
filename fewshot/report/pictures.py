"""The pictures of a page: each that comes often is held once in a file."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fewshot.report.escaping import Pixels, content_of, data_uri, text_of

#: The class of a picture that is held by the style of a page.
_HELD = re.compile(r'class="tile shared(?: photo)? (p-[0-9a-f]{16})"')


class Pictures:
    """What the pictures look like that a page shows in many places, such as the neighbours of queries.

    Examples
    --------
    >>> import numpy as np
    >>> pictures = Pictures()
    >>> image = np.zeros((8, 8), np.uint8)
    >>> near = pictures.shared(image, "ant") + pictures.shared(image, "ant")
    >>> near.count("data:image/"), pictures.style(near).count("data:image/")
    (0, 1)
    """

    def __init__(self) -> None:
        self._held: dict[str, str] = {}

    def own(self, image: Pixels, label: Any) -> str:
        """Return a picture that is shown once."""
        content = content_of(image, label)
        kind = "tile photo" if _is_photo(image) else "tile"
        return (
            f'<img class="{kind}" loading="lazy" decoding="async" src="{data_uri(content)}" '
            f'alt="image of {text_of(label)}">'
        )

    def shared(self, image: Pixels, label: Any) -> str:
        """Return a picture that may be shown in other places, too."""
        content = content_of(image, label)
        name = "p-" + hashlib.blake2b(content, digest_size=8).hexdigest()
        self._held.setdefault(name, data_uri(content))
        kind = "tile shared photo" if _is_photo(image) else "tile shared"
        return f'<span class="{kind} {name}" role="img" aria-label="image of {text_of(label)}"></span>'

    def size(self, html: str, known: set[str]) -> int:
        """Return how many bytes a part of a page takes beside `known` pictures, and add its own to them."""
        new = set(_HELD.findall(html)) - known
        known |= new
        return len(html.encode()) + sum(len(self._held[name]) for name in new)

    def style(self, html: str) -> str:
        """Return the rules that hold the pictures of a part of a page."""
        names = dict.fromkeys(_HELD.findall(html))
        return "".join(f".{name}{{background-image:url({self._held[name]})}}\n" for name in names)


def _is_photo(image: Pixels) -> bool:
    return isinstance(image, bytes) and image.startswith(b"\xff\xd8")
