"""`tierwise demo`: an agent task of five steps, the loop that usually makes five calls to one big model.

Nothing here is canned. A step that routes to a local model runs on it; a step that routes to an API tier runs when
there is a key, and is otherwise shown at its estimated cost as `not run: no API key`. A reply that its check refuses
climbs, in front of the reader.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option, money, percent, table, tier_style
from tierwise.core.decisions import AttemptRecord, Decision
from tierwise.core.errors import LadderExhausted, NoRouteError, NotRun, RunError
from tierwise.core.money import nanousd_to_usd

if TYPE_CHECKING:
    from rich.console import Console

    from tierwise.core.json import JsonObject
    from tierwise.engine.sync import Router

__all__ = ["command"]

PROJECT = "tierwise-demo"
_WIDE = 150  # columns that the table needs for its last column

TICKET = (
    "Hi, I ordered a desk lamp (order 48213) two weeks ago and it arrived with a cracked shade. "
    "I would like a replacement, not a refund. Can you send it to my office this time? Thanks, Ana"
)
TOPICS = ("damaged item", "late delivery", "billing", "account access")
NOTES = (
    "Damaged on arrival: replace free of charge within 30 days of delivery; no return of the broken item is needed.",
    "A new delivery address is allowed for replacements when the customer confirms it in writing.",
    "Password resets are done by the customer on the sign-in page.",
    "Replacements ship within two working days from the central warehouse.",
    "Invoices can be downloaded for seven years.",
)
REPLY_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "order": {"type": "string"},
        "topic": {"type": "string"},
        "wants": {"type": "string", "enum": ["replacement", "refund", "information"]},
        "customer": {"type": "string"},
    },
    "required": ["order", "topic", "wants", "customer"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    task: str
    payload: Callable[[dict[str, str]], str]
    options: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Callable[[str], object], ...] = ()


@dataclass(slots=True)
class _Done:
    """What became of a step. Costs are US$; `estimated` where nothing was sent to an API tier."""

    step: _Step
    decision: Decision
    status: str
    answer: str | None
    attempts: tuple[AttemptRecord, ...]
    tier_name: str
    tier_level: int
    model: str
    tokens: str
    cost_usd: Decimal | None
    baseline_usd: Decimal | None
    estimated: bool
    seconds: float
    refusals: list[str] = field(default_factory=list)  # what the checks said, in order


def _relevant(text: str) -> str | None:
    lines = [line.strip("-•* ") for line in text.splitlines() if line.strip()]
    if not all(any(note in line or line in note for note in NOTES) for line in lines):
        return "every line must be one of the given notes, word for word"
    return None


def _short_and_grounded(text: str) -> str | None:
    words = text.split()
    if len(words) > 60:
        return f"the summary has {len(words)} words; at most 60 are allowed"
    if not re.search(r"replac", text, re.IGNORECASE) or not re.search(r"\b(30|thirty) days", text, re.IGNORECASE):
        return "the summary must say what is replaced, and within how many days"
    return None


def _record(known: dict[str, str]) -> str:
    """What the agent's own code knows by now: plain code needs no model."""
    order = re.search(r"order (\d+)", TICKET)
    return (
        f"order: {order[1] if order else ''}\ntopic: {known.get('classify the request', 'not known')}\n"
        "wants: replacement\ncustomer: Ana"
    )


def _nothing_changed(text: str) -> str | None:
    found = json.loads(text)
    if str(found["order"]) not in TICKET:
        return "the order number must be the one that was given"
    return None if found["wants"] == "replacement" else "the values must be the ones that were given"


def _steps() -> Sequence[_Step]:
    return (
        _Step(
            "classify the request",
            "Classify this support ticket into one topic category.",
            lambda _: TICKET,
            {"labels": TOPICS, "tokens_out": 15, "temperature": 0.0},
        ),
        _Step(
            "pick the relevant notes",
            "Filter the list of notes: keep only those that apply to the ticket, one a line, word for word.",
            lambda _: "Ticket: " + TICKET + "\n\nNotes:\n" + "\n".join(f"- {note}" for note in NOTES),
            {"tokens_out": 100},
            checks=(_relevant,),
        ),
        _Step(
            "summarise them",
            "Summarise these notes in one or two sentences, at most 60 words.",
            # Where the notes could not be picked (no key), all of them go on: nothing is made up in between.
            lambda known: known.get("pick the relevant notes") or "\n".join(f"- {note}" for note in NOTES),
            {"tokens_out": 80, "max_output_tokens": 120, "temperature": 0.2},
            checks=(_short_and_grounded,),
        ),
        _Step(
            "write the answer",
            "Write a friendly email reply to the customer that resolves the ticket.",
            lambda known: f"Ticket: {TICKET}\n\nPolicy: {known.get('summarise them') or ' '.join(NOTES)}",
            {"tokens_out": 300},
        ),
        _Step(
            "format it as JSON",
            "Convert these lines to JSON format.",
            _record,
            {"json_schema": REPLY_SCHEMA, "tokens_out": 60, "temperature": 0.0},
            checks=(_nothing_changed,),
        ),
    )


