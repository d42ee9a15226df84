import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.utils.text import as_unicode, printable, signed

ANY = st.text(st.characters(exclude_categories=[]))  # also lone surrogates


@given(ANY)
def test_nothing_that_is_shown_moves_a_cursor_or_cannot_be_written(text):
    shown = printable(text)
    shown.encode()
    assert all(c in "\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)


@given(ANY)
def test_every_text_becomes_unicode_and_unicode_stays(text):
    as_unicode(text).encode()
    assert as_unicode(as_unicode(text)) == as_unicode(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Katze 猫 می‌خواهم 👩‍🚀 a\u00a0b", None),
        ("a\x1b]0;x\x07", r"a\x1b]0;x\x07"),
        ("a\r\n\tb\x85\x9b2J", r"a\x0d\x0a\x09b\x85\x9b2J"),
        ("\u202egpj.exe\u2066\u200f\u2028", r"\u202egpj.exe\u2066\u200f\u2028"),
        ("caf\udce9 \ud800", None),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_stays_and_what_is_written_out(text, shown):
    if "\udce9" in text:
        assert printable("caf\udce9") == "caf\\xe9"
        assert printable(text) == "caf\\udce9 \\ud800"
    else:
        assert printable(text) == (text if shown is None else shown)
    assert printable("a\nb", keep="\n") == "a\nb"
    assert json.dumps(as_unicode(text))


@given(st.floats(-100, 100), st.integers(0, 3))
def test_a_change_has_a_sign_unless_it_rounds_to_zero(value, digits):
    text = signed(value, digits)
    assert float(text) == float(f"{value:.{digits}f}")
    assert (text[0] in "+-") == (float(text) != 0)


def test_changes_are_formatted_in_one_place():
    root = Path(__file__).parent.parent
    files = [path for folder in ("fewshot", "benchmarks") for path in (root / folder).rglob("*.py")]
    found = [path.name for path in files if re.search(r"\{[^{}]*:[<>^]?\+[\d.{]", path.read_text(encoding="utf-8"))]
    assert found == ["text.py"]
    tables = [*(root / "benchmarks").glob("results/*.md"), *(root / "docs").glob("*.md")]
    assert len(tables) > 20
    assert not [path.name for path in tables if re.search(r"[-+]0\.0+ ±", path.read_text(encoding="utf-8"))]
