"""BERT's tokenizer for uncased models: basic splitting, then greedy WordPiece. A text in, token ids out.

The `tokenizers` package does the same, and brings a model hub's client with it; this is the forty lines of it that are
needed. A test holds it to that package's output.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

__all__ = ["WordPiece"]

_MOST_CHARS = 100  # longer words are unknown, as in the original
_CACHED_WORDS = 20_000


class WordPiece:
    """Tokenizes with a vocabulary (`vocab.txt`: one piece a line, its number the line's)."""

    def __init__(self, pieces: list[str]) -> None:
        self._ids: Mapping[str, int] = {piece: k for k, piece in enumerate(pieces)}
        self._unknown = self._ids["[UNK]"]
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids, without [CLS] and [SEP]."""
        ids: list[int] = []
        cache = self._cache
        for word in _words(text):
            known = cache.get(word)
            if known is None:
                known = self._pieces(word)
                if len(cache) < _CACHED_WORDS:
                    cache[word] = known
            ids += known
        return ids

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _MOST_CHARS:
            return [self._unknown]
        found: list[int] = []
        start, size, ids = 0, len(word), self._ids
        while start < size:
            end = size
            while end > start:
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                number = ids.get(piece)
                if number is not None:
                    break
                end -= 1
            else:
                return [self._unknown]
            found.append(number)
            start = end
        return found


def _words(text: str) -> list[str]:
    """Lower case, accents off, control characters out, every punctuation mark and Han character a word of its own."""
    if text.isascii():
        return text.lower().translate(_ASCII).split()
    out: list[str] = []
    for c in unicodedata.normalize("NFD", "".join(_clean(c) for c in text).lower()):
        category = unicodedata.category(c)
        if category == "Mn":
            continue
        out.append(f" {c} " if _is_punctuation(c, category) else c)
    return "".join(out).split()


def _clean(c: str) -> str:
    if c in "\t\n\r":
        return " "
    code = ord(c)
    if code in {0, 0xFFFD}:
        return ""
    category = unicodedata.category(c)
    if category[0] == "C":
        return ""
    if category == "Zs":
        return " "
    return f" {c} " if _is_han(code) else c


def _is_han(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2A6DF
        or 0x2A700 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )


def _is_punctuation(c: str, category: str) -> bool:
    code = ord(c)
    return 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126 or category[0] == "P"


_ASCII = {k: f" {chr(k)} " for k in range(33, 127) if not chr(k).isalnum()}
_ASCII.update(dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), ""))
