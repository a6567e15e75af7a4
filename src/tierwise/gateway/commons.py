"""What all workers of a gateway share, kept by their supervisor: rate limits, conversations, places for calls.

Theory of operation. There is one `Admission` and one `Conversations`, the very ones that a gateway of one process has,
and each worker asks for them over its line (`tierwise.gateway.shared` is the other side). Frames are handled one after
another, so nothing here needs a lock. Only what waits for a rate limit is a task.

A worker that dies leaves its places, and its waiting requests leave their lines. What its requests have taken from a
rate limit stays taken: they may well have reached the provider, and buckets refill by themselves.

    worker → supervisor                                      answer
    enter, id                                                id, whether there is a place
    leave
    conversation, id, key                                    id, what is known of it or null
    note, key, model, usage, now, account
    admit, id, families, session, interactive, tokens, …     id, place in families; or id, null, family, seconds
    withdraw, id                                             (the request went away)
    settle, id, load                                         (of the ticket that `admit` with this id gave)
    learn, family, headers, status
    circuit, model, outcome                                  (goes on to all other workers, as does the next)
    broke, what it said, kind, until
    workers, id                                              id, how many serve
    standing, id                                             id, running calls, waiting ones, what is left of limits
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tierwise.core.json import Json
from tierwise.core.money import Usage
from tierwise.core.settings import GatewaySettings
from tierwise.gateway.admission import Admission, Standing, Ticket, WouldWait
from tierwise.gateway.conversations import Conversation, Conversations
from tierwise.gateway.line import Frame, Line
from tierwise.policy.ratelimits import Family, Headroom, Limits, Load, Measure
from tierwise.policy.switching import Warmth

__all__ = [
    "Commons",
    "Member",
    "conversation_frame",
    "conversation_from",
    "standing_frame",
    "standing_from",
    "usage_frame",
]

_LONG_SECONDS = 1e9  # stands for what has no end, which JSON cannot say


class Member:
    """A worker, as the commons know it: what it holds of them."""

    def __init__(self) -> None:
        self.line: Line | None = None  # while it can be told something
        self.ready = False  # it serves
        self.running = 0
        self.tickets: dict[int, Ticket] = {}
        self.waiting: dict[int, asyncio.Task[None]] = {}

    def tell(self, *frame: Json) -> None:
        """Tells the worker, if it is there."""
        if self.line is not None:
            self.line.tell(*frame)


class Commons:
    """What workers share. Belongs to one event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.admission = Admission(Limits(settings.limits), asyncio.get_running_loop())
        self.conversations = Conversations()
        self.members: set[Member] = set()  # from when they are started until they are gone
        self._most = settings.max_connections

    @property
    def running(self) -> int:
        """How many calls run."""
        return sum(member.running for member in self.members)

    def configure(self, settings: GatewaySettings) -> None:
        """Goes on with other limits."""
        self._most = settings.max_connections
        self.admission.configure(settings.limits)

    def leaves(self, member: Member) -> None:
        """A worker is gone: what it held is given back."""
        self.members.discard(member)
        member.line, member.ready = None, False
        member.running = 0
        for task in member.waiting.values():
            task.cancel()
        member.tickets.clear()

    def heard(self, member: Member, frame: Frame) -> bool:
        """Does what a worker asks for; whether that was something that is known here."""
        return self._heard_of_calls(member, frame) or self._heard_of_limits(member, frame)

    def _heard_of_calls(self, member: Member, frame: Frame) -> bool:
        match frame:
            case ["enter", int(number)]:
                place = self.running < self._most
                member.running += place
                member.tell(number, place)
            case ["leave"]:
                member.running -= 1
            case ["conversation", int(number), str(key)]:
                known = self.conversations.known(key)
                member.tell(number, None if known is None else conversation_frame(known))
            case ["note", str(key), str(model), list(usage), int() | float() as now, account]:
                self.conversations.noted(key, model, _usage(usage), now, account if isinstance(account, str) else None)
            case ["circuit" | "broke", *_]:
                for other in self.members:
                    if other is not member:
                        other.tell(*frame)
            case ["workers", int(number)]:
                member.tell(number, sum(other.ready for other in self.members))
            case _:
                return False
        return True

    def _heard_of_limits(self, member: Member, frame: Frame) -> bool:
        match frame:
            case ["admit", int(number), list(families), str(session), bool(interactive), int(put), int(out), *rest]:
                deadline, preferred = rest
                asked = _Asked(
                    families=[Family(str(one[0]), str(one[1])) for one in families if isinstance(one, list)],
                    session=session,
                    interactive=interactive,
                    input_tokens=put,
                    output_tokens=out,
                    deadline_seconds=float(deadline) if isinstance(deadline, int | float) else math.inf,
                    preferred=preferred if isinstance(preferred, int) else None,
                )
                self._admit(member, number, asked)
            case ["withdraw", int(number)]:
                if (task := member.waiting.pop(number, None)) is not None:
                    task.cancel()
                elif (ticket := member.tickets.pop(number, None)) is not None:
                    ticket.cancel()
            case ["settle", int(number), int(requests), int(put), int(out)]:
                if (ticket := member.tickets.pop(number, None)) is not None:
                    ticket.close(Load(requests, put, out))
            case ["standing", int(number)]:
                admission = self.admission
                member.tell(number, *standing_frame(Standing(admission.headroom(), admission.waiting, self.running)))
            case ["learn", str(pool), str(name), dict(headers), int(status)]:
                told: Mapping[str, str] = {name: text for name, text in headers.items() if isinstance(text, str)}
                self.admission.learn(Family(pool, name), told, status=status)
            case _:
                return False
        return True

    def _admit(self, member: Member, number: int, asked: _Asked) -> None:
        ticket = self.admission.admit_now(
            asked.families,
            input_tokens=asked.input_tokens,
            output_tokens=asked.output_tokens,
            preferred=asked.prefers,
        )
        if ticket is not None:
            self._let_through(member, number, asked, ticket)
        else:
            member.waiting[number] = asyncio.ensure_future(self._waits(member, number, asked))

    async def _waits(self, member: Member, number: int, asked: _Asked) -> None:
        try:
            ticket = await self.admission.admit_any(
                asked.families,
                asked.session,
                interactive=asked.interactive,
                input_tokens=asked.input_tokens,
                output_tokens=asked.output_tokens,
                deadline_seconds=asked.deadline_seconds,
                preferred=asked.prefers,
            )
        except WouldWait as refused:
            seconds = refused.retry_after_seconds
            member.tell(number, None, [*refused.family], None if seconds == math.inf else seconds)
        else:
            self._let_through(member, number, asked, ticket)
        finally:
            member.waiting.pop(number, None)

    def _let_through(self, member: Member, number: int, asked: _Asked, ticket: Ticket) -> None:
        if member not in self.members:  # it died in the moment in which its turn came
            ticket.cancel()
            return
        member.tickets[number] = ticket
        member.tell(number, asked.families.index(ticket.family))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Leave to send a request, as `Admission.admit_any` is asked for it."""

    families: Sequence[Family]
    session: str
    interactive: bool
    input_tokens: int
    output_tokens: int
    deadline_seconds: float
    preferred: int | None

    @property
    def prefers(self) -> Family | None:
        return None if self.preferred is None else self.families[self.preferred]


# ------------------------------------------------------------------ values as frames


def usage_frame(usage: Usage) -> Frame:
    """What of a usage conversations are known by."""
    return [
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
    ]


def _usage(frame: Frame) -> Usage:
    put, out, read, for_5m, for_1h = (one if isinstance(one, int) else 0 for one in frame)
    return Usage(
        input_tokens=put,
        output_tokens=out,
        cache_read_tokens=read,
        cache_write_5m_tokens=for_5m,
        cache_write_1h_tokens=for_1h,
    )


def conversation_frame(known: Conversation) -> Frame:
    """What is known of a conversation, as it travels."""
    return [
        known.model_id,
        known.turns,
        known.prompt_tokens,
        known.output_tokens,
        known.usual_output_tokens,
        known.usual_new_tokens,
        known.cache_ttl_seconds,
        [[held.model_id, held.read_tokens, held.ttl_seconds, held.expires_at] for held in known.warm.values()],
        known.seen_at,
        known.account,
    ]


def conversation_from(frame: Json) -> Conversation | None:
    """What `conversation_frame` sent."""
    match frame:
        case [
            str(model),
            int(turns),
            int(prompt),
            int(output),
            int(usual_output),
            int(usual_new),
            ttl,
            list(warm),
            int() | float() as seen_at,
            account,
        ]:
            held = [_warmth(one) for one in warm]
            return Conversation(
                model_id=model,
                turns=turns,
                prompt_tokens=prompt,
                output_tokens=output,
                usual_output_tokens=usual_output,
                usual_new_tokens=usual_new,
                cache_ttl_seconds=ttl if isinstance(ttl, int) else None,
                warm={one.model_id: one for one in held if one is not None},
                seen_at=seen_at,
                account=account if isinstance(account, str) else None,
            )
        case _:
            return None


def standing_frame(standing: Standing) -> Frame:
    """How things stand, as it travels between processes."""
    rows: list[Json] = [
        [
            *one.family,
            one.measure.value,
            one.limit_per_minute,
            one.left,
            min(one.full_in_seconds, _LONG_SECONDS),
            min(one.closed_seconds, _LONG_SECONDS),
        ]
        for one in standing.headroom
    ]
    return [standing.running, standing.waiting, rows]


def standing_from(frame: Frame) -> Standing:
    """What `standing_frame` sent; what cannot be read of it is left out."""
    found = []
    match frame:
        case [running, int(waiting), list(rows)]:
            for row in rows:
                match row:
                    case [str(pool), str(name), str(measure), int(limit), int(left), full, closed] if isinstance(
                        full, int | float
                    ) and isinstance(closed, int | float):
                        family = Family(pool, name)
                        found.append(Headroom(family, Measure(measure), limit, left, float(full), float(closed)))
                    case _:
                        continue
            return Standing(tuple(found), waiting, running if isinstance(running, int) else None)
        case _:
            return Standing((), 0)


def _warmth(frame: Json) -> Warmth | None:
    match frame:
        case [str(model), int(tokens), int(ttl), int() | float() as expires_at]:
            return Warmth(model, tokens, ttl, expires_at)
        case _:
            return None
