"""Text and pictures of strangers, made safe for a page."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.text import printable

#: An image: pixels, or the content of a PNG or JPEG file.
Pixels = NDArray[np.uint8] | bytes


def text_of(value: Any) -> str:
    """Escape for text and for quoted attributes; control and direction characters become visible."""
    return escape(printable(value), quote=True)


def label_of(label: Any) -> str:
    """Return a label that keeps its direction to itself."""
    return f'<span class="label" title="{text_of(label)}"><bdi>{text_of(label)}</bdi></span>'


def data_uri(data: bytes) -> str:
    """Return the content of a PNG or JPEG file as an address."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def content_of(image: Pixels, label: Any) -> bytes:
    """Return an image as the content of a file.

    Raises
    ------
    TypeError
        If its pixels are not uint8.
    """
    from PIL import Image

    if isinstance(image, bytes):
        return image
    if image.dtype != np.uint8:
        raise TypeError(f"the image of {label!r} has dtype {image.dtype}; expected uint8")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
