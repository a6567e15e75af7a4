"""A task as an Anthropic Messages request, before it is adapted to the model that gets it."""

from __future__ import annotations

import json

from tierwise.core.catalog import Model
from tierwise.core.errors import InvalidTask
from tierwise.core.json import Json, JsonObject
from tierwise.core.tasks import Task

__all__ = ["build_body", "check_tool_input", "clean_text", "label_schema"]


def clean_text(text: str) -> str:
    """`text` as it can go on the wire: a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def check_tool_input(task: Task) -> str:
    """The input of the tool call as JSON text.

    Raises:
        InvalidTask: it cannot be written as JSON.
    """
    try:
        return json.dumps(task.tool_input, ensure_ascii=False, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTask(f"the input of tool {task.tool_name} is not JSON: {error}") from None


def label_schema(labels: tuple[str, ...]) -> JsonObject:
    """The JSON schema that holds a reply to one of the labels."""
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def build_body(
    task: Task,
    model: Model,
    *,
    max_output_tokens: int,
    rejected_reply: str | None = None,
    feedback: str | None = None,
) -> JsonObject:
    """The request. After a rejection it goes on as a conversation: the reply, then what was wrong with it."""
    messages: list[Json] = [{"role": "user", "content": _prompt(task)}]
    if feedback is not None:
        said = clean_text(rejected_reply or "").strip()
        if said:
            messages.append({"role": "assistant", "content": said})
            messages.append({"role": "user", "content": _correction(feedback)})
        else:
            messages[0] = {"role": "user", "content": f"{_prompt(task)}\n\n{_correction(feedback)}"}
    body: JsonObject = {"model": model.id, "max_tokens": max_output_tokens}
    if task.system is not None:
        body["system"] = clean_text(task.system)
    body["messages"] = messages
    output_config: JsonObject = {}
    schema = label_schema(task.labels) if task.labels else task.json_schema
    if schema is not None:
        output_config["format"] = {"type": "json_schema", "schema": schema}
    if model.effort is not None:
        output_config["effort"] = model.effort
    if output_config:
        body["output_config"] = output_config
    if task.temperature is not None:
        body["temperature"] = task.temperature
    return body


def _correction(feedback: str) -> str:
    return f"That reply cannot be used: {clean_text(feedback)}. Answer again, correctly and completely."


def _prompt(task: Task) -> str:
    if task.prompt is not None:
        prompt = clean_text(task.prompt)
    elif task.tool_name is not None:
        prompt = clean_text(
            f"{task.text}\n\nCarry out this tool call and reply with its result only.\n"
            f"Tool: {task.tool_name}\nInput:\n{check_tool_input(task)}"
        )
    else:
        prompt = clean_text(task.text)
    if task.prompt is None and task.input_text is not None:
        prompt = f"{prompt}\n\n<input>\n{clean_text(task.input_text)}\n</input>"
    if task.labels:
        prompt = f"{prompt}\n\nAnswer with exactly one of: {', '.join(task.labels)}."
    return prompt
