"""Changes files that are not ours, a tierwise.toml or Claude Code's settings.json, and takes the changes back.

Theory of operation. A change is planned first, as the whole text before and after, so that a diff can be shown and
nothing is touched until somebody agrees. Applying copies each file beside itself, notes in a journal what was done,
and only then replaces the files: whatever is interrupted, the journal knows of it. Undoing takes back the latest
entry. A file that still is what was written becomes what it was, byte for byte. One that has changed since (Claude Code
writes into its settings by itself) loses only those keys that still have our values; a tierwise.toml that somebody has
edited is left alone, and its copy is named.

Settings of Claude Code that are not ours are never dropped: they are read and written as JSON, in their order, and what
cannot be read without doubt (no JSON, a key that stands there twice) is not written at all.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tierwise.config.edit import Value, replace_file, with_values
from tierwise.core.errors import ConfigError

__all__ = ["FileChange", "Journal", "Undone", "claude_code_change", "diff", "policy_change"]

_MAX_BYTES = 16 * 1024 * 1024

Keys = Mapping[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file as it is and as it is to be. `keys`: what is set in a JSON file, by path."""

    path: Path
    before: str | None  # None: there is no such file
    after: str
    keys: tuple[tuple[tuple[str, ...], str], ...] = ()


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of one file: `restored`, `removed`, `reverted` (only our keys), or `untouched` (as it was anyway)."""

    path: Path
    how: str
    kept: tuple[str, ...] = ()  # keys that somebody has set to something else since: they stay


def diff(change: FileChange) -> str:
    """What changes, as `diff -u` shows it; empty where nothing does."""
    return "".join(
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(
            (change.before or "").splitlines(keepends=True),
            change.after.splitlines(keepends=True),
            str(change.path) if change.before is not None else os.devnull,
            str(change.path),
        )
    )


def policy_change(path: Path, values: Mapping[tuple[str, str], Value]) -> FileChange:
    """A tierwise.toml with these keys, by section and name.

    Raises:
        ConfigError: the file cannot be read, or not be edited safely.
    """
    before = _read(path)
    return FileChange(path, before, with_values(before or "", values, path))


def claude_code_change(path: Path, keys: Keys) -> FileChange:
    """A settings.json with these texts, by path.

    Raises:
        ConfigError: the file cannot be read, is no JSON object, or has something else where a key belongs.
    """
    before = _read(path)
    settings = {} if before is None or not before.strip() else _settings(before, path)
    for where, value in keys.items():
        _set(settings, where, value, path)
    after = _as_text(settings, before or "")
    return FileChange(path, before, after, tuple(keys.items()))


class Journal:
    """What was applied, in a file of its own, the latest last.

    Args:
        path: that file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def apply(self, changes: Sequence[FileChange], stamp: str) -> tuple[Path, ...]:
        """Makes the changes; returns the copies of what was there before. `stamp` becomes part of their names.

        Raises:
            ConfigError: a file is no longer what the change was planned for, or cannot be written.
        """
        for change in changes:
            if _read(change.path) != change.before:
                raise ConfigError(f"{change.path} changed meanwhile; nothing was written, try again")
        entries = self._entries()
        copies = [_copy(change, stamp) for change in changes]
        files = [
            {
                "path": str(change.path.absolute()),
                "copy": None if copy is None else str(copy.absolute()),
                "sha256": _digest(change.after),
                "keys": [{"key": list(key), "value": value} for key, value in change.keys],
            }
            for change, copy in zip(changes, copies, strict=True)
        ]
        self._write([*entries, {"at": stamp, "files": files}])
        for change in changes:
            replace_file(change.path, change.after)
        return tuple(copy for copy in copies if copy is not None)

    def undo(self) -> tuple[Undone, ...]:
        """Takes the latest entry back; empty where there is none.

        Raises:
            ConfigError: a file or its copy cannot be read or written, or was edited since. Nothing was done then.
        """
        entries = self._entries()
        if not entries:
            return ()
        steps = [self._step(file) for file in self._files(entries[-1])]
        done: list[Undone] = []
        for path, text, undone in steps:
            if undone.how == "removed":
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise ConfigError(f"cannot remove {path} ({error.strerror})") from None
            elif text is not None:
                replace_file(path, text)
            done.append(undone)
        self._write(entries[:-1])
        return tuple(done)

    def _step(self, file: Mapping[str, object]) -> tuple[Path, str | None, Undone]:
        path = Path(str(file["path"]))
        copy = None if file["copy"] is None else Path(str(file["copy"]))
        now = _read(path)
        before = None
        if copy is not None:
            before = _read(copy)
            if before is None:
                raise ConfigError(f"the copy {copy} is gone: {path} cannot be made what it was; nothing was changed")
        if now == before:
            return path, None, Undone(path, "untouched")
        if now is not None and _digest(now) == file["sha256"]:
            return path, before, Undone(path, "removed" if before is None else "restored")
        keys = self._keys(file)
        if now is None or not keys:
            beside = f"what it was before is in {copy}" if copy is not None else "it did not exist before"
            state = "was removed" if now is None else "was edited"
            raise ConfigError(f"{path} {state} since, so it is left alone; {beside}")
        text, kept = _without(now, keys, before, path)
        return path, text, Undone(path, "reverted", kept)

    def _entries(self) -> list[Mapping[str, object]]:
        text = _read(self.path)
        if text is None:
            return []
        try:
            found = json.loads(text)["applied"]
            if not isinstance(found, list) or not all(self._files(entry) for entry in found):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ConfigError(
                f"{self.path} is damaged; remove it, and undo by hand from the copies *.before-*"
            ) from None
        return found

    @staticmethod
    def _files(entry: Mapping[str, object]) -> list[Mapping[str, object]]:
        files = entry["files"]
        if not isinstance(files, list):
            raise TypeError
        for file in files:
            _ = file["path"], file["copy"], file["sha256"], Journal._keys(file)
        return files

    @staticmethod
    def _keys(file: Mapping[str, object]) -> Keys:
        keys = file["keys"]
        if not isinstance(keys, list):
            raise TypeError
        return {tuple(map(str, entry["key"])): str(entry["value"]) for entry in keys}

    def _write(self, entries: Sequence[Mapping[str, object]]) -> None:
        replace_file(self.path, json.dumps({"applied": entries}, indent=2) + "\n")


