"""What to change: the three things worth most, each with the command that makes it, and what `--apply` writes.

A change that would send work to a lower tier than it asks for saves money by doing it worse. Claude Code's own levers
(a model for all subagents, opusplan) look at no work, so each is only advised where that happens to at most one call
in ten of those that it moves. Routing decides call by call, and needs no such limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tierwise.analysis import findings as f
from tierwise.analysis.aggregate import percent
from tierwise.config.edit import Value
from tierwise.core.calls import CallKind
from tierwise.core.settings import Settings
from tierwise.replay import known_models

__all__ = ["MOST", "Recommended", "advised", "recommended"]

MOST = 3
ROUTE, SUBAGENTS, OPUSPLAN = "route", "subagents", "opusplan"
_LEAST_SHARE = Decimal("0.5")  # percent of what was spent: less is not worth a change
_LONGEST = 36  # characters, so that a change fits its line
_MOST_BELOW = 10  # one call in so many


def advised(found: f.Findings, settings: Settings) -> f.Findings:
    """The findings with the changes worth most, the best first; fewer where fewer pay."""
    changes = [
        change
        for change in (_routing(found), *_own_levers(found, settings), *_levers(found))
        if change.saves_pct >= _LEAST_SHARE
    ]
    best: dict[str, f.Change] = {}  # of several ways of the same kind, one
    for change in sorted(changes, key=lambda change: (-change.saves_usd, change.change)):
        best.setdefault(change.change, change)
    return replace(found, changes=tuple(best.values())[:MOST])


def _change(found: f.Findings, name: str, saves_usd: Decimal, means: str, command: str) -> f.Change:
    return f.Change(
        change=name, saves_usd=saves_usd, saves_pct=percent(saves_usd, found.actual_usd), means=means, command=command
    )


def _routing(found: f.Findings) -> f.Change:
    might = found.counterfactual
    moved = percent(Decimal(might.moved_calls), Decimal(found.calls))
    names = [name.removeprefix("claude-") for name in might.requests_for]
    what = "every call" if len(names) == len(found.by_model) else f"requests for {', '.join(names)}"
    if len(what) > _LONGEST:
        what = f"requests for {len(names)} of {len(found.by_model)} models"
    return _change(
        found,
        ROUTE,
        found.actual_usd - might.expected_usd,
        f"route {what} ({moved:.0f} % would move)",
        "tierwise analyze --apply --claude-code && tierwise serve",
    )


def _own_levers(found: f.Findings, settings: Settings) -> list[f.Change]:
    changes = []
    calls = {row.kind: row.calls for row in found.by_kind}
    models = {spec.tier.name: spec.models[0].id for spec in settings.catalog}
    for policy in found.policies:
        tier, _, what = policy.policy.partition("-")
        if what == "subagents" and tier in models and _fits(policy, calls.get(CallKind.SUBAGENT, 0)):
            changes.append(
                _change(
                    found,
                    SUBAGENTS,
                    found.actual_usd - policy.expected_usd,
                    f"all subagents on {tier} ({policy.below_calls:,} calls ask for more)",
                    f"export CLAUDE_CODE_SUBAGENT_MODEL={models[tier]}",
                )
            )
        elif policy.policy == OPUSPLAN and _fits(policy, found.calls):
            changes.append(
                _change(
                    found,
                    OPUSPLAN,
                    found.actual_usd - policy.expected_usd,
                    f"plan on opus, work on sonnet ({policy.below_calls:,} calls ask for more)",
                    "claude --model opusplan",
                )
            )
    return changes


def _fits(policy: f.Compared, calls: int) -> bool:
    return policy.below_calls * _MOST_BELOW <= calls


def _levers(found: f.Findings) -> list[f.Change]:
    return [_change(found, lever.lever, lever.saves_usd, lever.means, lever.how) for lever in found.levers]


@dataclass(frozen=True, slots=True)
class Recommended:
    """What `--apply` writes: keys of tierwise.toml by section and name, and of Claude Code's settings by path."""

    policy: Mapping[tuple[str, str], Value] = field(default_factory=dict)
    claude_code: Mapping[tuple[str, ...], str] = field(default_factory=dict)


def recommended(found: f.Findings, settings: Settings) -> Recommended:
    """What follows from the changes advised; empty where none of them can be written into a file."""
    names = {change.change for change in found.changes}
    if ROUTE in names:
        gateway = settings.gateway
        known = {model.id for model in known_models(settings)}
        routed = dict.fromkeys((*gateway.routed_models, *found.counterfactual.requests_for))
        policy: dict[tuple[str, str], Value] = {("gateway", "routed_models"): tuple(routed)}
        # What most money went to is what everything would go to without routing.
        if dearest := next((row.model for row in found.by_model if row.model in known), None):
            policy = {("", "baseline"): dearest, **policy}
        return Recommended(policy, {("env", "ANTHROPIC_BASE_URL"): gateway.url})
    if SUBAGENTS in names:
        command = next(change.command for change in found.changes if change.change == SUBAGENTS)
        return Recommended({}, {("env", "CLAUDE_CODE_SUBAGENT_MODEL"): command.partition("=")[2]})
    if OPUSPLAN in names:
        return Recommended({}, {("model",): OPUSPLAN})
    return Recommended()
