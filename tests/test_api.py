"""The short forms, and what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tierwise
from tests.engine.conftest import CONFIG, KEY
from tierwise import Tier, TierwiseError, UnknownTier, api, classify, dispatch_tool, get_model, route, run_subtask
from tierwise.core.errors import InvalidTask
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInUpstream]:
    """The default router, fresh, on a stand-in."""
    with StandInUpstream(api_key=None, ollama_models=["qwen3:8b"]) as running:
        config = tmp_path / "tierwise.toml"
        config.write_text(
            CONFIG.format(url=running.url, patience=60.0, more="[overrides.tools]\nweb_search = 'sonnet'"), "utf-8"
        )
        for name, value in {
            "HOME": str(tmp_path),
            "TIERWISE_CONFIG": str(config),
            "TIERWISE_LEDGER": str(tmp_path / "ledger.db"),
            "ANTHROPIC_API_KEY": KEY,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(api, "_router", None)
        monkeypatch.setattr(api.atexit, "register", lambda _: None)
        api.TOOL_TIER_OVERRIDES.clear()
        yield running
        api.TOOL_TIER_OVERRIDES.clear()
        if api._router is not None:
            api._router.close()


def test_importing_is_free() -> None:
    """`import tierwise` loads none of what calls need: no HTTP, no prices, no database, no terminal."""
    heavy = [
        "httpx2", "pydantic", "genai_prices", "sqlite3", "click", "rich", "asyncio", "jsonschema", "tomllib",
        "tierwise.core", "decimal", "dataclasses",
    ]  # fmt: skip
    code = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import tierwise\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "tierwise" in loaded
    assert loaded.isdisjoint(heavy)


def test_the_lazy_table_and_the_public_names_agree() -> None:
    """Every name of `__all__` can be had, and there is nothing in the lazy table that is not public."""
    assert sorted(tierwise._MODULE_OF) == sorted(tierwise.__all__)
    assert tierwise.__all__ == sorted(tierwise.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in tierwise.__all__:
        assert getattr(tierwise, name) is not None
        assert name in dir(tierwise)
    with pytest.raises(AttributeError, match="module 'tierwise' has no attribute 'nonsense'"):
        _ = tierwise.nonsense


def test_classify_gives_a_tier(upstream: StandInUpstream) -> None:
    """A text's tier, compared like a number, without anything being sent."""
    assert classify("Summarise this ticket in one line") == Tier.LOCAL
    assert classify("x", task_type="legal_analysis") == Tier.OPUS
    assert classify("x", task_type="ranking", stakes="high") > Tier.HAIKU
    with pytest.raises(InvalidTask):
        classify(" ")
    assert upstream.requests == []


def test_route_gives_a_tier_and_a_model(upstream: StandInUpstream) -> None:
    """The tier and the model that a run would start with."""
    assert route("x", task_type="debugging") == (Tier.SONNET, "claude-sonnet-5-5")
    assert upstream.calls() == []


def test_get_model_gives_what_a_tier_prefers(upstream: StandInUpstream) -> None:
    """By name or by Tier; an unknown one lists the known."""
    assert get_model("opus") == get_model(Tier.OPUS) == "claude-opus-5-5"
    with pytest.raises(UnknownTier, match="unknown tier 'hiku'; use one of local, haiku, sonnet, opus"):
        get_model("hiku")


def test_run_subtask_sends_the_prompt_only(upstream: StandInUpstream, tmp_path: Path) -> None:
    """The description routes and is not sent; the prompt is; the answer comes back as text and is recorded."""
    upstream.reply("an answer")
    assert run_subtask("order these by date", "b 2001, a 1999", task_type="ranking") == "an answer"
    (request,) = upstream.calls()
    assert isinstance(request.json, dict)
    assert request.json["messages"] == [{"role": "user", "content": "b 2001, a 1999"}]
    assert len(list(Ledger(tmp_path / "ledger.db").calls())) == 1


def _asked(upstream: StandInUpstream) -> Any:
    assert isinstance(upstream.calls()[-1].json, dict)
    return upstream.calls()[-1].json["model"]  # type: ignore[index,call-overload]


def test_a_tools_tier_can_be_overridden_at_every_level(upstream: StandInUpstream) -> None:
    """The call's own overrides win over TOOL_TIER_OVERRIDES, and that over the configuration."""
    upstream.reply("done", times=None)
    assert dispatch_tool("web_search", {"q": "x"}) == "done"
    assert _asked(upstream) == "claude-sonnet-5-5"
    api.TOOL_TIER_OVERRIDES["web_search"] = Tier.HAIKU
    dispatch_tool("web_search", {"q": "x"})
    assert _asked(upstream) == "claude-haiku-5-5"
    dispatch_tool("web_search", {"q": "x"}, tier_overrides={"web_search": "opus"})
    assert _asked(upstream) == "claude-opus-5-5"
    dispatch_tool("web_search", {"q": "x"}, tier="sonnet")
    assert _asked(upstream) == "claude-sonnet-5-5"
    assert tierwise.TOOL_TIER_OVERRIDES is api.TOOL_TIER_OVERRIDES


def test_an_override_with_an_unknown_tier_is_said(upstream: StandInUpstream) -> None:
    """A tier that does not exist is an error when its tool is dispatched, and nothing is sent."""
    with pytest.raises(UnknownTier, match="'hiku'"):
        dispatch_tool("grep", {}, tier_overrides={"grep": "hiku"})
    assert upstream.calls() == []


def test_there_is_one_default_router(upstream: StandInUpstream) -> None:
    """It is made when first needed and shared from then on."""
    assert api._router is None
    first = api.default_router()
    assert api.default_router() is first


def test_every_error_is_a_tierwise_error() -> None:
    """Whoever catches TierwiseError catches all that is raised on purpose."""
    errors = [value for name in tierwise.__all__ if isinstance(value := getattr(tierwise, name), type)]
    raised = [value for value in errors if issubclass(value, Exception)]
    assert len(raised) >= 18
    assert all(issubclass(error, TierwiseError) for error in raised)
