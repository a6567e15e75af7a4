"""`TierwiseProvider`: what stands between Pydantic AI's Anthropic model and the gateway inside this process.

Pydantic AI's providers hold the client that a model calls. This one's is Anthropic's own, whose connections end in the
gateway; what a model class of Pydantic AI makes of messages, tools and replies stays Pydantic AI's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from anthropic import AsyncAnthropic
from pydantic_ai.providers.anthropic import AnthropicProvider

from tierwise.integrations.calling import INSIDE_URL, Told, everything, gateway_for
from tierwise.integrations.transport import Part, hearing_client

if TYPE_CHECKING:
    import httpx2

    from tierwise.core.settings import Settings
    from tierwise.ledger import Ledger

__all__ = ["Heard", "TierwiseProvider"]

_NO_KEY = "of-the-configuration"  # the SDK wants one; it goes nowhere


@dataclass(slots=True)
class Heard:
    """What the gateway said of the calls that one request of Pydantic AI made, which as a rule is one."""

    answers: list[httpx2.Response] = field(default_factory=list)

    @property
    def last(self) -> Told:
        """Of the call whose answer it is."""
        return _told(self.answers[-1]) if self.answers else Told()

    @property
    def cost_usd(self) -> Decimal | None:
        """What all of them cost; None where that of one is unknown, or its stream has not ended."""
        costs = [_told(answer).cost_usd for answer in self.answers]
        known = [cost for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if known and len(known) == len(costs) else None


def _told(answer: httpx2.Response) -> Told:
    return Told.at_end(answer) or Told.of(answer.headers)


_hearing: ContextVar[Heard | None] = ContextVar("tierwise_pydantic_ai_hearing", default=None)


class TierwiseProvider(AnthropicProvider):
    """The gateway inside this process, as a provider of Pydantic AI's.

    Args:
        api_key: a key of Anthropic's, in place of the configured one.
        base_url: an address of Anthropic's API, in place of the configured one.
        settings: a `tierwise.Settings`; read from tierwise.toml and the environment when None.
        ledger: where calls are recorded; the configured one when None.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        settings: Settings | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.gateway = gateway_for(settings, base_url=base_url, own_key=api_key is not None, ledger=ledger)
        # A key that was given goes along; the one that only stands for the configured ones does not.
        left_out: tuple[bytes, ...] = () if api_key is not None else (b"x-api-key", b"authorization")

        def rewrite(request: httpx2.Request, body: bytes) -> Part:
            part = everything(request, body)
            return replace(part, headers=[pair for pair in part.headers if pair[0] not in left_out])

        client = AsyncAnthropic(
            api_key=api_key or _NO_KEY,
            base_url=INSIDE_URL,
            max_retries=0,  # what is worth trying again, the gateway tries; a request may ask for more
            http_client=hearing_client(self.gateway, rewrite, _hear),
        )
        super().__init__(anthropic_client=client)

    @property
    def name(self) -> str:
        """The provider's name, in messages and traces."""
        return "tierwise"

    @contextmanager
    def hearing(self) -> Iterator[Heard]:
        """What the gateway says of the calls that begin in this block."""
        heard = Heard()
        token = _hearing.set(heard)
        try:
            yield heard
        finally:
            _hearing.reset(token)

    @staticmethod
    def heard() -> Heard:
        """What was heard so far in the block around."""
        return _hearing.get() or Heard()


async def _hear(response: httpx2.Response) -> None:
    heard = _hearing.get()
    if heard is not None and "x-tierwise-call-id" in response.headers:
        heard.answers.append(response)
