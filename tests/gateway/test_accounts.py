"""A provider with several keys: where requests go, and what a key that is refused means."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Serve, Served, settings_for
from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.settings import ProviderSettings, UpstreamKey
from tierwise.gateway.accounts import Accounts, Choice
from tierwise.gateway.admission import Admission, WouldWait
from tierwise.policy.ratelimits import Family, Limits
from tierwise.testing import Fault, StandInReply, StandInUpstream
from tierwise.testing.server import RecordedRequest

SECRETS = {"KEY_A": "sk-ant-aaaa-0001", "KEY_B": "sk-ant-bbbb-0002"}
TWO = '[providers.anthropic]\napi_key_envs = ["KEY_A", "KEY_B"]\n'
TOOL = {"name": "lookup", "description": "Looks up.", "input_schema": {"type": "object"}}
THOUGHT = [
    {"role": "user", "content": "Summarise the ticket: it burns"},
    {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "text", "text": "It burns."}],
    },
    {"role": "user", "content": "Shorter, please"},
]


def body(number: int = 0, **fields: Any) -> str:
    """A request of a conversation of its own."""
    asked = [{"role": "user", "content": f"Summarise ticket {number} in one line: it burns"}]
    return json.dumps({"model": "claude-sonnet-5-5", "max_tokens": 64, "messages": asked, **fields})


def name_of(request: RecordedRequest) -> str:
    """The variable of the key that a request came with."""
    (found,) = [name for name, secret in SECRETS.items() if secret == request.headers["x-api-key"]]
    return found


def names(upstream: StandInUpstream) -> list[str]:
    return [name_of(request) for request in upstream.calls()]


@pytest.fixture
def two(serve: Serve, upstream: StandInUpstream, tmp_path: Path) -> Callable[..., Served]:
    """Starts a gateway whose provider has two keys."""

    def start(toml: str = "", provider: str = "", **gateway: Any) -> Served:
        settings = settings_for(upstream, tmp_path, f"{TWO}{provider}\n{toml}", **SECRETS)
        return serve(upstream, settings=settings, **gateway)

    return start


def refuse(upstream: StandInUpstream, key: str, fault: Fault) -> None:
    """The provider refuses what comes with this key."""

    def handler(request: RecordedRequest) -> StandInReply | Fault | None:
        return fault if name_of(request) == key else None

    upstream.handler = handler


# Where requests go


def test_conversations_are_spread_over_keys(two: Callable[..., Served], upstream: StandInUpstream) -> None:
    """New ones go where less is used; the client's own key goes nowhere."""
    gateway = two()
    for number in range(8):
        assert gateway.post(body(number)).status_code == 200
    assert Counter(names(upstream)) == {"KEY_A": 4, "KEY_B": 4}


def test_more_goes_where_more_is_left() -> None:
    """By what the provider's headers say of each account; and where all is equal, to who has less to do."""
    now = asyncio.new_event_loop()
    admission = Admission(Limits(), now)
    first, second = Family("p#1", "sonnet"), Family("p#2", "sonnet")
    for family, left in ((first, "10"), (second, "900")):
        told = {"anthropic-ratelimit-requests-limit": "1000", "anthropic-ratelimit-requests-remaining": left}
        admission.learn(family, told)

    def go(preferred: Family | None = None) -> Family | None:
        ticket = admission.admit_now((first, second), input_tokens=1, output_tokens=1, preferred=preferred)
        return None if ticket is None else ticket.family

    assert [go() for _ in range(3)] == [second] * 3
    assert go(preferred=first) == first
    admission.learn(second, {"retry-after": "30"}, status=429)
    assert [go(), go(preferred=second)] == [first, first]
    admission.learn(first, {"retry-after": "20"}, status=429)
    assert go() is None
    now.close()


async def test_who_finds_no_room_anywhere_waits_where_it_comes_first() -> None:
    """And is told truly how long, where that is too long."""
    admission = Admission(Limits(), asyncio.get_running_loop())
    first, second = Family("p#1", "sonnet"), Family("p#2", "sonnet")
    admission.learn(first, {"retry-after": "30"}, status=429)
    admission.learn(second, {"retry-after": "0.05"}, status=429)
    ask = {"interactive": True, "input_tokens": 1, "output_tokens": 1}
    ticket = await admission.admit_any((first, second), "s", deadline_seconds=10.0, **ask)
    assert ticket.family == second
    admission.learn(second, {"retry-after": "20"}, status=429)
    with pytest.raises(WouldWait, match="sonnet at p#2") as refused:
        await admission.admit_any((first, second), "s", deadline_seconds=1.0, **ask)
    assert 19 < refused.value.retry_after_seconds <= 20


