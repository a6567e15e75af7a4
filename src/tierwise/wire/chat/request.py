"""A chat/completions request as a Messages one: its parameters and tools."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from tierwise.core.json import Json, JsonObject
from tierwise.wire.chat.conversation import Conversation, object_at, plain, string_at
from tierwise.wire.chat.errors import ChatError

__all__ = ["DEFAULT_MAX_TOKENS", "LEFT_OUT", "PASSED_ON", "REFUSED", "TRANSLATED", "messages_request"]

DEFAULT_MAX_TOKENS = 32_000
"""Where a request gives no limit. Messages demands one, chat/completions means "as much as the model gives"; this
leaves room for thinking, and every model since Claude 4.5 gives it. `adapt` lowers it for the others."""

# Parameters that would change what the answer is: the values that ask for nothing, and why others are refused.
REFUSED: Mapping[str, tuple[tuple[Json, ...], str]] = {
    "audio": ((), "only text is generated"),
    "function_call": (("none",), "it is deprecated: use `tool_choice`"),
    "functions": (([],), "it is deprecated: use `tools`"),
    "logprobs": ((False,), "token probabilities are not told by these models"),
    "modalities": ((["text"],), "only text is generated"),
    "moderation": ((), "there is no moderation model here: run it before the call"),
    "n": ((1,), "a request has one answer: send it again for another"),
    "top_logprobs": ((0,), "token probabilities are not told by these models"),
    "web_search_options": ((), "searching the web is not offered in this dialect: use `/v1/messages`"),
}
# Parameters without a counterpart that leave the answer what it is: the values that ask for nothing.
LEFT_OUT: Mapping[str, tuple[Json, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "metadata": ({},),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (),
    "seed": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
}
TRANSLATED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "stop",
        "stream",
        "stream_options",  # of the reply: `ChatChunks`
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)
PASSED_ON = ("cache_control", "thinking", "top_k")  # an OpenAI client's `extra_body`: Anthropic's own words pass
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_JSON_ONLY = "Reply with one JSON object and nothing else: no other text, no code fence."
_PERSONAL = re.compile(r"@|^\+?[0-9][0-9 ()./-]{6,}$")  # what its `user_id` is refused for: an address, a number


def messages_request(
    body: JsonObject, *, default_max_tokens: int = DEFAULT_MAX_TOKENS
) -> tuple[JsonObject, tuple[str, ...]]:
    """A chat/completions request as a Messages one, and a note in plain words for everything that was lost.

    `body` is not mutated. Whether the target model accepts the result is `adapt`'s concern.

    Raises:
        ChatError: it is malformed, or asks for what Messages cannot give.
    """
    translation = _Translation({key: value for key, value in body.items() if value is not None})
    return translation.run(default_max_tokens), tuple(translation.notes)


class _Translation:
    def __init__(self, given: JsonObject) -> None:
        self._given = given
        self.notes: list[str] = []

    def run(self, default_max_tokens: int) -> JsonObject:
        self._refuse()
        model = self._given.get("model")
        if not isinstance(model, str) or not model:
            raise ChatError("model is missing: name the model to use", param="model", code="missing_required_parameter")
        request: JsonObject = {"model": model, "max_tokens": self._limit(default_max_tokens)}
        conversation = Conversation(self._note)
        conversation.read(self._given.get("messages"))
        system = conversation.system
        if self._json_mode():
            system.append({"type": "text", "text": _JSON_ONLY})
            self._note("response_format json_object is asked for in words: Messages takes a schema or nothing")
        if system:
            request["system"] = plain(system)
        request["messages"] = conversation.turns
        self._tools(request)
        self._sampling(request)
        self._output(request)
        self._user(request)
        if self._flag("stream"):
            request["stream"] = True
        request.update({key: self._given[key] for key in PASSED_ON if key in self._given})
        self._leave_out()
        return request

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    # -- parameters ------------------------------------------------------------------------------------------

    def _refuse(self) -> None:
        for name, (harmless, why) in REFUSED.items():
            if name in self._given and self._given[name] not in harmless:
                raise ChatError(f"{name} is not supported: {why}", param=name, code="unsupported_parameter")

    def _leave_out(self) -> None:
        for name, value in self._given.items():
            if name in LEFT_OUT:
                if value not in LEFT_OUT[name]:
                    self._note(f"{name} left out: Messages has nothing like it")
            elif name not in TRANSLATED and name not in REFUSED and name not in PASSED_ON:
                self._note(f"{name} left out: it is not known here")

    def _limit(self, default: int) -> int:
        for name in ("max_completion_tokens", "max_tokens"):
            value = self._given.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ChatError(f"{name} is a whole number from 1 up", param=name)
            return value
        self._note(f"max_tokens {default} set: the request gives no limit, and Messages demands one")
        return default

    def _flag(self, name: str) -> bool | None:
        value = self._given.get(name)
        if value is not None and not isinstance(value, bool):
            raise ChatError(f"{name} is true or false", param=name, code="invalid_type")
        return value

    def _number(self, name: str, most: int) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
            raise ChatError(f"{name} is a number from 0 to {most}", param=name)
        return value

    def _sampling(self, request: JsonObject) -> None:
        temperature = self._number("temperature", 2)
        if temperature is not None:
            if temperature > 1:
                self._note(f"temperature lowered from {temperature} to 1, the most that Messages takes")
            request["temperature"] = min(temperature, 1)
        top_p = self._number("top_p", 1)
        if top_p is not None:
            request["top_p"] = top_p
        stop = self._given.get("stop")
        if stop is None:
            return
        sequences = [stop] if isinstance(stop, str) else stop
        if not isinstance(sequences, list) or not all(isinstance(each, str) for each in sequences):
            raise ChatError("stop is a string or a list of strings", param="stop", code="invalid_type")
        kept: list[Json] = [each for each in sequences if isinstance(each, str) and each.strip()]
        if len(kept) != len(sequences):
            self._note("stop sequences of white space left out: Messages takes none")
        if kept:
            request["stop_sequences"] = kept

    def _user(self, request: JsonObject) -> None:
        # `safety_identifier` is what OpenAI replaces `user` with: an opaque id of the end user, as `user_id` is.
        user = self._given.get("safety_identifier", self._given.get("user"))
        if user is None:
            return
        if not isinstance(user, str):
            raise ChatError("user is a string", param="user", code="invalid_type")
        if _PERSONAL.search(user):
            self._note("user sent as a hash: Messages refuses e-mail addresses and telephone numbers")
            user = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        if user:
            request["metadata"] = {"user_id": user}

    def _json_mode(self) -> bool:
        return self._format().get("type") == "json_object"

    def _format(self) -> JsonObject:
        asked = self._given.get("response_format", {"type": "text"})
        if not isinstance(asked, dict) or asked.get("type") not in ("text", "json_object", "json_schema"):
            raise ChatError("response_format.type is text, json_object or json_schema", param="response_format")
        return asked

    def _output(self, request: JsonObject) -> None:
        config: JsonObject = {}
        effort = self._given.get("reasoning_effort")
        match effort:
            case None:
                pass
            case "none":
                request["thinking"] = {"type": "disabled"}
            case "minimal":
                config["effort"] = "low"
                self._note("reasoning_effort minimal became low, the least there is")
            case str() if effort in _EFFORTS:
                config["effort"] = effort
            case _:
                raise ChatError(
                    "reasoning_effort is none, minimal, low, medium, high, xhigh or max", param="reasoning_effort"
                )
        asked = self._format()
        if asked["type"] == "json_schema":
            wanted = asked.get("json_schema")
            schema = wanted.get("schema") if isinstance(wanted, dict) else None
            if not isinstance(wanted, dict) or not isinstance(schema, dict):
                raise ChatError(
                    "response_format.json_schema.schema is missing: give the JSON schema of the answer",
                    param="response_format",
                    code="missing_required_parameter",
                )
            if isinstance(wanted.get("description"), str) and "description" not in schema:
                schema = {**schema, "description": wanted["description"]}
            config["format"] = {"type": "json_schema", "schema": schema}
        if config:
            request["output_config"] = config

    # -- tools -----------------------------------------------------------------------------------------------

    def _tools(self, request: JsonObject) -> None:
        given = self._given.get("tools", [])
        if not isinstance(given, list):
            raise ChatError("tools is a list", param="tools", code="invalid_type")
        tools = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(given)]
        choice = self._given.get("tool_choice")
        if not tools:
            if choice not in (None, "none", "auto"):
                raise ChatError("tool_choice needs tools to choose from", param="tool_choice")
            return
        allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
        if isinstance(allowed, dict):
            tools, choice = _allowed(tools, allowed), allowed.get("mode")
        request["tools"] = list(tools)
        wanted = _choice(choice)
        if self._flag("parallel_tool_calls") is False and wanted.get("type") != "none":
            wanted = {**({"type": "auto"} | wanted), "disable_parallel_tool_use": True}
        if wanted:
            request["tool_choice"] = wanted


def _tool(tool: Json, where: str) -> JsonObject:
    held = object_at(tool, where)
    function = held.get("function")
    if held.get("type", "function") != "function" or not isinstance(function, dict):
        raise ChatError(
            f"{where}: only tools of type function are supported", param=f"{where}.type", code="unsupported_value"
        )
    parameters = function.get("parameters")
    translated: JsonObject = {
        "name": string_at(function.get("name"), f"{where}.function.name"),
        "input_schema": parameters if parameters is not None else {"type": "object", "properties": {}},
    }
    if isinstance(function.get("description"), str):
        translated["description"] = function["description"]
    if function.get("strict") is True:
        translated["strict"] = True
    if "cache_control" in held:
        translated["cache_control"] = held["cache_control"]
    return translated


def _allowed(tools: list[JsonObject], allowed: JsonObject) -> list[JsonObject]:
    listed = allowed.get("tools")
    names = {_function_name(each) for each in listed} if isinstance(listed, list) else set()
    kept = [tool for tool in tools if tool["name"] in names]
    if not kept:
        raise ChatError("tool_choice.allowed_tools names none of the tools", param="tool_choice")
    return kept


def _function_name(value: Json) -> Json:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _choice(choice: Json) -> JsonObject:
    match choice:
        case None:
            return {}
        case "auto" | "none":
            return {"type": choice}
        case "required":
            return {"type": "any"}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "tool", "name": name}
        case _:
            raise ChatError("tool_choice is auto, none, required or one function of `tools`", param="tool_choice")
