"""Changes of a tierwise.toml by the program: one section goes in or out, everything else stays as it was typed.

Comments and layout are the user's, so the text is edited and not written anew. What the edited text says is compared
with what it must say; a file in which that cannot be done safely is left alone, and the user is told what to write.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tierwise.core.errors import ConfigError
from tierwise.core.tasks import TaskType

__all__ = ["Value", "declared_types", "quoted", "replace_file", "with_task_type", "with_values", "without_task_type"]

Value = str | bool | int | tuple[str, ...]

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


def with_values(text: str, values: Mapping[tuple[str, str], Value], where: Path) -> str:
    """The file's text in which these keys, by section ("" is above all sections) and name, have these values.

    Raises:
        ConfigError: the file is no TOML, or its own form does not allow it; says what to write by hand.
    """
    try:
        wanted: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid TOML: {error}") from None
    edited = text
    for (section, key), value in values.items():
        table = wanted.setdefault(section, {}) if section else wanted
        plain = list(value) if isinstance(value, tuple) else value
        if not isinstance(table, dict):
            raise _by_hand(values, where)
        if table.get(key) != plain:
            table[key] = plain
            edited = _with_value(edited, section, key, _literal(value))
    if _says(edited, wanted):
        return edited
    raise _by_hand(values, where)


def _by_hand(values: Mapping[tuple[str, str], Value], where: Path) -> ConfigError:
    lines: list[str] = []
    for section in sorted({section for section, _ in values}):
        lines += [f"[{section}]"] if section else []
        lines += [f"{key} = {_literal(value)}" for (of, key), value in values.items() if of == section]
    listed = "\n".join(lines)
    return ConfigError(f"{where} cannot be changed safely; write this into it by hand:\n{listed}")


def _literal(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return quoted(value)
        case tuple():
            return f"[{', '.join(quoted(item) for item in value)}]"


def _with_value(text: str, section: str, key: str, literal: str) -> str:
    """One key set, or added where its section (or the part above all sections) ends."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    start = 0
    if section:
        header = re.compile(rf"^\s*\[\s*{re.escape(section)}\s*\]\s*(#.*)?$")
        found = next((k for k, line in enumerate(lines) if header.match(line)), None)
        if found is None:
            before = "".join(lines)
            return f"{before}{end if before.strip() else ''}[{section}]{end}{key} = {literal}{end}"
        start = found + 1
    stop = next((k for k in range(start, len(lines)) if _NEXT_HEADER.match(lines[k])), len(lines))
    new = f"{key} = {literal}{end}"
    there = re.compile(rf"^\s*([\"']?){re.escape(key)}\1\s*=")
    old = next((k for k in range(start, stop) if there.match(lines[k])), None)
    if old is not None:
        last = old + 1  # a value may go on over several lines
        while last < len(lines) and not _is_toml("".join(lines[old:last])):
            last += 1
        return "".join((*lines[:old], new, *lines[last:]))
    # Behind the last line that says something: comments in front of the next header are the next section's.
    place = next((k + 1 for k in range(stop - 1, start - 1, -1) if _says_something(lines[k])), start)
    if not section and place == 0 and lines:  # behind the comment that the file begins with
        place = next((k + 1 for k in range(stop) if not lines[k].strip()), 0)
        new += end
    return "".join((*lines[:place], new, *lines[place:]))


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _says(text: str, wanted: dict[str, Any]) -> bool:
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return {"task_types": {}, **found} == {"task_types": {}, **wanted}


def replace_file(path: Path, text: str) -> None:
    """Writes the whole file or nothing; its permissions stay, and a link stays a link. A new one gets the usual ones.

    Raises:
        ConfigError: it cannot be written.
    """
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(text.encode("utf-8"))
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).chmod(_mode(target))
            Path(temporary).replace(target)
        finally:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); check its permissions") from None


def _mode(target: Path) -> int:
    try:
        return target.stat().st_mode & 0o7777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
