"""What the trained classifier looks at: two bounded windows of a text, as n-grams and as the encoder's input.

Training and classifying share this module, so that they cannot disagree. Only the head and the tail of a text are
looked at, where the ask stands; ten megabytes cost no more than a page.
"""

from __future__ import annotations

import itertools
import json
import re

from tierwise.core.json import Json

__all__ = ["encoder_windows", "ngrams", "shown"]

_HEAD_CHARS = 450
_TAIL_CHARS = 250
_ENCODER_HEAD_CHARS = 700
_ENCODER_TAIL_CHARS = 500
_SHORT_CHARS = 200
_TOOL_INPUT_CHARS = 600
_WORD = re.compile(r"[^\W_]+|[^\w\s]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# The shape of a request: what is in it, whatever its words say.
_SHAPES = (
    ("#code", ("```", "def ", "function ", "class ", "=> ", "();", "#include", "import ")),
    ("#json", ('{"', '": ', '[{"')),
    ("#diff", ("diff --git", "@@ ", "\n+++ ", "\n--- a/")),
    ("#trace", ("Traceback", "Exception", "    at ", "error:", "Error:", "panic:")),
    ("#table", (" | ", "\t", "\n|")),
    ("#markup", ("</", "/>")),
    ("#path", (".py", ".ts", ".md", "src/", "./", ".json", ".go")),
    ("#system", ("System:", "You are ", "\nUser:")),
    ("#list", ("\n- ", "\n1.", "\n* ", "\n2.")),
    ("#lines", ("\n\n",)),
)


def shown(text: str, tool_name: str | None = None, tool_input: Json = None) -> str:
    """The text that is classified, cut to its windows: a tool call as name and input, anything else as it stands."""
    if tool_name is not None:
        try:
            given = json.dumps(tool_input, ensure_ascii=False)[:_TOOL_INPUT_CHARS]
        except (TypeError, ValueError, RecursionError):
            given = ""
        named = f"{tool_name[:_TOOL_INPUT_CHARS]} {given}"
        text = named if text == f"Tool call: {tool_name}" else f"{text[:_ENCODER_HEAD_CHARS]}\n{named}"
    if len(text) > _ENCODER_HEAD_CHARS + _ENCODER_TAIL_CHARS and not _is_cut(text):
        if text[0].isspace():
            text = text.lstrip()  # a page of blanks in front must not hide what follows
        if len(text) > _ENCODER_HEAD_CHARS + _ENCODER_TAIL_CHARS:
            text = f"{text[:_ENCODER_HEAD_CHARS]}\n…\n{text[-_ENCODER_TAIL_CHARS:]}"
    text = text.strip().replace("\x00", " ")
    return text if text.isascii() else _LONE_SURROGATE.sub(" ", text)


def _is_cut(text: str) -> bool:
    """Whether the text is what `shown` gave before: kept and shown again, it must stay what it is."""
    if len(text) > _ENCODER_HEAD_CHARS + _ENCODER_TAIL_CHARS + len("\n…\n"):
        return False
    head, cut, tail = text.partition("\n…\n")
    return bool(cut) and len(head) <= _ENCODER_HEAD_CHARS and len(tail) <= _ENCODER_TAIL_CHARS


def encoder_windows(text: str) -> tuple[str, str]:
    """Head and tail for the encoder, of what `shown` gave; the tail is empty where the head holds everything."""
    head, cut, tail = text.partition("\n…\n")
    return (head, tail) if cut else (text, "")


def ngrams(text: str) -> list[str]:
    """Words, pairs of words, word beginnings, shape, and what stands first and last, of what `shown` gave.

    Each once, in no order that means anything. `^` marks one of the first six words, `$` the tail, `~` the first four
    letters of a longer word (inflections, related languages), `#` the shape and the length.
    """
    if len(text) <= _HEAD_CHARS + _TAIL_CHARS:
        head, tail = text, ""
    else:
        head, tail = text[:_HEAD_CHARS], text[-_TAIL_CHARS:]
    if len(text) < _SHORT_CHARS:
        head = _CAMEL.sub(" ", head)
    words = _WORD.findall(head.lower())
    found = set(words)
    found.update([f"{a} {b}" for a, b in itertools.pairwise(words)])
    found.update([f"^{word}" for word in words[:6]])
    found.update([f"~{word[:4]}" for word in words if len(word) > 5])
    if tail:
        last = _WORD.findall(tail.lower())
        found.update([f"${word}" for word in last])
        found.update([f"${a} {b}" for a, b in itertools.pairwise(last)])
    else:
        found.update([f"${word}" for word in words[-6:]])
    if len(text) > 60:
        found.update([name for name, signs in _SHAPES if any(sign in text for sign in signs)])
    found.add("#question" if text[-1:] == "?" else "#asked" if "?" in text else "#flat")
    found.add(f"#len{min(12, len(text).bit_length())}")
    return list(found)
