"""The findings on a terminal: one screen of 80 columns and 40 lines, or everything with `full`.

Lines are values, each a few spans of text with a style, so that what is shown does not depend on who shows it. Names
out of files are cut to their column and cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tierwise.analysis import findings as f
from tierwise.analysis.aggregate import percent
from tierwise.analysis.names import printable, short_names
from tierwise.core.money import format_usd

__all__ = ["HEIGHT", "WIDTH", "Line", "Span", "comparison", "screen"]

WIDTH = 80
HEIGHT = 40
_NAME, _BAR = 30, 8
_NUMBERS = (10, 12, 7, 12)  # calls, spent, share, routed
_CLASSES = {
    "input": "fresh input",
    "output": "output",
    "cache_read": "cache reads",
    "cache_write_5m": "5m cache writes",
    "cache_write_1h": "1h cache writes",
    "web_search": "web searches",
    "told": "told as a sum",
}
_PRIVATE = "Everything stays on this machine: nothing is sent, and no text of yours is kept."


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line. `style` is one of "", "bold", "dim", "green", "yellow", "cyan"."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def _line(*parts: str | Span) -> Line:
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def screen(found: f.Findings, *, full: bool = False, bar: str = "█") -> list[Line]:
    """The report. `bar` is what bars are made of."""
    return list(_Screen(found, full, bar).lines())


class _Screen:
    def __init__(self, found: f.Findings, full: bool, bar: str) -> None:
        self._found = found
        self._full = full
        self._bar = bar
        self._places = 2 if found.actual_usd >= 10 else 4
        self._projects = short_names(row.project for row in found.by_project)

    def lines(self) -> Iterator[Line]:
        yield from self._head()
        yield ()
        yield self._row("where the money went", "calls", "spent", "share", "routed", style="bold")
        yield from self._rows("by model", ((row.model, row) for row in self._found.by_model), 4)
        yield from self._rows("by type of work", ((row.task_type, row) for row in self._found.by_task_type), 5)
        yield from self._rows("by project", ((self._projects[row.project], row) for row in self._found.by_project), 3)
        if self._full:
            yield from self._rows("by day", ((row.day, row) for row in self._found.by_day), 4)
            yield from self._rows("by agent", ((row.agent, row) for row in self._found.by_agent), 4)
            yield from self._rows("by kind", ((row.kind, row) for row in self._found.by_kind), 4)
            yield from self._rows("by phase", ((row.phase, row) for row in self._found.by_phase), 4)
            sessions = ((f"{row.first[:10]} {row.session}", row) for row in self._found.by_session)
            yield from self._rows("by session", sessions, 4)
        if self._found.actual_usd:
            classes = ((_CLASSES.get(row.token_class, row.token_class), row) for row in self._found.by_token_class)
            yield self._shares("tokens", ((name, row.actual_usd) for name, row in classes))
            if not self._full:
                yield self._shares("agents", ((row.agent, row.actual_usd) for row in self._found.by_agent))
        yield ()
        yield from self._changes()
        if self._full:
            yield from self._assumptions()
            yield from self._policies()
            yield from self._levers()
        yield ()
        yield from self._notes()

    def _money(self, usd: Decimal) -> str:
        return format_usd(usd, places=self._places)

    def _head(self) -> Iterator[Line]:
        found = self._found
        days = " to ".join(dict.fromkeys((moment or "")[:10] for moment in (found.period.from_, found.period.to)))
        yield _line(
            Span("tierwise analyze", "bold"),
            f" · {days} · {_count(found.sessions, 'session')} · {_count(found.calls, 'call')}",
        )
        yield _line(Span(_PRIVATE, "dim"))
        yield ()
        might = found.counterfactual
        amounts = [self._money(found.actual_usd), self._money(might.expected_usd)]
        width = max(map(len, amounts))
        yield _line("  spent         ", Span(amounts[0].rjust(width), "bold"))
        if not might.recommended:
            more = self._money(might.policy_expected_usd - found.actual_usd)
            yield _line(
                "  with routing  ",
                Span(amounts[1].rjust(width), "bold"),
                Span("  no less" if might.policy_expected_usd == found.actual_usd else f"  it would cost {more} more"),
                ": not advised",
            )
            return
        least = Decimal(0) if might.high_usd > found.actual_usd else found.actual_usd - might.high_usd
        most = percent(found.actual_usd - might.low_usd, found.actual_usd)
        yield _line(
            "  with routing  ",
            Span(amounts[1].rjust(width), "bold"),
            "  ",
            Span(f"{might.saved_pct} % less", "green"),
            f", between {percent(least, found.actual_usd)} % and {most} %",
        )
        if might.at_worst_usd > found.actual_usd:
            more = self._money(might.at_worst_usd - found.actual_usd)
            yield _line(Span(f"  at worst, if every assumption fails at once, it costs {more} more", "yellow"))

    def _row(self, name: str, *numbers: str, bar: str = "", style: str = "") -> Line:
        cells = (_fit(name, _NAME), *(text.rjust(cells) for text, cells in zip(numbers, _NUMBERS, strict=True)))
        return _line(Span("".join(cells), style), *((" ", Span(bar, "cyan")) if bar else ()))

    def _rows(self, title: str, named: Iterable[tuple[str, f.Spent]], most: int) -> Iterator[Line]:
        rows = [(name, row) for name, row in named if self._full or row.actual_usd or row.unpriced_calls]
        if not rows:
            return
        yield _line(Span(title, "dim"))
        listed = rows if self._full or len(rows) <= most else rows[: most - 1]
        for name, row in listed:
            yield self._of(f" {printable(name)}", row.calls, row.actual_usd, row.routed_usd)
        if rest := [row for _, row in rows[len(listed) :]]:
            yield self._of(
                f" {len(rest):,} others",
                sum(row.calls for row in rest),
                sum((row.actual_usd for row in rest), Decimal(0)),
                sum((row.routed_usd for row in rest), Decimal(0)),
            )

    def _of(self, name: str, calls: int, spent: Decimal, routed: Decimal) -> Line:
        share = percent(spent, self._found.actual_usd)
        return self._row(
            name,
            f"{calls:,}",
            self._money(spent),
            f"{share:.0f} %",
            self._money(routed),
            bar=self._bar * round(share * _BAR / 100),
        )

    def _shares(self, title: str, named: Iterable[tuple[str, Decimal]]) -> Line:
        whole = self._found.actual_usd
        parts = [f"{printable(name)} {percent(usd, whole):.0f} %" for name, usd in named if usd]
        return _line(Span(f"{title:8}", "dim"), _fit(", ".join(parts), WIDTH - 8).rstrip())

    def _changes(self) -> Iterator[Line]:
        changes = self._found.changes
        if not changes:
            yield _line(Span("No change was found that would save anything worth the trouble.", "bold"))
            return
        title = "The change worth most" if len(changes) == 1 else f"The {_WORDS[len(changes)]} changes worth most"
        overlap = "  they overlap: do not add them up" if len(changes) > 1 else ""
        yield _line(Span(title, "bold"), Span(overlap.ljust(61 - len(title)), "dim"), Span(f"{'saves':>12}", "bold"))
        for number, change in enumerate(changes, start=1):
            amount = self._money(change.saves_usd).rjust(12)
            share = f"{change.saves_pct:.0f} %".rjust(7)
            yield _line(f" {number} {_fit(change.means, 58)}", Span(f"{amount}{share}", "green"))
            yield _line("   ", Span(change.command, "cyan"))

    def _assumptions(self) -> Iterator[Line]:
        might = self._found.counterfactual
        yield ()
        yield _line(Span("what routing's expected cost rests on", "bold"))
        for part in might.contributions:
            yield _line(f" {_fit(part.means, 64)}{self._money(part.usd).rjust(14)}")
        for name, ends in (
            ("assumptions, favourable to unfavourable", might.assumptions),
            ("other sessions", might.sampling),
        ):
            yield _line(f" {_fit(name, 44)}{self._money(ends.low_usd):>16} to {self._money(ends.high_usd):>14}")
        known = might.learned_from
        if known.conversations or known.turns or known.answers:
            yield _line(f" of your own ledger: {known.conversations:,} conversations, {known.answers:,} judged answers")

    def _policies(self) -> Iterator[Line]:
        if self._found.policies:
            yield ()
            yield from comparison(self._found)

    def _levers(self) -> Iterator[Line]:
        if self._found.levers:
            yield ()
            yield _line(Span(f"{'beside routing':57}{'calls':>10}{'saves':>12}", "bold"))
        for lever in self._found.levers:
            yield _line(f" {_fit(lever.means, 56)}{lever.calls:>10,}{self._money(lever.saves_usd):>12}")

    def _notes(self) -> Iterator[Line]:
        found = self._found
        own = found.reconciled
        if own.sessions or own.unknown_model_sessions:
            text = f"Claude Code's own figure agrees in {own.agreeing:,} of {_count(own.sessions, 'session')}"
            if own.not_in_transcript_usd:
                text += f"; {self._money(own.not_in_transcript_usd)} of it is in no transcript"
            if own.beyond_claude_code_usd:
                text += f"; {self._money(own.beyond_claude_code_usd)} is beyond it"
            if own.unknown_model_sessions:
                text += f"; {own.unknown_model_sessions:,} not compared, with a model of unknown price"
            yield from _wrapped(f"{text}.")
            if self._full:
                for row in own.differences:
                    yield _line(
                        f" {_fit(printable(row.session), 38)}{format_usd(row.claude_code_usd, places=6):>13}"
                        f"{format_usd(row.ours_usd, places=6):>13}{format_usd(row.not_in_transcript_usd, places=6):>14}"
                    )
        if found.unpriced_calls:
            models = ", ".join(map(printable, found.unpriced_models))
            text = f"{_count(found.unpriced_calls, 'call')} without a known price, in no amount: {models}"
            yield _line(Span(text if self._full else _fit(text, WIDTH).rstrip(), "yellow"))
        yield from self._skipped()
        if not self._full:
            yield _line(Span("more: --full, --html FILE, --csv FILE, --json; other policies: tierwise replay", "dim"))

    def _skipped(self) -> Iterator[Line]:
        skipped = self._found.skipped
        unknown = len(skipped.unknown_kinds) + len(skipped.unknown_fields)
        parts = [_count(skipped.lines, "unreadable line")] if skipped.lines else []
        parts += (
            [_count(unknown, "unknown kind of row or field", "unknown kinds of rows and fields")] if unknown else []
        )
        if not parts:
            return
        more = "" if self._full else " (--full: which)"
        yield _line(Span(f"Skipped: {', '.join(parts)}{more}", "yellow"))
        if self._full:
            for line in skipped.examples:
                yield _line(f" {printable(line.file)}:{line.line}: {printable(line.why)}")
            for row in (*skipped.unknown_kinds, *skipped.unknown_fields):
                yield _line(f" {printable(row.kind)}: {row.rows:,}")


_WORDS: Mapping[int, str] = {2: "two", 3: "three"}


def comparison(found: f.Findings) -> Iterator[Line]:
    """Policies over the same calls, the cheapest first."""
    might = found.counterfactual
    rows: list[tuple[str, Decimal, int | None]] = [
        ("as it was", found.actual_usd, None),
        (might.policy, might.policy_expected_usd, None),
        *((policy.policy, policy.expected_usd, policy.below_calls) for policy in found.policies),
    ]
    yield _line(Span(f"{'the same calls under':32}{'expected':>14}{'saves':>10}{'below their work':>22}", "bold"))
    for name, usd, below in sorted(rows, key=lambda row: row[1]):
        saves = percent(found.actual_usd - usd, found.actual_usd)
        told = "" if not below else f"{_count(below, 'call')}"
        places = 2 if found.actual_usd >= 10 else 4
        yield _line(f" {_fit(printable(name), 31)}{format_usd(usd, places=places):>14}{f'{saves} %':>10}{told:>22}")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _fit(text: str, cells: int) -> str:
    """Exactly so many columns: cut with an ellipsis, or filled with blanks. A wide character takes two."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415  only where something is shown

    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _wrapped(text: str) -> Iterator[Line]:
    import textwrap  # noqa: PLC0415  as above

    for line in textwrap.wrap(text, WIDTH):
        yield _line(line)


def plain(lines: Sequence[Line]) -> str:
    """The lines as text."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)
