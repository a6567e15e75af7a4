"""Puts the plugin where Claude Code finds it, a status line into its settings, and takes both away again.

Claude Code loads a plugin from `~/.claude/skills/tierwise` by itself. Its files are copied there with a list of what
they were, and only files that still are that are ever replaced or removed. The settings get one key, the status line,
and only where there is none: they are changed, kept and restored as `tierwise.config.changes` does it.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tierwise.config.changes import FileChange, Journal, Undone, claude_code_change
from tierwise.core.errors import ConfigError
from tierwise.integrations.claude_code.companion import ask
from tierwise.integrations.claude_code.places import PLUGIN, Places
from tierwise.integrations.claude_code.telemetry import telemetry

__all__ = ["Plan", "Removed", "Status", "install", "plan", "status", "stop_companion", "uninstall"]

_LIST = ".tierwise-installed.json"
_PYTHON = "hooks/python"  # which Python runs the hooks, for `run.sh`


@dataclass(frozen=True, slots=True)
class Plan:
    """What installing would do."""

    folder: Path
    files: tuple[str, ...]  # below the folder
    settings: FileChange | None  # None: nothing to change
    note: str = ""  # why not


@dataclass(frozen=True, slots=True)
class Removed:
    """What uninstalling did."""

    folder: Path
    files: int
    kept: tuple[Path, ...]  # that somebody has changed or added
    settings: tuple[Undone, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What is there."""

    folder: Path
    version: str | None  # of the installed plugin; None: it is not installed
    python_works: bool  # the one that runs the hooks is still there
    status_line: bool
    companion: bool  # one is running
    changed: tuple[str, ...]  # files that are not as they were installed
    telemetry: str | None  # where Claude Code sends its own, or what is wrong with that; None: it is off


def plan(places: Places, *, status_line: bool = True) -> Plan:
    """Looks, and changes nothing.

    Raises:
        ConfigError: something else stands in the plugin's place, or the settings cannot be read.
    """
    folder = places.plugin
    if folder.exists() and not (folder / _LIST).is_file() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is there and was not put there by `tierwise claude install`; move it away first")
    files = tuple(sorted((*_shipped(), _PYTHON)))
    if not status_line:
        return Plan(folder, files, None, "no status line, as asked")
    command = f"sh {shlex.quote(str(folder / 'hooks' / 'run.sh'))} statusline.py"
    try:
        before = json.loads(places.settings.read_bytes())
    except (OSError, ValueError, RecursionError):
        before = {}  # if it is broken, the change says so
    there = before.get("statusLine") if isinstance(before, dict) else None
    if there == {"type": "command", "command": command}:
        return Plan(folder, files, None, "the status line is in the settings already")
    if there is not None:
        return Plan(folder, files, None, f"the settings have a status line; it stays. Ours would be: {command}")
    try:
        change = claude_code_change(
            places.settings, {("statusLine", "type"): "command", ("statusLine", "command"): command}
        )
    except ConfigError as error:
        raise ConfigError(f"{error}; mend it, or install without a status line: --no-status-line") from None
    return Plan(folder, files, change)


def install(places: Places, wanted: Plan, stamp: str) -> tuple[Path, ...]:
    """Does what was planned; returns the copies of what was there before.

    Raises:
        ConfigError: a file cannot be written, or the settings changed meanwhile.
    """
    folder = wanted.folder
    try:
        _remove_files(folder)  # of an older version
        digests = {}
        for name in wanted.files:
            content = f"{sys.executable}\n".encode() if name == _PYTHON else (PLUGIN / name).read_bytes()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            digests[name] = _digest(content)
        (folder / _LIST).write_text(json.dumps({"version": _version(), "files": digests}, indent=2) + "\n", "utf-8")
        places.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    stop_companion(places)  # one of an older version
    return () if wanted.settings is None else Journal(places.journal).apply([wanted.settings], stamp)


def uninstall(places: Places) -> Removed:
    """Takes everything away that was installed and is as it was.

    Raises:
        ConfigError: the settings cannot be restored safely; says where their copy is. Nothing was removed then.
    """
    undone: list[Undone] = []
    while step := Journal(places.journal).undo():
        undone += step
    stop_companion(places)
    try:
        count = _remove_files(places.plugin)
        kept = tuple(_inside(places.plugin))
        for path in (*places.state.glob("*.json"), Path(f"{places.socket}.lock"), Path(f"{places.socket}.started")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot remove {error.filename}: {error.strerror}") from None
    return Removed(places.plugin, count, kept, tuple(undone))


def status(places: Places, environment: Mapping[str, str]) -> Status:
    """What is installed, and whether it works."""
    listed = _listed(places.plugin)
    files = {} if listed is None else listed[1]
    try:
        python = Path((places.plugin / _PYTHON).read_text("utf-8").strip())
    except OSError:
        python = Path()
    try:
        settings = places.settings.read_text("utf-8", "replace")
    except OSError:
        settings = ""
    return Status(
        folder=places.plugin,
        version=None if listed is None else listed[0],
        python_works=python.is_file(),
        status_line="statusline.py" in settings and "tierwise" in settings,
        companion=_answers(places),
        changed=tuple(name for name, digest in files.items() if not _is(places.plugin / name, digest)),
        telemetry=telemetry(settings, environment),
    )


def stop_companion(places: Places) -> None:
    """Ends the companion, if one runs: the next event starts a new one."""
    try:
        ask(places.socket, b"stop \n", seconds=1.0)
    except OSError:
        return


def _answers(places: Places) -> bool:
    try:
        ask(places.socket, b"hello \n", seconds=1.0)
    except OSError:
        return False
    return True


# ------------------------------------------------------------------ files


def _version() -> str:
    return str(json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_bytes())["version"])


def _shipped() -> Iterator[str]:
    for path in PLUGIN.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(PLUGIN).as_posix()


def _listed(folder: Path) -> tuple[str, dict[str, str]] | None:
    try:
        told = json.loads((folder / _LIST).read_bytes())
        return str(told["version"]), {str(name): str(digest) for name, digest in told["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remove_files(folder: Path) -> int:
    """Removes what is as it was installed, and the directories that are empty then; how many files."""
    listed = _listed(folder)
    if listed is None:
        return 0
    count = 0
    for name, digest in listed[1].items():
        path = folder / name
        if ".." not in Path(name).parts and _is(path, digest):
            path.unlink()
            count += 1
    (folder / _LIST).unlink()
    for path in sorted((folder, *folder.rglob("*")), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return count


def _inside(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _is(path: Path, digest: str) -> bool:
    try:
        return _digest(path.read_bytes()) == digest
    except OSError:
        return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
