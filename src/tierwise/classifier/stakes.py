"""What a text itself says of the consequences of a mistake.

*Cannot be undone*, *a wrong dose would kill*, *goes straight to production*: said in the ask, it raises the work
whatever its type is. Said in a payload it means nothing: quoted, fenced and tagged parts, and what follows an opening
paragraph or a colon at a line's end, are not looked at. The phrases are data (`data/stakes.toml`).
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files

from tierwise.core.tasks import Stakes

__all__ = ["stated_stakes"]

_WORD = re.compile(r"[a-zäöüßéèêçñáíóúàìùãõ']+")
_ASK_CHARS = 500  # of each end
# From here on it is payload: a fence, a tag, a quotation mark, a colon at the end of a line.
_PAYLOAD = re.compile(r"```|<[a-zA-Z_]+>|[\"“„«]|:\s*\n")
_PARAGRAPH = re.compile(r"\n\s*\n")


@cache
def _phrases() -> tuple[frozenset[str], re.Pattern[str]]:
    """Words without which no phrase occurs (a look-up, for every text), and the phrases."""
    document = tomllib.loads(files("tierwise").joinpath("data", "stakes.toml").read_text(encoding="utf-8"))
    return frozenset(document["words"]), re.compile("|".join(f"(?:{p})" for p in document["phrases"]))


def stated_stakes(text: str) -> Stakes:
    """`Stakes.HIGH` where the ask says that a mistake would be grave; else `Stakes.NORMAL`."""
    words, phrases = _phrases()
    for ask in _asks(text):
        low = ask.lower().replace("’", "'")
        if not words.isdisjoint(_WORD.findall(low)) and phrases.search(low):
            return Stakes.HIGH
    return Stakes.NORMAL


def _asks(text: str) -> tuple[str, ...]:
    """What may be the ask: the opening up to a payload, and the last paragraph where there are several."""
    head = text[:_ASK_CHARS]
    begins = _PAYLOAD.search(head)
    opening = head[: begins.start()] if begins else head
    parts = _PARAGRAPH.split(text[-_ASK_CHARS:])
    if len(parts) == 1 and len(text) <= _ASK_CHARS:
        return (opening,)
    last = parts[-1]
    return (opening,) if len(parts) == 1 or _PAYLOAD.search(last) else (opening, last)
