"""The way between a client of this process and its gateway, without an SDK around it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from tests.integrations.conftest import Host
from tierwise.core.money import nanousd_to_usd
from tierwise.integrations.inside import InsideGateway
from tierwise.integrations.transport import TRAILERS, AsyncTransport, Part, Transport
from tierwise.testing import Fault

URL = "http://tierwise.invalid/v1/messages"
ASKED: Any = {
    "model": "claude-tierwise-auto",
    "max_tokens": 200,
    "stream": True,
    "messages": [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}],
}


@pytest.fixture
def gateway(host: Host) -> Iterator[InsideGateway]:
    """A gateway of this process."""
    running = InsideGateway(host.settings)
    yield running
    running.close()


def all_of_it(request: httpx2.Request, body: bytes) -> Part:
    """Every request is for the gateway."""
    return Part(request.url.path, [(name.lower(), value) for name, value in request.headers.raw], body)


def test_stream_tells_its_cost_at_its_end(host: Host, gateway: InsideGateway) -> None:
    """What a stream cost, attempts that failed included, is known once it was read, and is what the ledger has."""
    host.upstream.fail(Fault.empty())
    host.upstream.reply("It burns.")
    with (
        httpx2.Client(transport=Transport(gateway, all_of_it, None)) as client,
        client.stream("POST", URL, json=ASKED) as answer,
    ):
        trailers = answer.extensions[TRAILERS]
        assert not trailers
        assert b"It burns." in answer.read()
    found = host.call()
    spent = nanousd_to_usd(sum(attempt.cost_nanousd or 0 for attempt in found.attempts))
    assert len(found.attempts) == 2
    assert Decimal(trailers["x-tierwise-cost-usd"]) == spent > 0
    assert trailers["x-tierwise-call-id"] == found.call.call_id


async def test_asynchronous_stream_tells_its_cost(host: Host, gateway: InsideGateway) -> None:
    """So does the asynchronous way."""
    host.upstream.reply("It burns.")
    async with (
        httpx2.AsyncClient(transport=AsyncTransport(gateway, all_of_it, None)) as client,
        client.stream("POST", URL, json=ASKED) as answer,
    ):
        await answer.aread()
    cost = Decimal(answer.extensions[TRAILERS]["x-tierwise-cost-usd"])
    assert cost == nanousd_to_usd(host.call().attempts[0].cost_nanousd or 0)
