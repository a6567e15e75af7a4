"""The real OpenAI SDK through the translation: what it sends is understood, what it gets it can read.

The SDK talks over HTTP to a bare server of this file, which translates, asks the stand-in for Anthropic's API (it
refuses what the API refuses) and translates back.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, TypeAdapter

from tierwise.testing import Fault, StandInReply, StandInUpstream
from tierwise.wire.chat import ChatChunks, ChatError, completion, error_body, messages_request
from tierwise.wire.sse import SseParser

openai = pytest.importorskip("openai", reason="the OpenAI SDK is not installed: pip install -r requirements/dev.txt")
anthropic_types = pytest.importorskip(
    "anthropic.types.message_create_params",
    reason="the Anthropic SDK is not installed: pip install -r requirements/dev.txt",
)

MODEL = "claude-haiku-4-5"
HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Translator(BaseHTTPRequestHandler):
    """One endpoint: chat/completions in front of the upstream's Messages."""

    upstream: ClassVar[StandInUpstream]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        about: Any = {"model": body.get("model"), "created": 1_795_000_000, "id": "chatcmpl-1"}
        try:
            request, _ = messages_request(body)
            with urllib.request.urlopen(self._asking(request)) as reply:  # noqa: S310 - http to the stand-in
                data = reply.read()
        except ChatError as refusal:
            self._answer(refusal.status, json.dumps(refusal.body).encode())
        except urllib.error.HTTPError as failure:
            error = json.loads(failure.read())["error"]
            said = error_body(failure.code, error["type"], error["message"])
            self._answer(failure.code, json.dumps(said).encode())
        else:
            if not request.get("stream"):
                self._answer(200, json.dumps(completion(json.loads(data), **about)).encode())
                return
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            stream = ChatChunks(**about, include_usage=usage)
            chunks = [stream.feed(json.loads(event.data)) for event in SseParser().feed(data)]
            self._answer(200, b"".join([*chunks, stream.end()]), "text/event-stream")

    def _asking(self, request: Any) -> urllib.request.Request:
        headers = {"content-type": "application/json", "x-api-key": "k", "anthropic-version": "2023-06-01"}
        return urllib.request.Request(  # noqa: S310 - http to the stand-in
            f"{self.upstream.url}/v1/messages", json.dumps(request).encode(), headers
        )

    def _answer(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    with StandInUpstream() as running:
        yield running


@pytest.fixture
def url(upstream: StandInUpstream) -> Iterator[str]:
    handler = type("Handler", (Translator,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as running:
        yield running


def sent(upstream: StandInUpstream) -> Any:
    """The last request that reached the upstream; Anthropic's own SDK must know its shape."""
    body = upstream.calls()[-1].json
    TypeAdapter(anthropic_types.MessageCreateParams).validate_python(body)
    return body


def test_an_answer_is_read_by_the_sdk(client: Any, upstream: StandInUpstream) -> None:
    """Text, finish reason and usage arrive in the SDK's own types."""
    upstream.reply("Hello", thinking="hm", usage={"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5})
    reply = client.chat.completions.create(model=MODEL, messages=HI, max_completion_tokens=50, user="u")
    assert reply.model_dump(exclude_unset=True)["object"] == "chat.completion"
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Hello", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (7, 5, 12)
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    assert sent(upstream)["metadata"] == {"user_id": "u"}


def test_a_tool_round_trip(client: Any, upstream: StandInUpstream) -> None:
    """The SDK's own message goes back into the history, and the result finds its call."""
    upstream.reply_tool("weather", {"city": "Köln"})
    tools = [WEATHER]
    first = client.chat.completions.create(model=MODEL, messages=HI, tools=tools, tool_choice="required")
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Köln"}
    assert sent(upstream)["tool_choice"] == {"type": "any"}
    upstream.reply("Rain.")
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    second = client.chat.completions.create(model=MODEL, messages=[*HI, message, result], tools=tools)
    assert second.choices[0].message.content == "Rain."
    _, called, resulted = sent(upstream)["messages"]
    assert called["content"][0]["id"] == resulted["content"][0]["tool_use_id"] == message.tool_calls[0].id


def test_the_streaming_helper_folds_the_chunks(client: Any, upstream: StandInUpstream) -> None:
    """The SDK's own state over our chunks ends in the message that was said, with usage."""
    upstream.reply(
        StandInReply(
            content=(
                {"type": "text", "text": "Grüße, and enough to come in several pieces \u2028 😀."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Ulm"}},
            ),
            stop_reason="tool_use",
        )
    )
    with client.chat.completions.stream(
        model=MODEL, messages=HI, tools=[WEATHER], stream_options={"include_usage": True}
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "tool_calls.function.arguments.done"} <= kinds
    message = final.choices[0].message
    assert message.content == "Grüße, and enough to come in several pieces \u2028 😀."
    assert [each.id for each in message.tool_calls] == ["toolu_1", "toolu_2"]
    assert [each.function.parsed_arguments for each in message.tool_calls] == [{"city": "Köln"}, {"city": "Ulm"}]
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage.total_tokens > 0


async def test_the_async_client_streams(url: str, upstream: StandInUpstream) -> None:
    """The asynchronous client reads the same stream, and without asking gets no usage."""
    upstream.reply("Hello, this is long enough for a few pieces.")
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == (
        "Hello, this is long enough for a few pieces."
    )
    assert all(chunk.usage is None for chunk in chunks)


class Answer(BaseModel):
    """What structured output is parsed into."""

    label: str
    sure: bool


def test_structured_output_is_parsed(client: Any, upstream: StandInUpstream) -> None:
    """A pydantic model goes up as a schema and comes back as an object, whole and streamed."""
    upstream.reply_json({"label": "a", "sure": True}, times=2)
    reply = client.chat.completions.parse(model=MODEL, messages=HI, response_format=Answer)
    assert reply.choices[0].message.parsed == Answer(label="a", sure=True)
    asked = sent(upstream)["output_config"]["format"]
    assert (asked["type"], set(asked["schema"]["required"])) == ("json_schema", {"label", "sure"})
    with client.chat.completions.stream(model=MODEL, messages=HI, response_format=Answer) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Answer(label="a", sure=True)


def test_images_and_files_pass(client: Any, upstream: StandInUpstream) -> None:
    """The SDK's image and file parts are blocks that Anthropic's SDK knows."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
    ]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert [block["type"] for block in sent(upstream)["messages"][0]["content"]] == ["text", "image", "document"]


def test_a_refusal_and_a_cut_are_what_the_sdk_knows(client: Any, upstream: StandInUpstream) -> None:
    """The SDK's own errors for the content filter and the length limit are raised."""
    text = ({"type": "text", "text": '{"label"'},)
    upstream.reply(StandInReply(content=text, stop_reason="refusal"))
    with pytest.raises(openai.ContentFilterFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=HI, response_format=Answer)
    upstream.reply(StandInReply(content=text, stop_reason="max_tokens"))
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=HI, response_format=Answer)


def test_our_refusals_are_the_sdks_errors(client: Any) -> None:
    """What cannot be translated is a `BadRequestError` with parameter and code."""
    with pytest.raises(openai.BadRequestError, match="n is not supported") as failure:
        client.chat.completions.create(model=MODEL, messages=HI, n=2)
    assert (failure.value.param, failure.value.code) == ("n", "unsupported_parameter")


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [
        (400, "BadRequestError", None),
        (401, "AuthenticationError", "invalid_api_key"),
        (403, "PermissionDeniedError", "permission_denied"),
        (404, "NotFoundError", "model_not_found"),
        (429, "RateLimitError", "rate_limit_exceeded"),
        (500, "InternalServerError", None),
        (529, "InternalServerError", "server_is_overloaded"),
    ],
)
def test_upstream_errors_are_the_sdks_errors(
    client: Any, upstream: StandInUpstream, status: int, name: str, code: str | None
) -> None:
    """Every status of the upstream raises the exception that an OpenAI user catches, with a code to tell it by."""
    upstream.fail(Fault.status(status))
    with pytest.raises(getattr(openai, name)) as failure:
        client.chat.completions.create(model=MODEL, messages=HI)
    assert failure.value.code == code


def test_an_error_in_mid_stream_raises(client: Any, upstream: StandInUpstream) -> None:
    """The SDK raises on the error chunk; it never takes what came before for the whole answer."""
    upstream.fail(Fault.error_event(after_events=4))
    with pytest.raises(openai.APIError, match="stand-in"):
        list(client.chat.completions.create(model=MODEL, messages=HI, stream=True))


def test_a_cut_stream_raises(client: Any, upstream: StandInUpstream) -> None:
    """A stream that the upstream left unfinished is an error to the SDK too."""
    upstream.fail(Fault.cut(after_events=4, clean=True))
    with pytest.raises(openai.APIError, match="cut before"):
        list(client.chat.completions.create(model=MODEL, messages=HI, stream=True))
