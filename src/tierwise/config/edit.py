"""Changes of a tierwise.toml by the program: one section goes in or out, everything else stays as it was typed.

Comments and layout are the user's, so the text is edited and not written anew. What the edited text says is compared
with what it must say; a file in which that cannot be done safely is left alone, and the user is told what to write.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from tierwise.core.errors import ConfigError
from tierwise.core.tasks import TaskType

__all__ = ["declared_types", "quoted", "replace_file", "with_task_type", "without_task_type"]

_NEXT_HEADER = re.compile(r"^\s*\[")


def quoted(text: str) -> str:
    """A basic string of TOML."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}" for char in text
    )
    return f'"{escaped}"'


def declared_types(text: str) -> frozenset[str]:
    """The task types that a file declares. The text must be valid TOML."""
    return frozenset(tomllib.loads(text).get("task_types", ()))


def with_task_type(text: str, task_type: TaskType, where: Path) -> str:
    """The file's text with a declaration of the type at its end.

    Raises:
        ConfigError: the file's own form does not allow it; says what to write by hand.
    """
    lines = [
        f"[task_types.{task_type.name}]",
        f"family = {quoted(task_type.family)}",
        f"needs = {quoted(task_type.needs.value)}",
        f"recoverable = {str(task_type.recoverable).lower()}",
        f"description = {quoted(task_type.description)}",
    ]
    end = "\r\n" if "\r\n" in text else "\n"
    before = text.rstrip()
    edited = f"{before}{end * 2 if before else ''}{end.join(lines)}{end}"
    wanted: dict[str, Any] = tomllib.loads(text)
    wanted["task_types"] = {
        **wanted.get("task_types", {}),
        task_type.name: {
            "family": task_type.family,
            "needs": task_type.needs.value,
            "recoverable": task_type.recoverable,
            "description": task_type.description,
        },
    }
    if _says(edited, wanted):
        return edited
    by_hand = "\n".join(lines)
    raise ConfigError(f"{where} cannot be added to safely; write this into it and try again:\n{by_hand}")


def without_task_type(text: str, name: str, where: Path) -> str:
    """The file's text without the declaration of that type; the same text where there is none.

    Raises:
        ConfigError: it is not a section of its own; says what to remove by hand.
    """
    wanted: dict[str, Any] = tomllib.loads(text)
    if name not in wanted.get("task_types", {}):
        return text
    wanted["task_types"] = {key: value for key, value in wanted["task_types"].items() if key != name}
    header = re.compile(rf"^\s*\[\s*task_types\s*\.\s*([\"']?){re.escape(name)}\1\s*\]\s*(#.*)?$")
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    start = next((k for k, line in enumerate(lines) if header.match(line)), None)
    if start is not None:
        stop = next((k for k in range(start + 1, len(lines)) if _NEXT_HEADER.match(lines[k])), len(lines))
        # Comments in front of the next header are the next section's.
        while stop > start + 1 and (not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith("#")):
            stop -= 1
        while stop < len(lines) and not lines[stop].strip():
            stop += 1
        edited = "".join((*lines[:start], *lines[stop:]))
        if stop == len(lines):  # with the blank line that parted it from what was before
            edited = f"{edited.rstrip()}{end}" if edited.strip() else ""
        if _says(edited, wanted):
            return edited
    raise ConfigError(f"{name} cannot be taken out of {where} safely; remove its entry under task_types by hand")


def _says(text: str, wanted: dict[str, Any]) -> bool:
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return {"task_types": {}, **found} == {"task_types": {}, **wanted}


def replace_file(path: Path, text: str) -> None:
    """Writes the whole file or nothing; its permissions stay, and a link stays a link.

    Raises:
        ConfigError: it cannot be written.
    """
    target = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(text.encode("utf-8"))
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).chmod(target.stat().st_mode & 0o7777)
            Path(temporary).replace(target)
        finally:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); check its permissions") from None
