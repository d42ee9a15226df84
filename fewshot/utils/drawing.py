"""Text that matplotlib can draw."""

from __future__ import annotations

from functools import cache
from typing import Any


def drawable(label: Any, longest: int = 14) -> str:
    """Shorten a label, and keep matplotlib from parsing it as math or missing glyphs in it."""
    text = "".join(c if ord(c) in _glyphs() and c.isprintable() else "\N{WHITE SQUARE}" for c in str(label))
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())
