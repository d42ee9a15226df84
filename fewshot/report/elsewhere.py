"""What each part of a page knows of the cards in the others: one search covers all of them, without a server."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence

#: Part, list of cards, kind, answer and text of a card.
Entry = tuple[int, int, str, str, str]
#: Most characters of a card that are searched from other parts, so that a page keeps its size.
MOST_CHARACTERS = 160
_FACTS = re.compile(r'<article class="query \w+" data-kind="(?P<kind>\w+)" data-label="(?P<label>[^"]*)"')
_NAME = re.compile(r'<div class="name" title="(?P<name>[^"]*)">')
_TAG = re.compile(r"<[^>]*>")


def entry_of(card: str, part: int, run: int) -> Entry:
    """Return what other parts know of a card: its kind, its answer, and the name and text that are searched.

    Examples
    --------
    >>> card = '<article class="query told" data-kind="told" data-label="ant"><b>ant</b> 97%</article>'
    >>> entry_of(card, 1, 0)
    (1, 0, 'told', 'ant', 'ant 97%')
    """
    facts, name = _FACTS.match(card), _NAME.search(card)
    kind, label = (facts["kind"], html.unescape(facts["label"])) if facts else ("", "")
    text = " ".join(html.unescape(_TAG.sub(" ", card)).split())
    text = f"{html.unescape(name['name'])} {text}" if name else text
    return part, run, kind, label, text.lower()[:MOST_CHARACTERS]


def script_of(entries: Sequence[Entry]) -> str:
    """Return the element that holds the cards of other parts; nothing if there are none."""
    if not entries:
        return ""
    content = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="elsewhere">{content}</script>\n'
