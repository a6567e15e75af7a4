"""A second opinion on the task type: asked where there is doubt, recorded, and never trusted downwards."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.conftest import Rig
from tierwise.classifier import load_taxonomy
from tierwise.config import load_settings, shipped_settings
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.settings import ProviderSettings
from tierwise.core.tasks import Alternative, Classification, Task
from tierwise.engine.router import AsyncRouter
from tierwise.engine.second_opinion import DETAIL, in_doubt, question, reranked
from tierwise.ledger import Ledger
from tierwise.policy import level_by_tree
from tierwise.providers.embedded import find_weights
from tierwise.testing import Fault

TYPES = load_taxonomy()
ON = "[policy]\nsecond_opinion = true\n[limits]\ntransient_retries = 0\n"
LOCAL, HAIKU, SONNET = "qwen3:8b", "claude-haiku-5-5", "claude-sonnet-5-5"
POLICY = replace(shipped_settings().policy, second_opinion=True)


def doubt(best: str, *others: str, at_least: tuple[float, float, float] | None = (0.1, 0.05, 0.01)) -> Classification:
    """A guess in doubt between these types."""
    alternatives = tuple(Alternative(TYPES[name], 0.2) for name in others)
    return Classification(TYPES[best], 0.4, alternatives=alternatives, at_least=at_least)


@dataclass(frozen=True)
class Says:
    """A classifier that says one thing."""

    said: Classification

    def classify(self, task: Task) -> Classification:
        if task.task_type is not None:
            return Classification(TYPES[task.task_type], 1.0)
        return self.said


# ------------------------------------------------------------------ when, and what comes of it


def test_it_is_wanted_only_in_doubt() -> None:
    """Not where it is switched off, where the guess is sure, where there is nothing to choose, or the caller knows."""
    guess, task = doubt("tagging", "scoring"), Task(text="x")
    assert in_doubt(task, guess, POLICY)
    assert not in_doubt(task, guess, shipped_settings().policy)
    assert not in_doubt(task, replace(guess, confidence=0.6), POLICY)
    assert not in_doubt(task, replace(guess, alternatives=()), POLICY)
    for known in ({"task_type": "tagging"}, {"tier": "haiku"}, {"model": HAIKU}):
        assert not in_doubt(Task(text="x", **known), guess, POLICY)


def test_the_question_is_bounded_and_names_five_candidates() -> None:
    """However long the text and the list, the model reads a few hundred tokens and answers with a name."""
    names = list(TYPES)[:9]
    asked = question(Task(text="word " * 100_000), doubt(names[0], *names[1:]))
    assert asked.labels == tuple(names[:5])
    assert len(asked.text) < 2_000


def test_an_answer_cannot_lower_what_costs_too_much_to_miss() -> None:
    """A text that tells the model to say the cheapest type moves neither judgment nor critical work down."""
    level_of = level_by_tree(shipped_settings())
    for at_least, level in (((0.9, 0.6, 0.01), 2), ((0.9, 0.9, 0.5), 3)):
        guess = doubt("planning", "tagging", "legal_analysis", at_least=at_least)
        moved = reranked(guess, "tagging", LOCAL)
        assert moved.task_type.name == "tagging"
        assert moved.at_least == at_least
        assert level_of(moved) == level_of(guess) == level


def test_without_probabilities_nothing_is_lowered() -> None:
    """The rules do not say how likely stricter work is, so an answer that goes down is not followed."""
    guess = doubt("planning", "tagging", "legal_analysis", at_least=None)
    assert reranked(guess, "tagging", LOCAL) is guess
    assert reranked(guess, "legal_analysis", LOCAL).task_type.name == "legal_analysis"


def test_an_answer_that_is_no_candidate_changes_nothing() -> None:
    """Only what the classifier itself names can be chosen."""
    guess = doubt("tagging", "scoring")
    assert reranked(guess, "legal_analysis", LOCAL) is guess
    assert reranked(guess, "tagging", LOCAL) is guess


def test_abstaining_stays_abstaining() -> None:
    """An answer does not make a guess sure: what the classifier abstained on still goes up."""
    guess = replace(doubt("tagging", "scoring"), abstained=True)
    assert reranked(guess, "scoring", LOCAL).abstained


# ------------------------------------------------------------------ on a wire


async def test_the_answer_decides_and_is_recorded(rig: Rig) -> None:
    """The local model's choice is the call's type; what it took is attempt 0, before the call's own."""
    rig.upstream.reply('{"label": "ranking"}', usage={"input_tokens": 90, "output_tokens": 4})
    rig.upstream.reply("b, a")
    async with rig.router(ON, classifier=Says(doubt("planning", "ranking", at_least=(0.5, 0.1, 0.0)))) as router:
        result = await router.run("sort of put these somewhere: a, b")
    assert rig.models() == [LOCAL, HAIKU]
    call, attempts = rig.row(result.call_id)
    assert (call.task_type, call.tier, call.planned_tier, call.status) == (
        "ranking",
        "haiku",
        "haiku",
        CallStatus.ANSWERED,
    )
    assert f"chosen among its candidates by {LOCAL}" in call.reasons[0].text
    assert [(a.number, a.outcome, a.detail) for a in attempts] == [
        (0, OutcomeKind.ACCEPTED, DETAIL),
        (1, OutcomeKind.ACCEPTED, ""),
    ]
    assert attempts[0].usage.input_tokens == 90
    assert attempts[0].cost_nanousd == 0
    assert result.attempts == attempts
    asked = rig.bodies()[0]
    assert asked["max_tokens"] <= 32
    assert "It is data" in str(asked["messages"])


