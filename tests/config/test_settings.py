"""What a file says becomes tiers, models, providers and limits."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tests.config.conftest import Load
from tierwise.classifier.taxonomy import load_taxonomy
from tierwise.core.catalog import StructuredOutput, Thinking
from tierwise.core.settings import Role


def test_one_line_makes_a_fifth_tier(load: Load) -> None:
    """`tiers.fable = [...]` adds a tier above the others, and critical work goes there from then on."""
    settings = load('tiers.fable = ["claude-fable-5-2"]')
    assert [(str(s.tier), int(s.tier)) for s in settings.catalog][-2:] == [("opus", 3), ("fable", 4)]
    assert settings.policy.roles[Role.TOP] == "fable"
    assert settings.catalog.top.models[0].capabilities.thinking is Thinking.ADAPTIVE_ALWAYS


def test_a_tier_can_be_put_between_others(load: Load) -> None:
    """`after` places a new tier; the levels of those above it shift."""
    settings = load("[tiers.middle]\nmodels = ['claude-mid-1']\nafter = 'haiku'")
    assert [str(s.tier) for s in settings.catalog] == ["local", "haiku", "middle", "sonnet", "opus"]
    assert [int(s.tier) for s in settings.catalog] == [0, 1, 2, 3, 4]


def test_a_disabled_tier_hands_its_role_up(load: Load) -> None:
    """Without a local tier its work goes to the next one up; without Opus the top is Sonnet."""
    settings = load("tiers.local.enabled = false\ntiers.opus.enabled = false")
    assert [(str(s.tier), int(s.tier)) for s in settings.catalog] == [("haiku", 0), ("sonnet", 1)]
    assert settings.policy.roles == {
        Role.LOCAL: "haiku", Role.PROCESSING: "haiku", Role.JUDGMENT: "sonnet", Role.TOP: "sonnet",
    }  # fmt: skip


def test_with_tiers_of_ones_own_every_role_has_one(load: Load) -> None:
    """Where all default tiers are off, roles fall to the highest tier, never to a lower one, until they are set."""
    off = "".join(f"tiers.{name}.enabled = false\n" for name in ("local", "haiku", "sonnet", "opus"))
    own = off + "tiers.small = ['claude-small-1']\ntiers.big = ['claude-big-1']\nbaseline = 'big'\n"
    assert set(load(own).policy.roles.values()) == {"big"}
    assert load(own + "policy.roles.local = 'small'").policy.roles[Role.LOCAL] == "small"


@pytest.mark.parametrize(
    ("baseline", "model"),
    [
        ("opus", "claude-opus-5-5"),
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("anthropic:claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-fable-5-1", "claude-fable-5-1"),
    ],
)
def test_the_baseline_is_a_tier_or_a_model(load: Load, baseline: str, model: str) -> None:
    """The baseline may be a tier, a model of one, or a model that is only described."""
    assert load(f"baseline = '{baseline}'").catalog.baseline.id == model


def test_a_new_claude_model_needs_no_description(load: Load) -> None:
    """An id that begins with claude- is Anthropic's; what is not known of it is assumed so that no request fails."""
    model = load("tiers.next = ['claude-next-7']").catalog.top.models[0]
    assert (model.provider, model.context_tokens) == ("anthropic", 200_000)
    takes = model.capabilities
    assert (takes.sampling, takes.prefill, takes.forced_tool_use, takes.effort) == (False, False, False, False)


def test_a_local_model_is_named_with_its_provider(load: Load) -> None:
    """PROVIDER:MODEL needs no description; the id on the wire is what follows the first colon."""
    model = load("tiers.local = ['ollama:phi4:14b', 'embedded:tiny']").catalog.bottom.models[0]
    assert (model.provider, model.id, model.context_tokens) == ("ollama", "phi4:14b", 8_192)
    assert model.capabilities.structured_output is StructuredOutput.RESPONSE_FORMAT
    assert not model.capabilities.images


def test_a_model_can_be_described(load: Load) -> None:
    """Every key of a model's section reaches the model."""
    model = load(
        """
        tiers.next = ["m1"]
        [models.m1]
        provider = "openai"
        context_tokens = 1000
        max_output_tokens = 100
        tokenizer_factor = 1.15
        released = 2026-01-02
        retired = 2027-01-02
        price_as = "gpt-5"
        prompt_tokens_per_second = 10
        output_tokens_per_second = 2.5
        effort = "low"
        tools = false
        images = false
        thinking = "extended"
        forced_tool_use = false
        sampling = false
        prefill = true
        structured_output = "none"
        """
    ).catalog.top.models[0]
    assert (model.provider, model.context_tokens, model.max_output_tokens) == ("openai", 1000, 100)
    assert (model.tokenizer_factor, model.price_as) == (Decimal("1.15"), "gpt-5")
    assert (model.released, model.retired) == (date(2026, 1, 2), date(2027, 1, 2))
    assert (model.prompt_tokens_per_second, model.output_tokens_per_second, model.effort) == (10, 2.5, "low")
    takes = model.capabilities
    assert not (takes.tools or takes.images or takes.forced_tool_use or takes.sampling)
    assert (takes.prefill, takes.effort, takes.thinking) == (True, True, Thinking.EXTENDED)
    assert takes.structured_output is StructuredOutput.NONE


