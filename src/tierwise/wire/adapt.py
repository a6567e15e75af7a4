"""Changes a Messages request into what its target model accepts, and says in words what was changed.

Models differ in what they take, and a wrong parameter is a 400 (public documents of 2026-11-22). What decides here
are a model's `Capabilities`, never its name. Only what the target would refuse is touched: everything else travels
unchanged and in order, unknown fields too. What can no longer be said by a parameter is said by an instruction at
the very end of the conversation, because anything earlier would throw away the prompt cache and break the
signatures of thinking blocks.

Images and tool histories are left as they are: routing does not send them where they cannot be read.
"""

from __future__ import annotations

import json

from tierwise.core.catalog import Capabilities, Model, StructuredOutput, Thinking
from tierwise.core.json import Json, JsonObject

__all__ = ["adapt", "in_words", "with_instruction"]

# How much thinking an effort stands for, both ways. The API publishes no such table: these are the budgets that
# its guides used with the models before effort existed.
_EFFORT_UP_TO_BUDGET = (("low", 2_048), ("medium", 8_192), ("high", 24_576), ("xhigh", 49_152))
_BUDGET_OF_EFFORT = {"low": 1_024, "medium": 4_096, "high": 16_384, "xhigh": 32_768, "max": 49_153}
_LEAST_BUDGET = 1_024
_ADAPTED = frozenset({"tools", "tool_choice", "thinking", "temperature", "top_p", "top_k", "output_config"})
_USUAL_SAMPLING: dict[str, Json] = {"temperature": 1, "top_p": 1, "top_k": None}


def adapt(body: JsonObject, model: Model) -> tuple[JsonObject, tuple[str, ...]]:
    """The request as `model` accepts it, and a note in plain words for every change.

    `body` is not mutated; its own `model`, where there is one, says which model its thinking blocks are signed for.
    Fields of a type that the API does not know are left for the API to refuse.
    """
    adaptation = _Adaptation(body, model)
    adaptation.run()
    return adaptation.body, tuple(adaptation.notes)


