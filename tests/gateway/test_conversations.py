"""Which conversation a request belongs to, what kind of call it is, what is in it, and what is remembered of it.

The requests have the shape of those that Claude Code 2.1.330 sent to a local server; the words are ours.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.core.calls import CallKind
from tierwise.core.money import Usage
from tierwise.gateway.conversations import (
    ConversationKey,
    Conversations,
    KeySource,
    contents_of,
    history_of,
    identify,
    kind_of,
    last_ask,
)
from tierwise.policy.switching import Turn, Warmth

SESSION = "51941e9e-3ade-43e9-847f-a21ec5e162a4"
CLI = {"user-agent": "claude-cli/2.1.330 (external, sdk-cli)", "x-app": "cli", "x-claude-code-session-id": SESSION}
AGENT = {**CLI, "x-claude-code-agent-id": "a761effd07dd901b2"}
CACHED = {"cache_control": {"type": "ephemeral"}}
BASH = {"name": "Bash", "input_schema": {"type": "object"}}
COMPACTED = "This session is being continued from a previous conversation that ran out of context. Summary: stories."
REMINDER = "<system-reminder>\nMind the attribution.\n</system-reminder>\n"


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


COMMAND = [
    text("<local-command-caveat>The command below was run directly</local-command-caveat>"),
    text("<command-name>/compact</command-name>\n<command-args></command-args>"),
    text("<local-command-stdout>Compacted</local-command-stdout>"),
]


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def result(content: Any = "ok") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


def called(name: str = "Bash") -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}]}


def request(*messages: Any, billing: str = "cc_version=2.1.330.572;", **fields: Any) -> dict[str, Any]:
    """What the CLI sends: a billing block, two cached system blocks, tools, and the environment as a system turn."""
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 128_000,
        "stream": True,
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": SESSION})},
        "system": [
            text(f"x-anthropic-billing-header: {billing}"),
            text("You are an agent.", **CACHED),
            text("Help the user.", **CACHED),
        ],
        "tools": [BASH],
        "messages": list(messages)
        or [user(text(REMINDER), text("Say hello")), {"role": "system", "content": "# Environment"}],
        **fields,
    }


# ------------------------------------------------------------------ which conversation


def test_claude_code_tells_by_its_headers() -> None:
    """Session and agent id make the conversation: a subagent's is its own, in the same session."""
    main, sub = identify(CLI, request()), identify(AGENT, request())
    assert (main.source, main.session, main.agent) == (KeySource.HEADERS, SESSION, None)
    assert (sub.session, sub.agent) == (SESSION, "a761effd07dd901b2")
    assert main.id != sub.id


def test_without_headers_the_session_in_metadata_counts() -> None:
    """Main agent and subagents share a session there: what each was told first tells them apart."""
    main, sub = identify({}, request()), identify({}, request(user(text("Find the readme"))))
    assert main.source is sub.source is KeySource.METADATA
    assert main.session == sub.session == SESSION
    assert main.id != sub.id


@pytest.mark.parametrize("user_id", ["u-1", "{", '{"session_id": 7}', "{}", 7, None, '{"a":' * 10_000])
def test_metadata_that_names_no_session_is_passed_over(user_id: Any) -> None:
    """Any other user id leaves the stable prefix to tell the conversation."""
    assert identify({}, request(metadata={"user_id": user_id})).source is KeySource.PREFIX


@pytest.mark.parametrize(
    "change",
    [
        {"system": [text("You are an agent."), text("Help them.")]},
        {"tools": [BASH, {"name": "Edit"}]},
        {"messages": [user(text("Say goodbye"))]},
        {"messages": [user(text("Say hello"), {"type": "image", "source": {"type": "url", "url": "x"}})]},
    ],
)
def test_another_prefix_is_another_conversation(change: dict[str, Any]) -> None:
    """System prompt, tools and the first user turn tell conversations apart."""
    assert identify({}, request(metadata=None)).id != identify({}, request(metadata=None, **change)).id


def test_an_endless_id_is_kept_short() -> None:
    """A client cannot fill the memory with its ids."""
    long = {"x-claude-code-session-id": "s" * 100_000, "x-claude-code-agent-id": "a" * 100_000}
    assert len(identify(long, {}).id) < 100
    assert identify(long, {}).id != identify({**long, "x-claude-code-session-id": "t" * 100_000}, {}).id


