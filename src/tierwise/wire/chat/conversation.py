"""The messages of a chat/completions request as the system's text and the turns of a Messages one."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable

from tierwise.core.json import Json, JsonObject
from tierwise.wire.chat.errors import ChatError

__all__ = ["Conversation", "object_at", "plain", "string_at"]

_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")  # the Messages API refuses a tool call id with anything else
_PDF = "JVBERi"  # `%PDF-` in base64


class Conversation:
    """Reads messages one by one. `note` is told, in words, what gets lost.

    System and developer messages all go to `system`: a turn of that role within the conversation is refused by most
    models. The results of tools, and what the user says next, are one turn: some servers insist that roles alternate.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.system: list[JsonObject] = []
        self.turns: list[Json] = []
        self._note = note
        self._results: list[Json] | None = None  # the content of a turn of tool results that may go on

    def read(self, messages: Json) -> None:
        """All of them.

        Raises:
            ChatError: they are malformed, or hold what Messages cannot.
        """
        if not isinstance(messages, list) or not messages:
            raise ChatError(
                "messages is missing: give at least one message", param="messages", code="missing_required_parameter"
            )
        for place, message in enumerate(messages):
            where = f"messages[{place}]"
            self._read(object_at(message, where), where)
        if self.turns:
            return
        if not self.system:
            raise ChatError("messages are all empty: say something", param="messages")
        self._note("the system message sent as the user's: Messages demands one of the user")
        self.turns = [{"role": "user", "content": plain(self.system)}]
        self.system = []

    def _read(self, message: JsonObject, where: str) -> None:
        if message.get("name") is not None:
            self._note("names of messages left out: Messages has nothing like them")
        match message.get("role"):
            case "system" | "developer":
                if self.turns:
                    self._note("system messages within the conversation moved to its beginning")
                self.system.extend(self._system(message, where))
            case "user":
                blocks = self._parts(message.get("content"), f"{where}.content")
                if self._results is not None and blocks:
                    self._results.extend(blocks)
                else:
                    self._turn("user", blocks, where)
                self._results = None
            case "assistant":
                self._turn("assistant", self._assistant(message, where), where)
                self._results = None
            case "tool":
                if self._results is None:
                    self._results = []
                    self.turns.append({"role": "user", "content": self._results})
                self._results.append(self._result(message, where))
            case role:
                raise ChatError(
                    f"{where}.role is system, developer, user, assistant or tool, not {role!r}", param=f"{where}.role"
                )

    def _turn(self, role: str, blocks: list[JsonObject], where: str) -> None:
        if blocks:
            self.turns.append({"role": role, "content": plain(blocks)})
        else:
            self._note(f"{where} left out: it is empty")

    def _system(self, message: JsonObject, where: str) -> list[JsonObject]:
        blocks = self._parts(message.get("content"), f"{where}.content")
        if any(block["type"] != "text" for block in blocks):
            raise ChatError(f"{where}: a system message holds text only", param=f"{where}.content")
        return blocks

    def _assistant(self, message: JsonObject, where: str) -> list[JsonObject]:
        for name in ("audio", "function_call"):
            if message.get(name) is not None:
                raise ChatError(
                    f"{where}.{name} is not supported: send text and tool_calls",
                    param=f"{where}.{name}",
                    code="unsupported_parameter",
                )
        if message.get("reasoning_content") is not None:
            self._note("reasoning of earlier answers left out: Messages takes its own, signed, or none")
        blocks = self._parts(message.get("content"), f"{where}.content")
        if message.get("refusal") is not None:
            blocks.extend(self._parts(message["refusal"], f"{where}.refusal"))
        calls = message.get("tool_calls")
        if calls is not None:
            if not isinstance(calls, list):
                raise ChatError(f"{where}.tool_calls is a list", param=f"{where}.tool_calls", code="invalid_type")
            blocks.extend(self._call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls))
        return blocks

    def _call(self, call: Json, where: str) -> JsonObject:
        held = object_at(call, where)
        function = held.get("function")
        if held.get("type", "function") != "function" or not isinstance(function, dict):
            raise ChatError(f"{where} is not the call of a function", param=where, code="unsupported_value")
        return {
            "type": "tool_use",
            "id": _tool_id(held.get("id"), f"{where}.id"),
            "name": string_at(function.get("name"), f"{where}.function.name"),
            "input": self._arguments(function.get("arguments"), where),
        }

    def _arguments(self, arguments: Json, where: str) -> JsonObject:
        if not isinstance(arguments, str):
            raise ChatError(f"{where}.function.arguments is JSON in a string", param=f"{where}.function.arguments")
        try:
            value = json.loads(arguments, parse_constant=_refuse_constant) if arguments.strip() else {}
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        # A model once wrote it, and the history must still be told: OpenAI takes any string here.
        self._note(f"the arguments of {where} are no JSON object: sent as text")
        return {"arguments": arguments}

    def _result(self, message: JsonObject, where: str) -> JsonObject:
        result: JsonObject = {
            "type": "tool_result",
            "tool_use_id": _tool_id(message.get("tool_call_id"), f"{where}.tool_call_id"),
        }
        blocks = self._parts(message.get("content"), f"{where}.content")
        if blocks:
            result["content"] = plain(blocks)
        return result

    def _parts(self, content: Json, where: str) -> list[JsonObject]:
        match content:
            case None:
                return []
            case str():
                # Messages refuses a text of nothing; clients send them beside tool calls
                return [{"type": "text", "text": content}] if content.strip() else []
            case list():
                parts = (self._part(part, f"{where}[{place}]") for place, part in enumerate(content))
                return [block for block in parts if block["type"] != "text" or str(block["text"]).strip()]
            case _:
                raise ChatError(f"{where} is a string or a list of parts", param=where, code="invalid_type")

    def _part(self, part: Json, where: str) -> JsonObject:
        held = object_at(part, where)
        kind = held.get("type")
        block: JsonObject
        match kind:
            case "text" | "refusal":
                text = held.get(kind)
                if not isinstance(text, str):
                    raise ChatError(f"{where}.{kind} is a string", param=where, code="invalid_type")
                block = {"type": "text", "text": text}
            case "image_url":
                block = self._image(held.get("image_url"), where)
            case "file":
                block = _file(held.get("file"), where)
            case "input_audio":
                raise ChatError(f"{where}: these models take no audio", param=where, code="unsupported_value")
            case _:
                raise ChatError(f"{where}.type is text, image_url or file, not {kind!r}", param=f"{where}.type")
        if "cache_control" in held:  # what clients of this dialect send where Claude is behind it
            block["cache_control"] = held["cache_control"]
        if "prompt_cache_breakpoint" in held:
            self._note("prompt_cache_breakpoint left out: use cache_control, which is passed on")
        return block

    def _image(self, image: Json, where: str) -> JsonObject:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str):
            raise ChatError(f"{where}.image_url.url is a URL", param=where, code="invalid_type")
        if image.get("detail") not in (None, "auto", "high", "original"):
            self._note("the detail of images left out: Messages sees them whole")
        if url[:8].lower().startswith(("http://", "https://")):
            return {"type": "image", "source": {"type": "url", "url": url}}
        media_type, data = _data_url(url, f"{where}.image_url.url")
        if media_type == "image/jpg":
            media_type = "image/jpeg"
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def object_at(value: Json, where: str) -> JsonObject:
    """An object that must be there.

    Raises:
        ChatError: it is something else.
    """
    if not isinstance(value, dict):
        raise ChatError(f"{where} is an object", param=where, code="invalid_type")
    return value


