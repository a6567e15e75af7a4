"""A worker's side of what all workers share: the same calls as in a gateway of one process, answered over its line.

Rate limits and places are asked for when they are needed. What is known of a conversation is fetched when its call
comes, and read here from then on; what a call adds is told before its client has the answer's end, so whoever goes on
with the conversation, at whatever worker, finds it. Circuits are everybody's own, and everybody hears of faults.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence

from tierwise.core.calls import CallKind
from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json
from tierwise.core.money import Usage
from tierwise.core.settings import LimitSettings, RateLimit
from tierwise.engine.circuits import Circuits
from tierwise.gateway.admission import Standing, Ticket, WouldWait
from tierwise.gateway.broken import BrokenStreams
from tierwise.gateway.commons import conversation_from, standing_from, usage_frame
from tierwise.gateway.conversations import Conversation, ConversationKey, Conversations
from tierwise.gateway.line import Frame, Line, LineEnded
from tierwise.gateway.metrics import Sample, samples_from
from tierwise.ledger.turnstile import Turnstile
from tierwise.policy.ratelimits import Family, Load, Taken

__all__ = ["Shared", "SharedAdmission", "SharedCircuits", "SharedConversations"]

_MOST_AT_HAND = 4_096  # conversations: more than calls that run at once
_TOLD = frozenset({"retry-after", "date"})
_TOLD_PREFIX = "anthropic-ratelimit-"


class Shared:
    """What a worker shares with the others. `opens` when there is an event loop.

    Args:
        worker: its number.
        turnstile: where workers queue for the ledger.
    """

    def __init__(self, worker: int, turnstile: Turnstile | None = None) -> None:
        self.worker = worker
        self.turnstile = turnstile
        self.admission = SharedAdmission(self)
        self.conversations = SharedConversations(self)
        self.broken = SharedBroken(self)
        self._line: Line | None = None
        self._asked: dict[int, asyncio.Future[Frame]] = {}
        self._number = 0
        self._circuits: SharedCircuits | None = None

    def opens(self, line: Line) -> None:
        """The line is there."""
        self._line = line

    def ended(self) -> None:
        """The line is not there any more: whoever waits for an answer hears of it."""
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(LineEnded())

    def circuits(self, limits: LimitSettings) -> SharedCircuits:
        """Circuits for a configuration, that hear of the other workers' faults from now on."""
        self._circuits = SharedCircuits(self, limits)
        return self._circuits

    async def enter(self) -> bool:
        """Asks for a place for a call; whether there is one. Who has one `leave`s."""
        _, answer = self.ask("enter")  # only a worker that ends breaks off here, and its places go with it
        return (await answer)[1] is True

    def leave(self) -> None:
        """A call is over."""
        self.tell("leave")

    async def figures(self) -> list[Sample]:
        """What `/metrics` tells of all workers."""
        _, answer = self.ask("total")
        return samples_from((await answer)[1])

    async def workers(self) -> int:
        """How many workers serve."""
        _, answer = self.ask("workers")
        found = (await answer)[1]
        return found if isinstance(found, int) else 0

    # ------------------------------------------------------------------ speaking

    def tell(self, *frame: Json) -> None:
        """Tells the supervisor something."""
        if self._line is not None:
            self._line.tell(*frame)

    def flush(self) -> None:
        """What was told is with the supervisor before what is said to anybody else from now on."""
        if self._line is not None:
            self._line.flush()

    def ask(self, what: str, *rest: Json) -> tuple[int, asyncio.Future[Frame]]:
        """Asks the supervisor something: the question's number, and what will be its answer.

        Raises:
            LineEnded: it is not there.
        """
        if self._line is None or not self._line.open:
            raise LineEnded
        self._number += 1
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked[self._number] = future
        self._line.tell(what, self._number, *rest)
        return self._number, future

    def heard(self, frame: Frame) -> bool:
        """Takes what the supervisor says; whether that was something that is known here."""
        match frame:
            case [int(number), *_]:
                future = self._asked.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(frame)
            case ["circuit", str(model_id), str(outcome)]:
                if self._circuits is not None:
                    self._circuits.heard(model_id, OutcomeKind(outcome))
            case ["broke", str(told), str(kind), int() | float() as until]:
                self.broken.heard(bytes.fromhex(told), CallKind(kind), until)
            case _:
                return False
        return True


