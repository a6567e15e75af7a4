"""Reads the documentation: pages, headings, links, fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")))

_FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins on, and the HTML comment right before it."""

    language: str
    text: str
    line: int
    note: str


def name(page: Path) -> str:
    """A page's path, as people know it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's fenced blocks in these languages, in order."""
    text = page.read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        note = re.search(r"<!-- ([^\n]*) -->\s*\Z", text[: match.start()])
        language = match["info"].strip()
        if language in languages:
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(language, match["text"], line, note[1] if note else ""))
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> Iterator[str]:
    """Targets of the page's links."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    for match in re.finditer(r"\]\(([^()\s]+)\)", text):
        yield match[1]


def spans(page: Path) -> Iterator[str]:
    """The page's inline code, on one line each."""
    for match in re.finditer(r"`([^`]+)`", prose(page)):
        yield " ".join(match[1].split())


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub makes them."""
    found: set[str] = set()
    for match in re.finditer(r"^#{1,6} +(.+?) *$", prose(page), flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (made := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(made)
    return found