def test_ceilings_are_of_each_account(two: Callable[..., Served]) -> None:
    """Two a minute with two accounts are four."""
    limits = "[gateway.limits.sonnet]\nrequests_per_minute = 2"
    gateway = two(limits, rate_limit_wait_seconds=0.05)
    assert [gateway.post(body(number)).status_code for number in range(6)] == [200] * 4 + [429] * 2


def test_keys_of_one_account_share_its_limits(two: Callable[..., Served], upstream: StandInUpstream) -> None:
    """Two a minute with two keys of one account stay two, and both keys are used."""
    limits = "[gateway.limits.sonnet]\nrequests_per_minute = 2"
    gateway = two(limits, "one_account = true", rate_limit_wait_seconds=0.05)
    assert [gateway.post(body(number)).status_code for number in range(4)] == [200] * 2 + [429] * 2
    assert sorted(names(upstream)) == ["KEY_A", "KEY_B"]


@pytest.mark.parametrize("thinking", [True, False])
def test_a_conversation_with_thinking_stays_on_its_account(
    two: Callable[..., Served], upstream: StandInUpstream, thinking: bool
) -> None:
    """Another account could not read its blocks: it waits or is refused. Without any, it goes on elsewhere."""
    gateway = two(rate_limit_wait_seconds=0.05)
    session = {"x_claude_code_session_id": "conversation-1"}
    fields: dict[str, Any] = {"tools": [TOOL], "stream": True}
    assert gateway.post(body(**fields), **session).status_code == 200
    assert gateway.post(body(1)).status_code == 200  # now the other one has less to do
    turns: list[Any] = (
        THOUGHT if thinking else [*THOUGHT[:1], {"role": "assistant", "content": "It burns."}, THOUGHT[2]]
    )
    for _ in range(3):
        assert gateway.post(body(messages=turns, **fields), **session).status_code == 200
    (own,) = {name for at, name in enumerate(names(upstream)) if at != 1}
    refuse(upstream, own, Fault.rate_limited(retry_after=30))
    answered = [gateway.post(body(messages=turns, **fields), **session) for _ in range(2)]
    if thinking:
        assert [one.status_code for one in answered] == [429, 429]
        assert set(names(upstream)[5:]) == {own}
        assert len(names(upstream)) == 6  # the second was known to be refused
        assert int(answered[1].headers["retry-after"]) > 20
    else:
        assert [one.status_code for one in answered] == [200, 200]
        assert own not in names(upstream)[6:]


def test_thinking_that_nobody_knows_the_account_of_is_tried_with_each(
    two: Callable[..., Served], upstream: StandInUpstream
) -> None:
    """After a restart the account of a conversation is found by asking, and then known."""
    refuse(upstream, "KEY_A", Fault.status(400, "messages.1.content.0: thinking block is bound to a different account"))
    gateway = two()
    session = {"x_claude_code_session_id": "conversation-1"}
    fields: dict[str, Any] = {"tools": [TOOL], "stream": True}
    for _ in range(3):
        assert gateway.post(body(messages=THOUGHT, **fields), **session).status_code == 200
    assert names(upstream) == ["KEY_A", "KEY_B", "KEY_B", "KEY_B"]
    first, *_ = gateway.calls()
    assert [one.outcome for one in first.attempts] == [OutcomeKind.INVALID_REQUEST, OutcomeKind.ACCEPTED]


# Keys that are refused


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.status(401, f"invalid x-api-key {SECRETS['KEY_A']}"), OutcomeKind.UNAUTHORIZED),
        (Fault.rate_limited(retry_after=60), OutcomeKind.RATE_LIMITED),
    ],
)
def test_a_refused_key_is_left_alone_and_the_call_answered_with_another(
    two: Callable[..., Served],
    upstream: StandInUpstream,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    outcome: OutcomeKind,
) -> None:
    """The client notices nothing, the ledger has both attempts, and the key is not asked again meanwhile."""
    refuse(upstream, "KEY_A", fault)
    gateway = two()
    with caplog.at_level(logging.INFO):
        for number in range(4):
            assert gateway.post(body(number)).status_code == 200
    assert names(upstream) == ["KEY_A", "KEY_B", "KEY_B", "KEY_B", "KEY_B"]
    first, *_ = gateway.calls()
    assert [one.outcome for one in first.attempts] == [outcome, OutcomeKind.ACCEPTED]
    assert ("KEY_A" in caplog.text) is (outcome is OutcomeKind.UNAUTHORIZED)
    for secret in SECRETS.values():
        assert secret not in caplog.text
        assert secret.encode() not in gateway.ledger_path.read_bytes()


