"""Fragments for notebooks escape all text and stay small."""

import io

import pytest
from PIL import Image

from fewshot.utils import notebook

EVIL = "<img src=x onerror=alert(1)>\"'\u202e\x00"


def png(side):
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 100).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "shown",
    [
        notebook.text(EVIL),
        notebook.fragment(EVIL, EVIL),
        notebook.numbers([(EVIL, EVIL)]),
        notebook.picture(None, EVIL),
        notebook.picture(png(8), EVIL),
        notebook.classes({EVIL: [None]}, {EVIL: 1, EVIL + "2": 1}),
        notebook.bars([(EVIL, 0.5)]),
        notebook.table([EVIL], [[EVIL]]),
        notebook.answered(None, EVIL, EVIL),
        notebook.captioned([(None, EVIL)]),
    ],
)
def test_text_is_escaped(shown):
    assert "<img src=x" not in shown
    assert "onerror=alert(1)&gt;" in shown
    assert "\u202e" not in shown
    assert "\x00" not in shown


def test_bars_begin_at_one_place_because_their_numbers_are_equally_wide():
    rows = notebook.bars([("heron", 1.0), ("owl", 0.0)]).split('<div style="display:flex')[1:]
    assert [row.count("flex:0 0 3.2em") for row in rows] == [1, 1]


def test_only_small_pictures_are_shown():
    assert notebook.picture(png(8), "a").startswith('<img src="data:image/png;base64,')
    for data in (png(300), b"<svg onload=alert(1)>", None):
        assert notebook.picture(data, "a").startswith("<span")
    assert notebook.picture(b"", "a") == ""


def test_what_is_shown_is_bounded():
    many = {f"class {i} {'x' * 10_000}": [png(40)] * 100 for i in range(100)}
    shown = notebook.classes(many, dict.fromkeys(many, 100), n_classes=10**6)
    assert shown.count("<img") == notebook.MOST_CLASSES * notebook.OF_CLASS
    assert "and 999992 more: class 8" in shown
    assert len(shown) < 200_000
    assert "and 88 more" in notebook.table(["a"], [["b"]] * 100)
    assert len(notebook.table(["a"], [["b" * 10_000]] * 100)) < 10_000
