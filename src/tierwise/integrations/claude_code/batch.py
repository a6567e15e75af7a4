"""Many tasks for one command line: a file of them in, a file of results out, several at once, and on after a stop.

A line of either file is a JSON object. Results are appended as they come, each written through before the next begins,
so whatever ends a batch, what it paid for is kept. Going on skips the tasks that went well; one whose line has changed
since, or that failed, is run again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from tierwise.core.errors import InvalidTask, TierwiseError
from tierwise.core.json import Json, JsonObject
from tierwise.integrations.claude_code.execution import Executed, Executor, Job

__all__ = ["BatchTask", "Finished", "Results", "read_tasks", "run_all"]

_TEXTS = ("id", "text", "input", "check", "cwd", "type", "tier", "min_tier", "max_tier", "stakes", "max_cost_usd")
_OPTIONS = {"type": "task_type"}  # of these keys, those that the router has other names for
_MOST_BYTES = 256 * 1024 * 1024
_UNSAYABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class BatchTask:
    """One line of a file of tasks. `digest` is that of its line."""

    id: str
    digest: str
    job: Job


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a task: how it ended, or why it was never run."""

    task: BatchTask
    executed: Executed | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is an answer that passed."""
        return self.executed is not None and self.executed.ok


def read_tasks(path: Path, like: Job) -> list[BatchTask]:
    """The tasks of a file, each with what its line says and else as `like`.

    Raises:
        InvalidTask: the file cannot be read, or a line of it is no task; names the line.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidTask(f"{path} is larger than {_MOST_BYTES // 2**20} MB; divide it")
        lines = path.read_bytes().decode("utf-8-sig", "replace").split("\n")  # others that Unicode knows are text
    except OSError as error:
        raise InvalidTask(f"cannot read {path}: {error.strerror}") from None
    tasks: list[BatchTask] = []
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            task = _task(line, number, like, path.parent)
        except InvalidTask as error:
            raise InvalidTask(f"{path}, line {number}: {error}") from None
        if task.id in names:
            raise InvalidTask(f"{path}, line {number}: the id {task.id!r} is that of line {names[task.id]} too")
        names[task.id] = number
        tasks.append(task)
    return tasks


def _task(line: str, number: int, like: Job, beside: Path) -> BatchTask:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidTask(f'not JSON ({error}); a line is an object such as {{"text": "…"}}') from None
    if not isinstance(given, dict) or not isinstance(given.get("text"), str):
        raise InvalidTask('no text; a line is an object such as {"text": "…"}')
    for name, value in given.items():
        if name == "json_schema":
            if not isinstance(value, dict):
                raise InvalidTask("json_schema is not an object")
        elif name not in _TEXTS:
            raise InvalidTask(f"unknown key {name!r}; use {', '.join((*_TEXTS, 'json_schema'))}")
        elif not isinstance(value, str):
            raise InvalidTask(f"{name} is not a string")
        elif name != "input" and _UNSAYABLE.search(value):
            raise InvalidTask(f"{name} holds a NUL or half a character, which no command line can; leave it out")
    options = {_OPTIONS.get(name, name): given[name] for name in _TEXTS[5:] if name in given}
    schema = given.get("json_schema")
    job = replace(
        like,
        command=like.command if schema is None else replace(like.command, json_schema=schema),
        task=given["text"],
        given=given.get("input", like.given),
        check=given.get("check", like.check),
        cwd=beside / given["cwd"] if "cwd" in given else like.cwd,
        options={**like.options, **options},
    )
    return BatchTask(given.get("id", str(number)), sha256(line.strip().encode()).hexdigest()[:16], job)


class Results:
    """The file that results are appended to; `None` keeps none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def done(self) -> frozenset[tuple[str, str]]:
        """The ids and digests of the tasks that went well.

        Raises:
            InvalidTask: the file cannot be read.
        """
        if self._path is None or not self._path.exists():
            return frozenset()
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError as error:
            raise InvalidTask(f"cannot read {self._path}: {error.strerror}") from None
        return frozenset(
            (str(found["id"]), str(found["digest"]))
            for found in map(_result, lines)
            if found is not None and found.get("ok") is True
        )

    def ready(self) -> None:
        """Makes sure that results can be appended, before anything is paid for. Raises as `append`."""
        self._append(b"")

    def append(self, result: JsonObject) -> None:
        """Writes one result through.

        Raises:
            InvalidTask: the file cannot be written.
        """
        self._append(json.dumps(result, allow_nan=False).encode("ascii") + b"\n")

    def _append(self, line: bytes) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("ab+") as out:
                if line and out.tell():
                    out.seek(-1, os.SEEK_END)
                    if out.read(1) != b"\n":  # torn where the last batch was killed
                        line = b"\n" + line
                out.write(line)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise InvalidTask(f"cannot write {self._path}: {error.strerror or error}") from None


def _result(line: bytes) -> Mapping[str, Json] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "id" in found and "digest" in found else None


async def run_all(
    executor: Executor, tasks: Sequence[BatchTask], concurrency: int, done: Callable[[Finished], None]
) -> None:
    """Runs tasks, so many at once, and hands each over as it ends. What is wrong with one of them ends no other.

    What `done` raises ends them all, and is raised.
    """
    waiting = iter(tasks)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(tasks))):
                group.create_task(_work(executor, waiting, done))
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


async def _work(executor: Executor, waiting: Iterator[BatchTask], done: Callable[[Finished], None]) -> None:
    for task in waiting:
        try:
            finished = Finished(task, await executor.run(task.job))
        except TierwiseError as error:
            finished = Finished(task, None, str(error))
        done(finished)
