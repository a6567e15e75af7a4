"""The page's files, read once from the package: nothing that is not among them can be asked for.

A browser may keep each of them, and asks whether it is still the same: a new version shows at once, an old one is not
sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["StaticFile", "page_files"]

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the page."""

    content: bytes
    type: bytes
    etag: bytes


@cache
def page_files() -> Mapping[str, StaticFile]:
    """The page's files by their paths below /dashboard/; `index.html` is the page itself."""
    root = files("tierwise").joinpath("dashboard", "page")
    return dict(_files(root, "")) if root.is_dir() else {}


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, StaticFile]]:
    for entry in folder.iterdir():
        name = f"{path}{entry.name}"
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_dir():
            yield from _files(entry, f"{name}/")
        elif kind is not None and not entry.name.startswith("."):
            content = entry.read_bytes()
            yield name, StaticFile(content, kind.encode(), b'"%b"' % hashlib.sha256(content).hexdigest()[:32].encode())