class SharedAdmission:
    """`Admission` as a worker sees it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._refused: set[Family] = set()  # an answer that is none is worth telling
        self.waiting = 0

    async def admit(
        self,
        family: Family,
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
    ) -> Ticket:
        """See `Admission.admit`."""
        return await self.admit_any(
            (family,),
            session,
            interactive=interactive,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            deadline_seconds=deadline_seconds,
        )

    async def admit_any(
        self,
        families: Sequence[Family],
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
        preferred: Family | None = None,
    ) -> Ticket:
        """See `Admission.admit_any`."""
        number, asked = self._shared.ask(
            "admit",
            [[*family] for family in families],
            session,
            interactive,
            input_tokens,
            output_tokens,
            None if deadline_seconds == math.inf else deadline_seconds,
            None if preferred is None else families.index(preferred),
        )
        self.waiting += 1
        try:
            answer = await asked
        except asyncio.CancelledError:
            self._shared.tell("withdraw", number)
            raise
        finally:
            self.waiting -= 1
        match answer:
            case [_, int(place)]:
                return _SharedTicket(self._shared, number, families[place])
            case [_, None, [str(pool), str(name)], seconds]:
                raise WouldWait(Family(pool, name), float(seconds) if isinstance(seconds, int | float) else math.inf)
            case _:
                raise LineEnded

    def configure(self, limits: Mapping[str, RateLimit]) -> None:
        """Nothing: the supervisor reads the configuration itself."""

    def learn(self, family: Family, headers: Mapping[str, str], *, status: int = 200) -> None:
        """See `Admission.learn`."""
        told: dict[str, Json] = {
            name: text for name, text in headers.items() if name in _TOLD or name.startswith(_TOLD_PREFIX)
        }
        if status == 429:
            self._refused.add(family)
        elif status == 200 and len(told) == ("date" in told) and family not in self._refused:
            return  # it says nothing
        else:
            self._refused.discard(family)
        self._shared.tell("learn", *family, told, status)

    async def standing(self) -> Standing:
        """See `Admission.standing`."""
        _, answer = self._shared.ask("standing")
        return standing_from((await answer)[1:])


class _SharedTicket(Ticket):
    """A ticket that the supervisor holds."""

    __slots__ = ("_number", "_shared")

    def __init__(self, shared: Shared, number: int, family: Family) -> None:
        self._shared = shared
        self._number = number
        self._taken = Taken(family, 1, 0, 0, 0.0)  # until it is closed
        self.family = family

    def close(self, used: Load) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            self._shared.tell("settle", self._number, *used)


class SharedConversations(Conversations):
    """`Conversations` as a worker sees them: those at hand are those that were fetched of late."""

    elsewhere = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(most=_MOST_AT_HAND)
        self._shared = shared

    async def fetch(self, key: ConversationKey) -> None:
        """Makes that `get` knows what is known of a conversation."""
        _, answer = self._shared.ask("conversation", key.id)
        known = conversation_from((await answer)[1])
        if known is None:
            self._known.pop(key.id, None)
            return
        self._known[key.id] = known
        if len(self._known) > _MOST_AT_HAND:
            self._known.popitem(last=False)

    def note(
        self, key: ConversationKey, model_id: str, usage: Usage, now: float, account: str | None = None
    ) -> Conversation:
        """A turn was answered; the supervisor has it before this returns."""
        self._shared.tell("note", key.id, model_id, usage_frame(usage), now, account)
        self._shared.flush()
        return super().note(key, model_id, usage, now, account)


class SharedBroken(BrokenStreams):
    """`BrokenStreams` that know what broke at all workers, before the client can ask again at another one."""

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared

    def remember(self, told: bytes, kind: CallKind, until: float) -> None:
        """See `BrokenStreams.remember`."""
        super().remember(told, kind, until)
        self._shared.tell("broke", told.hex(), kind.value, until)
        self._shared.flush()

    def heard(self, told: bytes, kind: CallKind, until: float) -> None:
        """What broke at another worker."""
        super().remember(told, kind, until)


class SharedCircuits(Circuits):
    """`Circuits` that count what happens at all workers."""

    def __init__(self, shared: Shared, limits: LimitSettings) -> None:
        super().__init__(limits.circuit_failures, limits.circuit_open_seconds)
        self._shared = shared

    def note(self, model_id: str, kind: OutcomeKind, now_seconds: float) -> None:
        """See `Circuits.note`."""
        before = self.failures_of(model_id)
        super().note(model_id, kind, now_seconds)
        if self.failures_of(model_id) != before:
            self._shared.tell("circuit", model_id, kind.value)

    def heard(self, model_id: str, kind: OutcomeKind) -> None:
        """What happened at another worker."""
        super().note(model_id, kind, time.monotonic())