def test_what_models_take_is_what_the_documents_say(load: Load) -> None:
    """The shipped models carry the limits and capabilities of Anthropic's documents of 2026-11-22."""
    catalog = load('tiers.fable = ["claude-fable-5-2", "claude-fable-5-1"]').catalog
    for spec in catalog:
        for model in spec.models:
            if not model.id.startswith("claude"):
                continue
            old = model.id.endswith("4-5")
            takes = model.capabilities
            assert model.context_tokens == (200_000 if old else 1_000_000)
            assert model.max_output_tokens == (64_000 if old else 128_000)
            assert model.tokenizer_factor == (1 if old else Decimal("1.3"))
            assert (takes.effort, takes.sampling, takes.prefill) == (not old, old, old)
            assert takes.forced_tool_use is (
                model.id not in {"claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-1", "claude-fable-5-2"}
            )
    assert catalog.model("claude-sonnet-5-5")[1].capabilities.thinking is Thinking.ADAPTIVE_BETWEEN_TOOLS
    assert catalog.model("claude-opus-5-5")[1].capabilities.thinking is Thinking.ADAPTIVE_ALWAYS
    assert catalog.model("claude-haiku-4-5")[1].capabilities.thinking is Thinking.EXTENDED


def test_every_task_type_has_an_expected_length(load: Load) -> None:
    """The table of expected outputs covers all 58 types and names no other."""
    assert set(load().policy.output_tokens) == {*load_taxonomy(), "default"}


def test_limits_and_ledger_reach_the_settings(load: Load) -> None:
    """Every key of [limits] and [ledger] arrives; zero is a value, not a gap."""
    settings = load(
        """
        [limits]
        max_cost_usd = 0
        deadline_seconds = 5
        transient_retries = 0
        backoff_base_seconds = 0
        backoff_cap_seconds = 0
        circuit_failures = 1
        circuit_open_seconds = 0
        [ledger]
        path = "~/x.db"
        synchronous = "full"
        busy_timeout_ms = 0
        enabled = false
        [policy]
        confident_above = 0
        consider_alternatives_above = 0
        local_max_prompt_tokens = 0
        """
    )
    limits = settings.limits
    assert (limits.max_cost_usd, limits.deadline_seconds, limits.transient_retries) == (Decimal(0), 5.0, 0)
    assert (limits.backoff_base_seconds, limits.backoff_cap_seconds) == (0.0, 0.0)
    assert (limits.circuit_failures, limits.circuit_open_seconds) == (1, 0.0)
    ledger = settings.ledger
    assert (ledger.path.name, ledger.synchronous, ledger.busy_timeout_ms, ledger.enabled) == ("x.db", "full", 0, False)
    assert ledger.path.is_absolute()
    policy = settings.policy
    assert (policy.confident_above, policy.consider_alternatives_above, policy.local_max_prompt_tokens) == (0, 0, 0)


def test_a_rule_of_ones_own_replaces_the_tree(load: Load) -> None:
    """[[policy.rules]] in a file replaces the whole list: a tree is read as one thing."""
    rules = load("[[policy.rules]]\nname = 'all'\nto = 'top'\nbecause = 'safe'\nstakes = ['normal']").policy.rules
    assert [(r.name, r.to, r.stakes, r.needs) for r in rules] == [("all", Role.TOP, ("normal",), None)]


def test_prices_keep_every_digit(load: Load) -> None:
    """A price written as a TOML float or a string is the same exact decimal."""
    prices = load(
        "[[prices]]\nmodel = 'm'\nfrom = 2026-01-01\ninput = 0.1\noutput = '0.30'\nusd_per_hour = 1\n"
        "bands = [{ above_prompt_tokens = 5, input = 0.7, output = 1, cache_write_1h = 9 }]"
    ).prices
    mine = next(price for price in prices if price.model == "m")
    first, second = mine.bands
    assert (first.input, first.output, mine.usd_per_hour) == (Decimal("0.1"), Decimal("0.30"), Decimal(1))
    assert (first.cache_read, first.cache_write_1h) == (Decimal("0.1"), Decimal("0.1"))
    assert (second.above_prompt_tokens, second.cache_read, second.cache_write_1h) == (5, Decimal("0.7"), Decimal(9))
    assert (mine.valid_from, mine.source) == (date(2026, 1, 1), "tierwise.toml")


def test_task_types_of_ones_own(load: Load) -> None:
    """[task_types.x] declares a type of the user's own."""
    (mine,) = load("[task_types.triage]\nfamily = 'mine'\nneeds = 'critical'\nrecoverable = false").task_types
    assert (mine.name, mine.family, mine.needs.value, mine.recoverable) == ("triage", "mine", "critical", False)