# ------------------------------------------------------------------ files


def _read(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_BYTES // 2**20} MB; it is left alone")
        return path.read_bytes().decode("utf-8")  # line ends as they are
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8; it is left alone") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror})") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _copy(change: FileChange, stamp: str) -> Path | None:
    """A copy beside the file, as private as the file itself."""
    if change.before is None:
        return None
    for number in range(100):
        copy = change.path.with_name(f"{change.path.name}.before-tierwise-{stamp}{f'-{number}' if number else ''}")
        try:
            mode = change.path.stat().st_mode & 0o777
            with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
                out.write(change.before.encode())
                out.flush()
                os.fsync(out.fileno())
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot write {copy} ({error.strerror}); nothing was changed") from None
        return copy
    raise ConfigError(f"there are too many copies of {change.path}; remove some")


# ------------------------------------------------------------------ JSON


def _settings(text: str, path: Path) -> dict[str, object]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands there twice")
        return found

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is no JSON")

    try:
        settings = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); it is left alone") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} is not a JSON object; it is left alone")
    try:
        # A number with more digits than a float has would come back as another one.
        again = json.dumps(settings, allow_nan=False)
        same = bool(json.loads(again, parse_float=Decimal) == json.loads(text, parse_float=Decimal))
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise ConfigError(f"{path} holds numbers that would not come back as they are; it is left alone")
    return settings


def _set(settings: dict[str, object], where: Sequence[str], value: str, path: Path) -> None:
    inside = settings
    for name in where[:-1]:
        deeper = inside.setdefault(name, {})
        if not isinstance(deeper, dict):
            raise ConfigError(f"{path}: {name!r} is not an object; it is left alone")
        inside = deeper
    old = inside.get(where[-1])
    if old is not None and not isinstance(old, str):
        raise ConfigError(f"{path}: {'.'.join(where)} is not a text; it is left alone")
    inside[where[-1]] = value


def _as_text(settings: Mapping[str, object], before: str) -> str:
    """Indented as it was, or by two; anything else that JSON leaves open is as `json` writes it."""
    indent: int | str = 2
    second = before.splitlines()[1] if len(before.splitlines()) > 1 else ""
    if blanks := second[: len(second) - len(second.lstrip())]:
        indent = blanks
    text = json.dumps(settings, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can say it
        text = json.dumps(settings, indent=indent)
    text += "" if before and not before.endswith("\n") else "\n"
    return text.replace("\n", "\r\n") if "\r\n" in before else text


def _without(now: str, keys: Keys, before: str | None, path: Path) -> tuple[str, tuple[str, ...]]:
    """The settings in which our keys are what they were before, where they still are ours."""
    settings = _settings(now, path)
    earlier = _settings(before, path) if before is not None and before.strip() else {}
    kept: list[str] = []
    for where, value in keys.items():
        inside: object = settings
        old: object = earlier
        parents: list[tuple[dict[str, object], str]] = []
        for name in where[:-1]:
            parents.append((inside, name) if isinstance(inside, dict) else ({}, name))
            inside = inside.get(name) if isinstance(inside, dict) else None
            old = old.get(name) if isinstance(old, dict) else None
        last = where[-1]
        if not isinstance(inside, dict) or inside.get(last) != value:
            kept.append(".".join(where))
            continue
        if isinstance(old, dict) and last in old:
            inside[last] = old[last]
        else:
            del inside[last]
            for parent, name in reversed(parents):  # an object that was made for it
                if parent.get(name) == {} and not (isinstance(earlier, dict) and name in earlier):
                    del parent[name]
    return _as_text(settings, now), tuple(kept)
