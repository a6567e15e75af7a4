"""LangChain's own standard tests, over the stand-in: what of a chat model's contract does not depend on a model's wit.

The stand-in plays a model that calls the tool it is asked to call and says what the schema wants. Not run: the tests of
images, documents and Anthropic's own blocks, which fetch their files from the network (`test_langchain` has those).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.conftest import settings_for
from tests.integrations.conftest import QUICK
from tierwise.core.json import Json
from tierwise.testing import RecordedRequest, StandInReply, StandInUpstream

pytest.importorskip("langchain_tests", reason="not installed: pip install -r requirements/dev.txt")

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from tierwise.integrations.langchain import ChatTierwise

ARGUMENTS: dict[str, dict[str, Json]] = {
    "magic_function": {"input": 3},
    "magic_function_no_args": {},
    "greeting_generator": {"answer_style": "pirate"},
    "get_weather": {"location": "Boston"},
    "my_adder_tool": {"a": 1, "b": 2},
    "unicode_customer": {"customer_name": "你好啊集团, こんにちは株式会社", "description": "集团"},
}


def obedient(request: RecordedRequest) -> StandInReply | None:
    """Calls the first tool that is offered, unless the last turn is a tool's result; tells long where asked to."""
    body: Any = request.json
    if request.path != "/v1/messages":
        return None
    last = body["messages"][-1]["content"]
    answered = isinstance(last, list) and any(block.get("type") == "tool_result" for block in last)
    tools = [tool for tool in body.get("tools") or () if tool.get("name") in ARGUMENTS]
    named = (body.get("tool_choice") or {}).get("name")
    if tools and not answered:
        tool = next((tool for tool in tools if tool["name"] == named), tools[0])
        return StandInReply.of_tool(tool["name"], ARGUMENTS[tool["name"]])
    if "output_config" not in body:
        return StandInReply.of_text("The stand-in, in several words, so that a stream has several pieces.")
    return None


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A configuration for the obedient stand-in."""
    with StandInUpstream(handler=obedient) as running:
        yield settings_for(running, tmp_path_factory.mktemp("standard"), QUICK, ANTHROPIC_API_KEY="sk-ant-configured")


class _Model:
    """What the suites are told of the model."""

    @pytest.fixture(autouse=True)
    def configured(self, settings: Any) -> None:
        """Makes the configuration that the model is given."""
        type(self)._settings = settings

    _settings: Any = None

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """The model."""
        return ChatTierwise

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """What it is made with."""
        return {"settings": self._settings}

    @property
    def supports_json_mode(self) -> bool:
        """A schema without tools."""
        return True

    @property
    def supports_model_override(self) -> bool:
        """A model named with a call."""
        return True

    @property
    def model_override_value(self) -> str:
        """Which one the suite names."""
        return "claude-opus-5-5"


class TestUnit(_Model, ChatModelUnitTests):
    """The suite for what needs no model."""


class TestIntegration(_Model, ChatModelIntegrationTests):
    """The suite for what needs one."""
