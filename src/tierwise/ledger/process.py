"""Which process wrote an open call, and whether it still runs.

A process id alone says little: ids are used again, and mean nothing in another container or after a restart. So
the identity is the id, the time the process started, its id namespace, the boot and the host. Where any doubt is
left the answer is "unknown", and nothing is declared dead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["is_alive", "this_process"]

_PROC = Path("/proc")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _start_ticks(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when there is none, or no /proc."""
    _, _, after_name = _read(_PROC / str(pid) / "stat").rpartition(")")  # the name may hold spaces and brackets
    fields = after_name.split()
    if len(fields) < 20 or fields[0] in {"Z", "X"}:  # a zombie writes nothing any more
        return ""
    return fields[19]


def _namespace() -> str:
    try:
        link = str((_PROC / "self" / "ns" / "pid").readlink())
    except OSError:
        return ""
    return link.partition("[")[2].rstrip("]")


def _host() -> str:
    return os.uname().nodename if sys.platform != "win32" else os.environ.get("COMPUTERNAME", "")


def _boot() -> str:
    return _read(_PROC / "sys" / "kernel" / "random" / "boot_id")[:8]


def this_process() -> str:
    """The identity of this process: `pid:start:namespace:boot:host`."""
    pid = os.getpid()
    return f"{pid}:{_start_ticks(pid)}:{_namespace()}:{_boot()}:{_host()}"


def is_alive(writer: str | None) -> bool | None:
    """Whether the process of that identity still runs; None where that cannot be told from here."""
    parts = (writer or "").split(":", 4)
    if len(parts) != 5 or not parts[0].isdigit():
        return None
    pid, start, namespace, boot, host = parts
    if host != _host():
        return None
    if boot and _boot() and boot != _boot():
        return False  # the machine has restarted since
    if namespace != _namespace() or not (start and _PROC.exists()):
        return None
    return _start_ticks(int(pid)) == start