words = st.text(min_size=1, max_size=20).filter(lambda said: said.strip())
answers = st.builds(lambda said: {"role": "assistant", "content": [text(said)]}, words)
thoughts = st.builds(
    lambda said: {"role": "assistant", "content": [{"type": "thinking", "thinking": said, "signature": "s"}]}, words
)
asks = st.builds(lambda said: user(text(said)), words) | st.builds(
    lambda said: {"role": "user", "content": said}, words
)
looks = st.just(user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}))
notes = st.builds(lambda said: {"role": "system", "content": said}, words)
loops = st.just((called(), user(result())))
turns = st.one_of(answers, thoughts, asks, looks, notes).map(lambda message: (message,)) | loops
histories = st.lists(turns, max_size=8).map(lambda parts: [message for part in parts for message in part])


@settings(deadline=None)
@given(first=words, history=histories, billing=words, mark=st.integers(0, 8), reminded=words)
def test_a_conversation_stays_the_same_as_it_grows(
    first: str, history: list[Any], billing: str, mark: int, reminded: str
) -> None:
    """More turns, moved cache marks, another billing hash, another reminder: it is still the same conversation."""
    began = request(user(text(first)), metadata=None)
    marked = [
        {**message, "content": [{**block, **CACHED} for block in message["content"]]}
        if place == mark and isinstance(message["content"], list)
        else message
        for place, message in enumerate(history)
    ]
    block = text(f"<system-reminder>{reminded.replace('<', '')}</system-reminder>")
    later = request(user(block, text(first, **CACHED)), *marked, metadata=None, billing=billing)
    later["system"] = [
        {key: value for key, value in part.items() if key != "cache_control"} for part in later["system"]
    ]
    assert identify({}, began).id == identify({}, later).id


@settings(deadline=None)
@given(one=words, other=words)
def test_other_first_words_are_another_conversation(one: str, other: str) -> None:
    """Only what differs by blanks at its ends may be taken for the same."""
    ids = {identify({}, request(user(text(said)), metadata=None)).id for said in (one, other)}
    assert len(ids) == (1 if one.strip() == other.strip() else 2)


# ------------------------------------------------------------------ what kind of call

TITLE = {"output_config": {"format": {"type": "json_schema", "schema": {"properties": {"title": {"type": "string"}}}}}}
SUMMARIZE = "Write an <analysis> and then a <summary>. " + "What to put into it. " * 60


@pytest.mark.parametrize(
    ("headers", "body", "kind"),
    [
        (CLI, request(), CallKind.MAIN),
        (CLI, request(called(), user(result())), CallKind.MAIN),
        (CLI, request(tools=[]), CallKind.MAIN),  # claude --bare --tools ""
        (CLI, request(stream=False), CallKind.MAIN),  # the CLI asks again without a stream when one broke
        (AGENT, request(), CallKind.SUBAGENT),
        (CLI, request(billing="cc_version=2.1.330.aad; cc_is_subagent=true;"), CallKind.SUBAGENT),
        (CLI, request(tools=[], **TITLE), CallKind.TITLE),
        (CLI, request(user(text("Hi")), called(), {"role": "user", "content": SUMMARIZE}), CallKind.COMPACTION),
        (CLI, request(user(text(SUMMARIZE))), CallKind.MAIN),  # it is the first turn: there is nothing to summarize
        (CLI, request(tools=[], stream=False, model="claude-sonnet-5"), CallKind.SAFETY),
        (AGENT, request(stream=False, tool_choice={"type": "tool", "name": "Bash"}), CallKind.SAFETY),
        (CLI, request(user(text("Sum this page up")), tools=[], thinking=None), CallKind.SIDE),
        (CLI, request(user(text("Search")), tool_choice={"type": "any"}), CallKind.SIDE),
        ({}, request(tools=[], stream=False), CallKind.MAIN),  # another client, of which nothing is known
    ],
)
def test_a_call_is_known_by_its_shape(headers: dict[str, str], body: dict[str, Any], kind: CallKind) -> None:
    """Each kind of call that Claude Code makes is told from the others."""
    assert kind_of(headers, body) is kind