@click.command("demo")
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, as_json: bool) -> None:
    """Run an agent task of five steps and see what routing does to its cost.

    Steps of the local tier run on Ollama if it is reachable, else on the embedded model (`tierwise init` installs
    it: demonstration grade, and its replies are checked like any other). Steps of API tiers run when
    ANTHROPIC_API_KEY is set; without it they are priced from their estimated tokens and marked as not run.
    """
    from tierwise.engine.sync import Router

    settings = settings_of(ctx)
    out = console(stderr=as_json)
    with Router(settings) as router:
        local = _local_model(router)
        if not as_json:
            _introduce(out, local, settings.providers["anthropic"].key_missing)
        session = f"demo-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        known: dict[str, str] = {}
        done = []
        for number, step in enumerate(_steps(), start=1):
            with _progress(out, f"{number}. {step.name} …"):
                ended = _run(router, step, known, session)
            if ended.answer is not None:
                known[step.name] = ended.answer
            done.append(ended)
            if not as_json:
                _show(out, number, ended)
        ledger = router.ledger
        where = str(ledger.path) if ledger is not None else None
    if as_json:
        echo_json(_as_json(done, where))
        return
    _totals(out, done, where)


def _local_model(router: Router) -> str:
    for model_id, found in router.local_models().items():
        if found.ok:
            return model_id
    return ""


def _introduce(out: Console, local: str, no_key: bool) -> None:
    out.print("[bold]An agent answers a support ticket in five steps.[/] Usually all five go to one big model.\n")
    if not local:
        out.print("No local model can be used: `tierwise init` installs the embedded one.\n", style="yellow")
    elif local.startswith("smollm2"):
        out.print(
            f"Local tier: {local}, embedded. It is demonstration grade: small enough to come with this package, too\n"
            "small to be trusted. That is why every reply is checked, and climbs to the next tier when it fails.\n"
        )
    else:
        out.print(f"Local tier: {local}, on Ollama.\n")
    if no_key:
        out.print("ANTHROPIC_API_KEY is not set: steps of the API tiers are priced, not run.\n", style="yellow")


@contextmanager
def _progress(out: Console, text: str) -> Iterator[None]:
    status: AbstractContextManager[Any] | None = out.status(text) if sys.stderr.isatty() and out.is_terminal else None
    if status is None:
        yield
        return
    with status:
        yield


def _run(router: Router, step: _Step, known: dict[str, str], session: str) -> _Done:
    began = time.monotonic()
    payload = step.payload(known)
    common: dict[str, Any] = {"input_text": payload, "project": PROJECT, "session": session, **step.options}
    refusals: list[str] = []
    checks = [_heard(check, refusals) for check in step.checks]
    try:
        result = router.run(step.task, checks=checks, **common)
    except RunError as error:
        if error.decision is None:
            raise
        ended = _not_answered(router, step, error, common, time.monotonic() - began)
        ended.refusals = refusals
        return ended
    usage = result.usage
    return _Done(
        step=step,
        decision=result.decision,
        status="ran",
        answer=result.text,
        attempts=result.attempts,
        tier_name=result.tier.name,
        tier_level=result.tier.level,
        model=result.model,
        tokens=f"{usage.prompt_tokens:,} / {usage.output_tokens:,}",
        cost_usd=result.cost_usd,
        baseline_usd=result.baseline_cost_usd,
        estimated=False,
        seconds=time.monotonic() - began,
        refusals=refusals,
    )


def _heard(check: Callable[[str], object], refusals: list[str]) -> Callable[[str], object]:
    """The check, with what it says kept: the ledger keeps only which check it was."""

    def heard(text: str) -> object:
        said = check(text)
        if isinstance(said, str):
            refusals.append(said)
        return said

    heard.__name__ = check.__name__
    return heard


def _not_answered(router: Router, step: _Step, error: RunError, options: dict[str, Any], seconds: float) -> _Done:
    """A step without an answer: planned for an API tier without a key, or rejected on the local tier and stuck there.

    Its cost is what was spent plus the estimate of the tier where it would have gone on.
    """
    planned = decision = error.decision
    if planned is None or decision is None:
        raise error
    status = f"failed: {error}"
    if isinstance(error, NotRun):
        status = "not run: no API key" if "no API key" in str(error) else f"not run: {error}"
    elif isinstance(error, LadderExhausted) and "no API key" in str(error):
        last = error.attempts[-1].tier
        count = f"{len(error.attempts)} {'reply' if len(error.attempts) == 1 else 'replies'}"
        status = f"{count} rejected on {last}; next tier not run: no API key"
        above = router.settings.catalog.tier(last).tier.level + 1
        with suppress(NoRouteError, IndexError):
            decision = router.route(step.task, min_tier=router.settings.catalog.tiers[above].tier, **options)
    first = decision.first
    spent = sum(
        (nanousd_to_usd(attempt.cost_nanousd) for attempt in error.attempts if attempt.cost_nanousd is not None),
        Decimal(0),
    )
    return _Done(
        step=step,
        decision=planned,
        status=status,
        answer=None,
        attempts=error.attempts,
        tier_name=first.tier.name,
        tier_level=first.tier.level,
        model=first.model.id,
        tokens=f"~{first.estimated_usage.prompt_tokens:,} / ~{first.estimated_usage.output_tokens:,}",
        cost_usd=spent + first.estimated_cost_usd,
        baseline_usd=decision.baseline_cost_usd,
        estimated=True,
        seconds=seconds,
    )