class _Adaptation:
    def __init__(self, body: JsonObject, model: Model) -> None:
        self.body: JsonObject = dict(body)
        self.notes: list[str] = []
        self._model = model
        self._takes: Capabilities = model.capabilities
        self._from = body.get("model")
        self._instructions: list[str] = []

    def run(self) -> None:
        self.body["model"] = self._model.id
        self._limit()
        if self._model.effort is not None or not _ADAPTED.isdisjoint(self.body):
            self._tools()
            self._thinking()
            self._sampling()
            self._effort()
            self._format()
        self._thinking_blocks()
        self._prefill()
        self._instruct()

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def _set(self, key: str, value: Json) -> None:
        self.body[key] = value

    def _drop(self, key: str) -> None:
        del self.body[key]

    # -- parameters ------------------------------------------------------------------------------------------

    def _limit(self) -> None:
        most = self._model.max_output_tokens
        asked = self.body.get("max_tokens")
        if isinstance(asked, int) and asked > most:
            self._set("max_tokens", most)
            self._note(f"max_tokens lowered from {asked} to {most}, the most that {self._model.id} gives")

    def _tools(self) -> None:
        if not self._takes.tools and (self.body.get("tools") or "tool_choice" in self.body):
            for key in ("tools", "tool_choice"):
                self.body.pop(key, None)
            self._note(f"tools left out: {self._model.id} cannot call any")
            return
        choice = self.body.get("tool_choice")
        if self._takes.forced_tool_use or not isinstance(choice, dict) or choice.get("type") not in ("any", "tool"):
            return
        kept = {key: value for key, value in choice.items() if key not in ("type", "name")}
        self._set("tool_choice", {"type": "auto", **kept})
        if choice.get("type") == "tool":
            self._instructions.append(f"Answer by calling the tool `{choice.get('name')}`, and with nothing else.")
        else:
            self._instructions.append("Answer by calling one of the tools, and with nothing else.")
        self._note(f"tool use asked for in words: {self._model.id} cannot be forced to call a tool")

    def _thinking(self) -> None:
        thinking = self.body.get("thinking")
        if not isinstance(thinking, dict):
            return
        match self._takes.thinking:
            case Thinking.NONE:
                self._drop("thinking")
                if thinking.get("type") not in ("disabled", "between_tools"):
                    self._note(f"thinking left out: {self._model.id} has none")
                else:
                    self._note(f"the thinking parameter left out: {self._model.id} does not take it")
            case Thinking.EXTENDED:
                self._extended(thinking)
            case Thinking.ADAPTIVE:
                self._adaptive(thinking, off="disabled")
            case Thinking.ADAPTIVE_BETWEEN_TOOLS:
                self._adaptive(thinking, off="between_tools")
            case Thinking.ADAPTIVE_ALWAYS:
                self._adaptive(thinking, off=None)

    def _adaptive(self, thinking: JsonObject, *, off: str | None) -> None:
        match thinking.get("type"):
            case "enabled":
                rest = {key: value for key, value in thinking.items() if key not in ("type", "budget_tokens")}
                self._set("thinking", {"type": "adaptive", **rest})
                budget = thinking.get("budget_tokens")
                effort = self._effort_for(budget) if isinstance(budget, int) else None
                words = f"thinking is adaptive on {self._model.id}"
                if effort is not None and self._takes.effort and self._asked_effort() is None:
                    self._put_effort(effort)
                    words += f": a budget of {budget} tokens became effort {effort}"
                self._note(words)
            case "disabled" | "between_tools" as asked if asked != off:
                if off is None:
                    self._drop("thinking")
                    self._note(f"thinking cannot be turned off on {self._model.id}")
                else:
                    self._set("thinking", {"type": off})
                    self._note(f"thinking {asked} became {off}, as {self._model.id} calls it")

    def _extended(self, thinking: JsonObject) -> None:
        match thinking.get("type"):
            case "between_tools":
                self._set("thinking", {"type": "disabled"})
                self._note(f"thinking between_tools became disabled, as {self._model.id} calls it")
                return
            case "adaptive":
                effort = self._asked_effort() or "high"
                wanted = _BUDGET_OF_EFFORT.get(effort, _BUDGET_OF_EFFORT["high"])
            case "enabled":
                asked = thinking.get("budget_tokens")
                if not isinstance(asked, int):
                    return
                wanted = asked
            case _:
                return
        choice = self.body.get("tool_choice")
        if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
            self._drop("thinking")
            self._note(f"thinking left out: {self._model.id} cannot think when a tool is forced")
            return
        limit = self.body.get("max_tokens")
        budget = min(wanted, limit - 1) if isinstance(limit, int) else wanted
        if budget < _LEAST_BUDGET:
            self._drop("thinking")
            self._note(f"thinking left out: {self._model.id} needs a budget of {_LEAST_BUDGET} tokens below max_tokens")
        elif thinking.get("type") == "adaptive":
            self._set("thinking", {"type": "enabled", "budget_tokens": budget})
            self._note(f"adaptive thinking became a budget of {budget} tokens on {self._model.id}")
        elif budget != wanted:
            self._set("thinking", {**thinking, "budget_tokens": budget})
            self._note(f"the thinking budget was lowered from {wanted} to {budget} tokens, below max_tokens")

    @staticmethod
    def _effort_for(budget: int) -> str:
        return next((effort for effort, most in _EFFORT_UP_TO_BUDGET if budget <= most), "max")

    def _sampling(self) -> None:
        thinking = self.body.get("thinking")
        thinks = isinstance(thinking, dict) and thinking.get("type") == "enabled"
        for key, usual in _USUAL_SAMPLING.items():
            if key not in self.body or self.body[key] == usual:
                continue
            if not self._takes.sampling:
                self._note(f"{key} {self.body[key]} left out: {self._model.id} takes no sampling parameters")
                self._drop(key)
            elif thinks and key in ("temperature", "top_k"):
                self._note(f"{key} {self.body[key]} left out: {self._model.id} takes none while it thinks")
                self._drop(key)

    # -- output_config ---------------------------------------------------------------------------------------

    def _config(self) -> JsonObject:
        config = self.body.get("output_config")
        return config if isinstance(config, dict) else {}

    def _asked_effort(self) -> str | None:
        effort = self._config().get("effort")
        return effort if isinstance(effort, str) else None

    def _put_effort(self, effort: str) -> None:
        self._set("output_config", {**self._config(), "effort": effort})

    def _drop_config(self, key: str) -> None:
        rest = {name: value for name, value in self._config().items() if name != key}
        if rest:
            self._set("output_config", rest)
        else:
            self._drop("output_config")

    def _effort(self) -> None:
        if "effort" in self._config():
            if not self._takes.effort:
                self._note(f"effort {self._config()['effort']} left out: {self._model.id} does not take one")
                self._drop_config("effort")
        elif self._takes.effort and self._model.effort is not None:
            self._put_effort(self._model.effort)
            self._note(f"effort {self._model.effort} set, as configured for {self._model.id}")

    def _format(self) -> None:
        if self._takes.structured_output is not StructuredOutput.NONE or "format" not in self._config():
            return
        asked = self._config()["format"]
        self._drop_config("format")
        schema = asked.get("schema") if isinstance(asked, dict) else None
        self._instructions.append(in_words(schema))
        self._note(f"the JSON schema is given in words: {self._model.id} cannot be held to one")

    # -- messages --------------------------------------------------------------------------------------------

    def _messages(self) -> list[Json]:
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) else []

    def _thinking_blocks(self) -> None:
        # Signed for one model: another refuses them. On the same model they are never touched.
        if self._from == self._model.id and self._takes.thinking is not Thinking.NONE:
            return
        kept: list[Json] = []
        stripped = 0
        for message in self._messages():
            content = message.get("content") if isinstance(message, dict) else None
            if not isinstance(message, dict) or not isinstance(content, list):
                kept.append(message)
                continue
            rest = [block for block in content if not _is_thinking(block)]
            stripped += len(content) - len(rest)
            if len(rest) == len(content):
                kept.append(message)
            elif rest:
                kept.append({**message, "content": rest})
        if stripped:
            self._set("messages", kept)
            blocks = "1 thinking block" if stripped == 1 else f"{stripped} thinking blocks"
            self._note(f"{blocks} left out: signed for {self._from or 'another model'}, not for {self._model.id}")

    def _prefill(self) -> None:
        thinking = self.body.get("thinking")
        thinks = isinstance(thinking, dict) and thinking.get("type") == "enabled"
        messages = self._messages()
        last = messages[-1] if messages else None
        if not isinstance(last, dict) or last.get("role") != "assistant" or (self._takes.prefill and not thinks):
            return
        content = last.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts = [b.get("text") for b in blocks if isinstance(b, dict) and b.get("type") == "text"]
        if len(texts) != len(blocks) or len(messages) == 1:
            return  # a tool call or something new, not a beginning to be continued
        self._set("messages", messages[:-1])
        beginning = "".join(text for text in texts if isinstance(text, str))
        if beginning.strip():
            self._instructions.append(f"Begin your reply with exactly this text and go on from there:\n{beginning}")
        self._note(f"the prefilled beginning of the reply is asked for in words: {self._model.id} takes no prefill")

    def _instruct(self) -> None:
        if self._instructions:
            self._set("messages", with_instruction(self.body, "\n\n".join(self._instructions)))


def in_words(schema: Json) -> str:
    """What asks for an answer in JSON, of this schema where there is one."""
    words = "Reply with JSON only: no other text, no code fence."
    if schema is None:
        return words
    return f"{words} It must satisfy this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"


def with_instruction(body: JsonObject, text: str) -> list[Json]:
    """The messages of a request with an instruction at their very end."""
    given = body.get("messages")
    messages = given if isinstance(given, list) else []
    added: Json = {"type": "text", "text": text}
    last = messages[-1] if messages else None
    if isinstance(last, dict) and last.get("role") == "user":
        content = last.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        return [*messages[:-1], {**last, "content": [*blocks, added]}]
    return [*messages, {"role": "user", "content": [added]}]


def _is_thinking(block: Json) -> bool:
    return isinstance(block, dict) and block.get("type") in ("thinking", "redacted_thinking")