def string_at(value: Json, where: str) -> str:
    """A string that must be there.

    Raises:
        ChatError: it is missing or empty.
    """
    if not isinstance(value, str) or not value:
        raise ChatError(f"{where} is missing: give a string", param=where, code="missing_required_parameter")
    return value


def _tool_id(value: Json, where: str) -> str:
    """The id, its odd characters written as numbers: call and result still meet, and two odd ids stay two."""
    return _NOT_IN_AN_ID.sub(lambda match: f"_{ord(match[0]):x}_", string_at(value, where))


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def plain(blocks: list[JsonObject]) -> Json:
    """A string where that says it all: what every server understands."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return blocks[0]["text"]
    return list(blocks)


def _data_url(url: str, where: str) -> tuple[str, str]:
    head, _, data = url.partition(",")
    words = head[:100].lower()
    if not words.startswith("data:") or not words.endswith(";base64"):
        raise ChatError(f"{where} is neither an http(s) URL nor data in base64", param=where)
    return words.removeprefix("data:").partition(";")[0], data


def _file(file: Json, where: str) -> JsonObject:
    held = object_at(file, f"{where}.file")
    data = held.get("file_data")
    if not isinstance(data, str):
        raise ChatError(
            f"{where}.file: a file uploaded to OpenAI cannot be read from here; send it as file_data",
            param=f"{where}.file",
            code="unsupported_value",
        )
    media_type, data = (
        ("application/pdf", data) if data.startswith(_PDF) else _data_url(data, f"{where}.file.file_data")
    )
    document: JsonObject
    if media_type == "application/pdf":
        document = {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
    elif media_type.startswith("text/"):
        try:
            text = binascii.a2b_base64(data).decode("utf-8")
        except ValueError:
            raise ChatError(f"{where}.file.file_data is not UTF-8 text in base64", param=where) from None
        document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    else:
        raise ChatError(
            f"{where}.file: PDF and text can be read, {media_type} cannot", param=where, code="unsupported_value"
        )
    name = held.get("filename")
    if isinstance(name, str) and name:
        document["title"] = name
    return document