def _show(out: Console, number: int, done: _Done) -> None:
    out.print(f"[bold]{number}. {done.step.name}[/]  [dim]{done.seconds:.1f} s[/]")
    refusals = iter(done.refusals)
    for attempt in done.attempts:
        if attempt.outcome != "accepted":
            out.print(
                f"   [yellow]✗ {attempt.model}[/] {attempt.outcome.value.replace('_', ' ')}: ", end="", highlight=False
            )
            said = next(refusals, attempt.detail) if attempt.detail.startswith("the check ") else attempt.detail
            out.print(said, markup=False, style="dim")
    if done.answer is not None:
        style = tier_style(done.tier_level)
        shown = " ".join(done.answer.split())
        out.print(f"   [{style}]✓ {done.model}[/] ", end="")
        out.print(shown if len(shown) <= 300 else shown[:297] + "…", markup=False)
    else:
        out.print(f"   – {done.model}: {done.status}", markup=False, style="dim")


def _totals(out: Console, done: Sequence[_Done], where: str | None) -> None:
    columns = ["step", "task type", "conf.", "tier", "model", "tokens in / out", "cost", "on baseline", "why"]
    wide = out.width >= _WIDE
    if not wide:
        columns.remove("why")
    drawn = table(*columns, right=("conf.", "tokens in / out", "cost", "on baseline"))
    for number, ended in enumerate(done, start=1):
        sign = "~" if ended.estimated else ""
        classification = ended.decision.classification
        cells = [
            f"{number}. {ended.step.name}",
            classification.task_type.name,
            classification.sure,
            f"[{tier_style(ended.tier_level)}]{ended.tier_name}[/]",
            ended.model,
            ended.tokens,
            f"{sign}{money(ended.cost_usd, 6)}",
            f"{sign}{money(ended.baseline_usd, 6)}",
        ]
        drawn.add_row(*cells, *([_why(ended)] if wide else []))
    spent, baseline = _sum([ended.cost_usd for ended in done]), _sum([ended.baseline_usd for ended in done])
    drawn.add_section()
    total = ["[bold]total[/]", "", "", "", "", "", f"[bold]{money(spent, 6)}[/]", f"[bold]{money(baseline, 6)}[/]"]
    drawn.add_row(*total, *([""] if wide else []))
    out.print()
    out.print(drawn)
    if not wide:
        for number, ended in enumerate(done, start=1):
            out.print(f"{number}. {_why(ended)}", markup=False, style="dim")
        out.print()
    name = done[0].decision.baseline_model.id
    saved = baseline - spent
    out.print(
        f"[bold]{money(abs(saved), 6)} {'saved' if saved >= 0 else 'more'}[/] "
        f"({percent(abs(saved), baseline)}) against all five steps on {name}."
    )
    if any(ended.estimated for ended in done):
        really = _sum([ended.cost_usd for ended in done if not ended.estimated])
        out.print(f"~ is estimated: nothing was sent for it. Really spent: {money(really)}.", style="dim")
    if where is not None:
        out.print(f"Ledger: {where}   (tierwise report --project {PROJECT})", markup=False, soft_wrap=True)


def _why(done: _Done) -> str:
    """The reason that decided, without its figures, and what became of it."""
    passed_over = {"classified", "ruled_out"}
    deciding = next((reason.text for reason in done.decision.reasons if reason.step not in passed_over), "")
    deciding = re.sub(r" \(about .*?\)", "", deciding)
    return deciding if done.status == "ran" else f"{deciding}; {done.status}"


def _sum(costs: Sequence[Decimal | None]) -> Decimal:
    return sum((cost for cost in costs if cost is not None), Decimal(0))


def _as_json(done: Sequence[_Done], where: str | None) -> dict[str, Any]:
    spent, baseline = _sum([ended.cost_usd for ended in done]), _sum([ended.baseline_usd for ended in done])
    return {
        "steps": [
            {
                "step": ended.step.name,
                "task_type": ended.decision.classification.task_type.name,
                "confidence": round(ended.decision.classification.confidence, 4),
                "tier": ended.tier_name,
                "model": ended.model,
                "status": ended.status,
                "estimated": ended.estimated,
                "attempts": len(ended.attempts),
                "answer": ended.answer,
                "cost_usd": ended.cost_usd,
                "baseline_cost_usd": ended.baseline_usd,
                "why": _why(ended),
            }
            for ended in done
        ],
        "cost_usd": spent,
        "baseline_cost_usd": baseline,
        "saved_usd": baseline - spent,
        "ledger": where,
    }