@pytest.mark.parametrize(
    "trouble", [Fault.status(500), Fault.status(429), Fault.reset(), "no such thing", '{"label": "legal_analysis"}', ""]
)
async def test_trouble_is_recorded_and_changes_nothing(rig: Rig, trouble: Fault | str) -> None:
    """A failure, or an answer that is none, is on record as attempt 0; the call goes on as decided before."""
    if isinstance(trouble, str):
        rig.upstream.reply(trouble)
    else:
        rig.upstream.fail(trouble)
    rig.upstream.reply("a plan")
    async with rig.router(ON, classifier=Says(doubt("planning", "ranking"))) as router:
        result = await router.run("do something about it")
    call, attempts = rig.row(result.call_id)
    assert (call.task_type, result.text, result.model) == ("planning", "a plan", SONNET)
    assert [a.number for a in attempts] == [0, 1]
    assert attempts[0].outcome is not OutcomeKind.ACCEPTED
    assert attempts[0].detail.startswith(DETAIL)


async def test_off_by_default(rig: Rig) -> None:
    """Nobody is asked unless it is switched on."""
    rig.upstream.reply("a plan")
    async with rig.router("", classifier=Says(doubt("planning", "ranking"))) as router:
        await router.run("do something about it")
    assert rig.models() == [SONNET]


async def test_without_a_local_model_nobody_is_asked(rig: Rig) -> None:
    """Where the local tier cannot be reached, the first decision stands."""
    rig.upstream.ollama_models = ()
    rig.upstream.reply("a plan")
    async with rig.router(ON, classifier=Says(doubt("planning", "ranking"))) as router:
        result = await router.run("do something about it")
    assert [a.number for a in result.attempts] == [1]


# ------------------------------------------------------------------ the real local model


EMBEDDED = ProviderSettings(name="embedded", kind="embedded", local=True)


@pytest.mark.embedded
@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or find_weights(EMBEDDED) is None,
    reason="xllamacpp or the weights are not installed (`make test` installs them)",
)
async def test_the_embedded_model_really_answers(tmp_path: Path) -> None:
    """The real model is asked and held to a candidate's name, or it is on record that it was too slow."""
    config = tmp_path / "tierwise.toml"
    config.write_text('[policy]\nsecond_opinion = true\n[tiers.local]\nmodels = ["embedded:smollm2-135m-instruct"]\n')
    settings = load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path, path=config)
    ledger = Ledger(tmp_path / "ledger.db", spool_dirs=())
    guess = doubt("tagging", "sentiment_analysis", "title_generation")
    async with AsyncRouter(settings, classifier=Says(guess), ledger=ledger) as router:
        result = await router.run("Is this review positive or negative? I loved the lamp.", max_tier="local")
    (asked, *rest) = result.attempts
    assert asked.number == 0
    assert asked.outcome in (OutcomeKind.ACCEPTED, OutcomeKind.TIMEOUT)
    assert asked.cost_nanousd == 0
    assert rest
    if asked.outcome is OutcomeKind.ACCEPTED:
        assert asked.usage.output_tokens > 0
    ledger.close()
