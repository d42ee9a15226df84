import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.utils.text import as_unicode, printable

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
