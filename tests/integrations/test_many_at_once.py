"""Two hundred calls at once, from threads and in one event loop: none is lost, and a hard budget holds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tierwise
from tests.gateway.conftest import settings_for
from tests.integrations.conftest import QUICK
from tierwise.core.decisions import CallStatus
from tierwise.core.settings import Settings
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import BudgetPeriod, Budgets, BudgetScope, BudgetStanding
from tierwise.ledger.care import verify
from tierwise.testing import RecordedRequest, StandInReply, StandInUpstream

CALLS = 200
AUTO = "claude-tierwise-auto"
USAGE = {"input_tokens": 100, "output_tokens": 10}


@dataclass
class Many:
    """A stand-in that answers each with its own words, a configuration, and the ledger."""

    upstream: StandInUpstream
    settings: Settings

    def checked(self, answers: list[str]) -> None:
        """Each had its own answer, and is in the ledger once, answered, at its exact cost."""
        assert answers == [f"answer {number}" for number in range(CALLS)]
        with Ledger(self.settings.ledger.path) as ledger:
            found = list(ledger.calls())
            assert verify(ledger) == []
        assert Counter((stored.call.status, len(stored.attempts)) for stored in found) == {
            (CallStatus.ANSWERED, 1): CALLS
        }
        assert len({stored.call.call_id for stored in found}) == CALLS
        costs = {stored.attempts[0].cost_nanousd for stored in found}
        assert len(costs) == 1
        assert 0 not in costs
        assert len(self.upstream.calls()) == CALLS

    def standing(self) -> BudgetStanding:
        """What of the only budget is used."""
        with Ledger(self.settings.ledger.path) as ledger:
            (found,) = Budgets(ledger).standings(0)
        return found


def prompt(number: int) -> str:
    """A prompt that is told from the others."""
    return f"Summarise ticket <{number}> in one line: the printer burns"


def echo(request: RecordedRequest) -> StandInReply:
    """An answer that says whose it is."""
    number = request.body.partition(b"<")[2].partition(b">")[0].decode()
    return StandInReply.of_text(f"answer {number}", usage=USAGE)


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Many]:
    with StandInUpstream(handler=echo) as upstream:
        yield Many(upstream, settings_for(upstream, tmp_path, QUICK, ANTHROPIC_API_KEY="sk-ant-own"))


def anthropic_call(many: Many) -> Callable[[int], str]:
    """Calls of a wrapped client."""
    anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")
    client = anthropic.Anthropic(base_url=many.upstream.url, api_key="sk-ant-x", max_retries=0)
    claude = tierwise.wrap(client, settings=many.settings)

    def call(number: int) -> str:
        asked: Any = [{"role": "user", "content": prompt(number)}]
        return str(claude.messages.create(model=AUTO, max_tokens=50, messages=asked).content[0].text)

    return call


def test_threads_of_a_wrapped_client(many: Many) -> None:
    """One client in many threads."""
    with ThreadPoolExecutor(40) as pool:
        many.checked(list(pool.map(anthropic_call(many), range(CALLS))))


async def test_tasks_of_a_wrapped_client(many: Many) -> None:
    """One asynchronous client, streaming, in many tasks of one loop."""
    anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")
    client = anthropic.AsyncAnthropic(base_url=many.upstream.url, api_key="sk-ant-x", max_retries=0)
    async with tierwise.wrap(client, settings=many.settings) as claude:

        async def call(number: int) -> str:
            asked: Any = [{"role": "user", "content": prompt(number)}]
            async with claude.messages.stream(model=AUTO, max_tokens=50, messages=asked) as stream:
                return str(await stream.get_final_text())

        answers = await asyncio.gather(*map(call, range(CALLS)))
    many.checked(answers)


def test_threads_of_a_chat_model(many: Many) -> None:
    """LangChain's own batch, which runs it in threads."""
    pytest.importorskip("langchain_core", reason="not installed: pip install -r requirements/dev.txt")
    from tierwise.integrations.langchain import ChatTierwise

    model = ChatTierwise(settings=many.settings, max_tokens=50)
    answers = model.batch([prompt(number) for number in range(CALLS)], config={"max_concurrency": 40})
    many.checked([str(answer.content) for answer in answers])


async def test_tasks_of_a_chat_model(many: Many) -> None:
    """LangChain's own asynchronous batch."""
    pytest.importorskip("langchain_core", reason="not installed: pip install -r requirements/dev.txt")
    from tierwise.integrations.langchain import ChatTierwise

    model = ChatTierwise(settings=many.settings, max_tokens=50)
    answers = await model.abatch([prompt(number) for number in range(CALLS)])
    many.checked([str(answer.content) for answer in answers])


def test_hard_budget_holds(many: Many) -> None:
    """However many ask at once, what is spent stays within a hard budget; who is refused is told so."""
    anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")
    limit_nanousd = 2_000_000
    with Ledger(many.settings.ledger.path) as ledger:
        Budgets(ledger).set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, limit_nanousd, 0)
    call = anthropic_call(many)

    def status(number: int) -> int:
        try:
            call(number)
        except anthropic.APIStatusError as refused:
            return int(refused.status_code)
        return 200

    with ThreadPoolExecutor(40) as pool:
        found = Counter(pool.map(status, range(CALLS)))
    assert set(found) == {200, 402}
    assert found[200] == len(many.upstream.calls())
    _settled(many, limit_nanousd)


def _settled(many: Many, limit_nanousd: int) -> None:
    """Nothing stays reserved, and what was spent is what the attempts cost."""
    with Ledger(many.settings.ledger.path) as ledger:
        spent = sum(attempt.cost_nanousd or 0 for stored in ledger.calls() for attempt in stored.attempts)
    ends = time.monotonic() + 60
    while (standing := many.standing()).reserved_nanousd:  # settled by a thread of its own
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert (standing.spent_nanousd, standing.reserved_nanousd) == (spent, 0)
    assert 0 < spent <= limit_nanousd