def test_counting_has_no_ceiling_of_tokens() -> None:
    """count_tokens takes the same body without max_tokens."""
    body = request()
    del body["max_tokens"]
    assert kind_of(CLI, body) is kind_of({}, body) is CallKind.COUNT


def test_only_turns_of_agents_converse_and_safety_never_moves() -> None:
    """Calls on the side leave the conversation's cache alone; the classifier of safety stays on its model."""
    assert [kind for kind in CallKind if kind.converses] == [CallKind.MAIN, CallKind.SUBAGENT, CallKind.COMPACTION]
    assert [kind for kind in CallKind if not kind.may_move] == [CallKind.SAFETY]


# ------------------------------------------------------------------ what is in it


@pytest.mark.parametrize(
    ("messages", "ask"),
    [
        ([user(text(REMINDER), text("Say hello")), {"role": "system", "content": "Be brief"}], "Say hello"),
        ([user(text("Fix it")), called(), user(result())], "Fix it"),
        ([user(text("Fix it")), called(), user(result(), text(REMINDER))], "Fix it"),
        ([user(text("Fix it")), called(), user(result(), text("Stop, do this first"))], "Stop, do this first"),
        ([{"role": "user", "content": f"{REMINDER}Now this{REMINDER}"}], "Now this"),
        ([user(text("One")), user(text("Two"), text("Three"))], "Two\n\nThree"),
        ([user(text("What is a <system-reminder> for?"))], "What is a <system-reminder> for?"),
        ([user(text("One")), {"role": "user", "content": REMINDER}], "One"),
        ([user({"type": "image", "source": {}})], ""),
        ([], ""),
        # As Claude Code 2.1.330 goes on after /compact; and where it goes on by itself.
        ([user(text(REMINDER), text(COMPACTED), *COMMAND, text("Translate it"))], "Translate it"),
        ([user(text(COMPACTED))], COMPACTED),
    ],
)
def test_the_last_ask_is_what_a_human_said(messages: list[Any], ask: str) -> None:
    """Results of tools, reminders, turns of role system and the client's notes are no asks."""
    assert last_ask({"messages": messages}) == ask


@settings(deadline=None)
@given(ask=words, loops=st.integers(0, 30))
def test_an_ask_is_found_behind_any_tool_loop(ask: str, loops: int) -> None:
    """However long the agent works, what it was asked is what the human said."""
    found = last_ask({"messages": [user(text(ask)), *[called(), user(result(), text(REMINDER))] * loops]})
    if "<system-reminder>" not in ask:
        assert found == ask.strip()


PICTURE = {"type": "image", "source": {"type": "base64", "data": "AA=="}}
PDF = {"type": "document", "source": {"type": "base64", "data": "AA=="}}


@pytest.mark.parametrize(
    ("body", "tools", "images", "thinking"),
    [
        ({"messages": [user(text("Hi"))]}, False, False, False),
        ({"messages": [user(text("Hi"))], "tools": [BASH]}, True, False, False),
        ({"messages": [user(text("Hi")), called(), user(result())]}, True, False, False),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]}, True, False, False),
        ({"messages": [user(PICTURE)]}, False, True, False),
        ({"messages": [user(PDF)]}, False, True, False),
        ({"messages": [user({"type": "document", "source": {"type": "text", "data": "x"}})]}, False, False, False),
        ({"messages": [called(), user(result([PICTURE]))]}, True, True, False),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]}, False, False, True),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking"}]}]}, False, False, True),
    ],
)
def test_what_a_history_carries_is_seen(body: dict[str, Any], tools: bool, images: bool, thinking: bool) -> None:
    """Tools offered or used, images wherever they stand, and thinking, each by itself and in one pass."""
    contents = contents_of(body)
    assert (contents.tools, contents.images, contents.thinking) == (tools, images, thinking)
    history = history_of(body, prompt_tokens=9, tokenizer_factor=Decimal("1.3"))
    assert (history.has_tools, history.has_images, history.has_thinking) == (tools, images, thinking)
    assert (history.prompt_tokens, history.tokenizer_factor, history.max_tokens) == (9, Decimal("1.3"), None)


