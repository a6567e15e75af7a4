"""What a caller says of the calls that it is about to make, through whatever client makes them.

An SDK's own methods have no place for it, and their types are to stay as they are. So it stands around them:

    with call_options(task="summarise a ticket", min_tier="haiku", check=one_line):
        client.messages.create(...)

It travels as the `x-tierwise-*` headers that the gateway reads from anybody, which a call may also be given on its own
(`extra_headers`); those go over it. Only a check, which is code, stays in the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from inspect import iscoroutinefunction
from urllib.parse import quote

from tierwise.core.catalog import Tier
from tierwise.core.errors import InvalidTask
from tierwise.engine.checks import UserCheck

__all__ = ["CallOptions", "applied", "call_options", "current_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What holds for calls. None, or nothing: as it was."""

    task: str | None = None
    task_type: str | None = None
    min_tier: str | None = None
    max_tier: str | None = None
    project: str | None = None
    tags: Mapping[str, str] | None = None
    deadline_seconds: float | None = None
    route: bool | None = None
    checks: tuple[UserCheck, ...] = ()

    def within(self, outer: CallOptions) -> CallOptions:
        """These, and of what they leave open, what holds around them."""
        said = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        tags = {**(outer.tags or {}), **(self.tags or {})} or None
        return replace(outer, **{**said, "tags": tags, "checks": (*outer.checks, *self.checks)})

    def headers(self) -> dict[str, str]:
        """As headers of a request; names in lower case."""
        tags = None if self.tags is None else ",".join(f"{name}={text}" for name, text in self.tags.items())
        told = {
            "task": None if self.task is None else quote(self.task, safe=" "),
            "task-type": self.task_type,
            "min-tier": self.min_tier,
            "max-tier": self.max_tier,
            "project": self.project,
            "tags": tags or None,
            "deadline": None if self.deadline_seconds is None else f"{self.deadline_seconds:g}",
            "no-route": "1" if self.route is False else None,
        }
        return {f"x-tierwise-{name}": text for name, text in told.items() if text is not None}


_options: ContextVar[CallOptions] = ContextVar("tierwise_call_options", default=CallOptions())  # noqa: B039  frozen


def current_options() -> CallOptions:
    """What holds for calls that are made here and now."""
    return _options.get()


@contextmanager
def call_options(
    *,
    task: str | None = None,
    task_type: str | None = None,
    min_tier: str | Tier | None = None,
    max_tier: str | Tier | None = None,
    project: str | None = None,
    tags: Mapping[str, str] | None = None,
    deadline_seconds: float | None = None,
    route: bool | None = None,
    check: UserCheck | Sequence[UserCheck] | None = None,
) -> Iterator[None]:
    """Sets options for the calls of wrapped clients that begin within this block, in this thread or task.

    Blocks can be nested: what the inner one says takes precedence, and their checks add up. A header of a single call
    (`extra_headers={"x-tierwise-min-tier": "sonnet"}`) takes precedence over both.

    Args:
        task: the task in a few words; it is classified in place of the last user message.
        task_type: what it is, where you know it.
        min_tier, max_tier: floor and ceiling of routed calls.
        project, tags: recorded with the call.
        deadline_seconds: how long the call may take, attempts and waits included.
        route: False sends routed names to the baseline model.
        check: takes the answer's text; None or True lets it pass, False or a string (what is wrong) refuses it, as
            does a ValueError or AssertionError. An answer that is refused is not handed on: the next model is
            asked, and where no answer passes, the SDK raises its `UnprocessableEntityError`. Streams are held back
            until they are complete.

    Raises:
        InvalidTask: a check that is no plain function, a task without a word, or a tag that is not ASCII.
    """
    checks = () if check is None else (check,) if callable(check) else tuple(check)
    for one in checks:
        if not callable(one) or iscoroutinefunction(one):
            raise InvalidTask(f"check is {type(one).__name__}; give a plain function that takes the answer's text")
    if task is not None and not task.strip():
        raise InvalidTask("task is empty; say in a few words what is to be done, or leave it out")
    for name, text in (tags or {}).items():
        if not f"{name}{text}".isascii():
            raise InvalidTask(f"the tag {name!r} is {text!r}; tags travel in a header: use ASCII")
    inner = CallOptions(
        task=task,
        task_type=task_type,
        min_tier=min_tier.name if isinstance(min_tier, Tier) else min_tier,
        max_tier=max_tier.name if isinstance(max_tier, Tier) else max_tier,
        project=project,
        tags=tags,
        deadline_seconds=deadline_seconds,
        route=route,
        checks=checks,
    )
    with applied(inner.within(_options.get())):
        yield


@contextmanager
def applied(options: CallOptions) -> Iterator[None]:
    """These hold within this block, and nothing else: for a call that leaves later than it was described."""
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)