def test_when_all_keys_are_refused_the_providers_own_words_come_back(
    two: Callable[..., Served], upstream: StandInUpstream
) -> None:
    """Without the keys in them; and they are tried again, since nothing else is left."""
    upstream.fail(Fault.status(401, f"invalid: {' '.join(SECRETS.values())}"), times=None)
    gateway = two()
    for _ in range(2):
        answer = gateway.post(body())
        assert answer.status_code == 401
        assert "invalid: [key] [key]" in answer.text
    assert sorted(names(upstream)) == ["KEY_A", "KEY_A", "KEY_B", "KEY_B"]


# What is chosen


A1, A2, B = (UpstreamKey(name=name, account=name[0], secret=name) for name in ("a1", "a2", "b"))
PROVIDER = ProviderSettings(name="p", kind="anthropic", api_keys=(A1, A2, B))


def test_keys_of_an_account_take_turns_and_come_back() -> None:
    """One that was refused is left out for five minutes, the rest of its account is not."""
    now = 0.0
    accounts = Accounts(lambda: now)
    assert [accounts.key(PROVIDER, "a") for _ in range(4)] == [A1, A2, A1, A2]
    accounts.refused(PROVIDER, A1)
    assert [accounts.key(PROVIDER, "a") for _ in range(2)] == [A2, A2]
    assert accounts.any_key(PROVIDER) == A2
    now = 300.0
    assert accounts.key(PROVIDER, "a") == A1
    assert accounts.any_key(PROVIDER) == A1


def test_the_choice_follows_the_conversation() -> None:
    """Bound by thinking, drawn by its cache, free where it is new or its account is no more."""
    accounts = Accounts(lambda: 0.0)
    assert accounts.choice(PROVIDER, on=None, thinking=True) == Choice(("a", "b"))
    assert accounts.choice(PROVIDER, on="b", thinking=False) == Choice(("a", "b"), preferred="b")
    assert accounts.choice(PROVIDER, on="b", thinking=True) == Choice(("b",))
    assert accounts.choice(PROVIDER, on="b", thinking=True, tried={B}) is None
    assert accounts.choice(PROVIDER, on="a", thinking=True, tried={A1}) == Choice(("a",))
    assert accounts.choice(PROVIDER, on="gone", thinking=True) == Choice(("a", "b"))
    assert accounts.choice(PROVIDER, on=None, thinking=False, tried={A1, A2}) == Choice(("b",))
    accounts.refused(PROVIDER, B)
    assert accounts.choice(PROVIDER, on="b", thinking=False) == Choice(("a",))


# Configuration


def test_keys_are_named_and_never_shown(upstream: StandInUpstream, tmp_path: Path) -> None:
    """Those that are set are used, in their order, and no text that we make of them holds one."""
    settings = settings_for(upstream, tmp_path, TWO, KEY_B=SECRETS["KEY_B"])
    provider = settings.providers["anthropic"]
    assert [(key.name, key.account) for key in provider.api_keys] == [("KEY_B", "anthropic#2")]
    assert provider.api_key == SECRETS["KEY_B"]
    assert SECRETS["KEY_B"] not in repr(settings)
    unset = settings_for(upstream, tmp_path, TWO).providers["anthropic"]
    assert (unset.key_missing, unset.api_key_env, unset.api_keys) == (True, "KEY_A", ())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('["KEY_A", "KEY_A"]', "names a variable twice"),
        ('["sk-ant-secret"]', "give the name of an environment variable"),
        ("[]", "api_key_envs"),
    ],
)
def test_a_list_of_keys_that_cannot_be_is_refused(
    upstream: StandInUpstream, tmp_path: Path, given: str, words: str
) -> None:
    """With the key's place; a key that was put in by mistake is not shown."""
    with pytest.raises(ConfigError, match=words) as refused:
        settings_for(upstream, tmp_path, f"[providers.anthropic]\napi_key_envs = {given}")
    assert "sk-ant-secret" not in str(refused.value)