def test_a_tool_loop_is_one_until_a_human_speaks() -> None:
    """A result in the last turn is in the loop, with a system turn behind it too; a reply after it is not."""

    def in_loop(*messages: Any) -> bool:
        return history_of({"messages": list(messages)}, prompt_tokens=0).in_tool_loop

    assert in_loop(called(), user(result()))
    assert in_loop(called(), user(result()), {"role": "system", "content": "Be brief"})
    assert not in_loop(called(), user(result()), user(text("Thanks")))
    assert not in_loop()


FIELDS = [
    "role",
    "content",
    "type",
    "text",
    "source",
    "messages",
    "system",
    "tools",
    "name",
    "tool_choice",
    "metadata",
    "user_id",
    "output_config",
    "format",
    "schema",
    "properties",
    "max_tokens",
    "thinking",
]
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["user", "text", "tool_result"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(messages=junk, system=junk, tools=junk, more=st.dictionaries(st.text(max_size=5), junk, max_size=3))
def test_no_request_is_too_strange_to_be_looked_at(messages: Any, system: Any, tools: Any, more: Any) -> None:
    """Whatever stands where a message should: it is passed over, and the upstream says what is wrong with it."""
    body = {**more, "messages": messages, "system": system, "tools": tools, "max_tokens": messages}
    for headers in ({}, CLI):
        assert identify(headers, body) == identify(headers, body)
        assert kind_of(headers, body) in CallKind
    history = history_of(body, prompt_tokens=1)
    contents = contents_of(body)
    assert (history.has_tools, history.has_images) == (contents.tools, contents.images)
    assert isinstance(last_ask(body), str)


# ------------------------------------------------------------------ what is known of them

KEY = ConversationKey("s/", "s", None, KeySource.HEADERS)
OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"


def key(name: str) -> ConversationKey:
    return ConversationKey(name, name, None, KeySource.PREFIX)


def test_a_conversation_is_unknown_until_it_was_answered() -> None:
    """What nobody noted is new."""
    known = Conversations()
    assert known.get(KEY) is None
    known.note(KEY, OPUS, Usage(10, 20), now=0.0)
    found = known.get(KEY)
    assert found is not None
    assert (found.model_id, found.turns, found.prompt_tokens) == (OPUS, 1, 10)


@pytest.mark.parametrize(
    ("usage", "ttl_seconds"),
    [
        (Usage(5, 1, cache_write_5m_tokens=1_000), 300),
        (Usage(5, 1, cache_write_1h_tokens=1_000), 3_600),
        (Usage(5, 1, cache_write_1h_tokens=900, cache_write_5m_tokens=100), 3_600),
        (Usage(5, 1, cache_write_1h_tokens=100, cache_write_5m_tokens=900), 300),
        (Usage(5, 1, cache_read_tokens=1_000), 300),  # by whom it was written, and for how long, was not seen
    ],
)
def test_warmth_is_what_was_read_and_written(usage: Usage, ttl_seconds: int) -> None:
    """Fresh input is not kept warm; the rest is, for as long as most of it was written for."""
    noted = Conversations().note(KEY, OPUS, usage, now=50.0)
    assert noted.warm == {OPUS: Warmth(OPUS, 1_000, ttl_seconds, 50.0 + ttl_seconds)}
    assert noted.cache_ttl_seconds == ttl_seconds


def test_a_read_begins_an_hours_cache_anew() -> None:
    """What was written for an hour stays an hour's cache while it is read, whatever little is written beside it."""
    known = Conversations()
    known.note(KEY, OPUS, Usage(0, 1, cache_write_1h_tokens=1_000), now=0.0)
    noted = known.note(KEY, OPUS, Usage(0, 1, cache_read_tokens=1_000, cache_write_5m_tokens=50), now=3_000.0)
    assert noted.warm[OPUS] == Warmth(OPUS, 1_050, 3_600, 6_600.0)


def test_a_request_without_cache_leaves_nothing_warm() -> None:
    """Where nothing was read or written the client marks nothing, and the next turn is weighed so."""
    noted = Conversations().note(KEY, OPUS, Usage(9_000, 10), now=0.0)
    assert noted.warm == {}
    assert noted.next_turn().cache_ttl_seconds is None


def test_what_is_warm_on_the_model_left_is_remembered_while_it_lasts() -> None:
    """After a move the old model's cache is still there, until its time is up."""
    known = Conversations()
    known.note(KEY, OPUS, Usage(0, 1, cache_write_5m_tokens=1_000), now=0.0)
    moved = known.note(KEY, HAIKU, Usage(0, 1, cache_write_5m_tokens=1_100), now=100.0)
    assert (moved.model_id, moved.warm.keys()) == (HAIKU, {OPUS, HAIKU})
    assert known.note(KEY, HAIKU, Usage(0, 1, cache_read_tokens=1_100), now=300.0).warm.keys() == {HAIKU}


def test_the_next_turn_is_expected_to_be_like_the_others() -> None:
    """Each turn brings 500 new tokens and a reply of 100: the next prompt has both more, and so has each after it."""
    known = Conversations()
    for prompt in (1_000, 1_600, 2_200):
        known.note(KEY, OPUS, Usage(0, 100, cache_write_5m_tokens=prompt), now=0.0)
    found = known.get(KEY)
    assert found is not None
    assert found.next_turn() == Turn(prompt_tokens=2_800, output_tokens=100, new_tokens=500, cache_ttl_seconds=300)


def test_a_compaction_is_no_turn_of_less_than_nothing() -> None:
    """A prompt that shrinks, or that another model counted, does not change what a turn is expected to bring."""
    known = Conversations()
    for model, prompt in ((OPUS, 1_000), (OPUS, 1_600), (OPUS, 300), (HAIKU, 90_000)):
        noted = known.note(KEY, model, Usage(prompt, 100), now=0.0)
        assert noted.usual_new_tokens == (0 if noted.turns == 1 else 500)


def test_the_longest_unused_is_forgotten_first() -> None:
    """Memory is bounded: beyond `most`, the conversation that was looked at least lately goes."""
    known = Conversations(most=2)
    for name in ("a", "b"):
        known.note(key(name), OPUS, Usage(1, 1), now=0.0)
    known.get(key("a"))
    known.note(key("c"), OPUS, Usage(1, 1), now=0.0)
    assert len(known) == 2
    assert [known.get(key(name)) is not None for name in "abc"] == [True, False, True]


def test_expected_turns_are_the_mean_of_what_came_after() -> None:
    """Of 90 conversations that ended with turn 3 and 90 that ended with 43: after 1, 22; after 10, 33."""
    known = Conversations()
    assert known.expected_turns(1) == known.expected_turns(500) == 8  # the assumption
    known.learn([3] * 90 + [43] * 90)
    assert known.expected_turns(1) == pytest.approx((90 * 2 + 90 * 42 + 80) / 190)
    assert known.expected_turns(10) == pytest.approx((90 * 33 + 80) / 100)
    assert known.expected_turns(44) == 8


@settings(deadline=None)
@given(counts=st.lists(st.integers(-5, 200), max_size=60), turns=st.integers(0, 250))
def test_expected_turns_agree_with_counting_one_by_one(counts: list[int], turns: int) -> None:
    """The sums that are kept give what a pass over all conversations gives; learning again replaces, never adds."""
    known = Conversations()
    known.learn([1_000])
    known.learn(iter(counts))
    after = [count - turns for count in counts if count >= turns and count > 0]
    assert known.expected_turns(turns) == pytest.approx((sum(after) + 80) / (len(after) + 10))


@settings(deadline=None)
@given(
    notes=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from([OPUS, HAIKU]),
            st.builds(Usage, *[st.integers(0, 10**6)] * 5),
            st.floats(0, 10**6),
        ),
        max_size=30,
    )
)
def test_notes_in_any_order_keep_sense(notes: list[tuple[str, str, Usage, float]]) -> None:
    """Whatever comes, clocks that jump too: never more conversations than allowed, never a turn of negative tokens."""
    known = Conversations(most=2)
    for name, model, usage, now in notes:
        noted = known.note(key(name), model, usage, now)
        assert len(known) <= 2
        assert known.get(key(name)) == noted
        assert noted.model_id == model
        turn = noted.next_turn()
        assert turn.prompt_tokens >= usage.prompt_tokens
        assert all(warm.read_tokens > 0 and warm.expires_at > now for warm in noted.warm.values())
