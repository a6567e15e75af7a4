"""Names out of files, for people: a project by the end of its path, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["NO_PROJECT", "printable", "short_names"]

NO_PROJECT = "(no project)"
_SEPARATORS = re.compile(r"[/\\]+")


def printable(text: str) -> str:
    """The text with `·` for what cannot be seen or would steer a terminal (control, direction, lone surrogates)."""
    return "".join(char if char.isprintable() else "·" for char in text)


def _parts(project: str, home: str) -> list[str]:
    dashed = re.sub(r"[^A-Za-z0-9]", "-", home)
    for begins, ends in ((home, "/\\"), (dashed, "-")):
        if home and project.startswith(begins) and project[len(begins) : len(begins) + 1] in ("", *ends):
            rest = project[len(begins) :].lstrip(ends)
            return ["~", *(part for part in _SEPARATORS.split(rest) if part)]
    return [part for part in _SEPARATORS.split(project) if part]


def short_names(projects: Iterable[str], home: str = "") -> Mapping[str, str]:
    """As much of the end of each path as tells them apart, one part at least.

    Below `home` a path begins with `~`, so that nobody's name is told; so does the name that Claude Code makes of such
    a path for a directory of its own, where nothing else is known.
    """
    parts = {project: _parts(project, home.rstrip("/\\")) for project in projects}
    found: dict[str, str] = {}
    for project, own in parts.items():
        others = [other for name, other in parts.items() if name != project]
        size = 1
        while size < len(own) and any(other[-size:] == own[-size:] for other in others):
            size += 1
        found[project] = printable("/".join(own[-size:])) or (printable(project) if project else NO_PROJECT)
    return found
