"""The comment: what it says, and the sums of earlier runs that it carries in a part that is not shown.

Theory of operation. Nothing is kept but the comment. Its first line is an HTML comment with a JSON object: for every
run of the pull request, by a key that is the same however often that run reports, its sums in whole nano-dollars. A
run puts its own under its key, in place of what it said before, and writes the comment anew; so nothing is counted
twice, and nothing is lost when a job reports twice. Of more than so many runs the oldest are folded into one sum.
What is read there is checked as anything from the network is: a comment that somebody has edited says at worst less.

Names come out of records that anybody may have written. They are shown as code, with all that means something in
Markdown or HTML escaped, since GitHub links and notifies nobody from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Self

from tierwise.core.json import Json
from tierwise.core.money import format_usd, nanousd_to_usd
from tierwise.integrations.github.spending import Spending, Sums

__all__ = ["MARKER", "Runs", "escaped", "markdown", "signed"]

MARKER = "<!-- tierwise-spend "
_END = " -->"
_FORMAT = 1
_MOST_RUNS = 150  # that are told apart; GitHub takes 65,536 characters
_MOST_MODELS = 12
_MOST_NANOUSD = 10**18
_SHOWN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,:;/_()-")


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a pull request, oldest first, and those that are only a sum by now."""

    by_key: Mapping[str, Sums] = field(default_factory=dict)
    folded: int = 0
    folded_sums: Sums = field(default_factory=Sums)

    @classmethod
    def read(cls, body: str) -> Self | None:
        """What a comment carries; None where it is none of ours, or cannot be read any more."""
        head, _, _ = body.partition("\n")
        if not head.startswith(MARKER) or not head.rstrip().endswith(_END):
            return None
        try:
            told = json.loads(head[len(MARKER) : head.rindex(_END)])
        except (ValueError, RecursionError):
            return None
        match told:
            case {"format": 1, "runs": dict(runs), "folded": int(folded), "folded_sums": sums} if 0 <= folded < 10**9:
                read = {str(key)[:200]: _sums(values) for key, values in runs.items()}
                rest = _sums(sums)
                if rest is not None and None not in read.values():
                    return cls({key: one for key, one in read.items() if one is not None}, folded, rest)
        return None

    def __len__(self) -> int:
        return len(self.by_key) + self.folded

    @property
    def total(self) -> Sums:
        """Of all runs."""
        return sum(self.by_key.values(), self.folded_sums)

    def with_run(self, key: str, sums: Sums) -> Runs:
        """With what this run spent, in place of what it said before."""
        by_key = {**self.by_key, key: sums}
        folded, folded_sums = self.folded, self.folded_sums
        while len(by_key) > _MOST_RUNS:
            folded_sums += by_key.pop(next(iter(by_key)))
            folded += 1
        return Runs(by_key, folded, folded_sums)

    def merged(self, other: Runs) -> Runs:
        """With the runs of another comment on the same pull request, which two jobs may have made at once."""
        most = max(self, other, key=lambda runs: runs.folded)
        return Runs({**other.by_key, **self.by_key}, most.folded, most.folded_sums)

    def holds(self, other: Runs) -> bool:
        """Whether the runs of an earlier state are all in it. Where one is folded further, that cannot be told: yes."""
        return self.folded != other.folded or other.by_key.keys() <= self.by_key.keys()

    def restored(self, other: Runs) -> Runs:
        """With those of an earlier state that are missing; a run that is in both stays as it is here."""
        return self if self.holds(other) else self.merged(other)

    def marker(self) -> str:
        """The line that carries them."""
        told = {
            "format": _FORMAT,
            "runs": {key: astuple(sums) for key, sums in self.by_key.items()},
            "folded": self.folded,
            "folded_sums": astuple(self.folded_sums),
        }
        # Without an angle bracket nothing in it can end the comment.
        return MARKER + json.dumps(told, separators=(",", ":")).replace(">", "\\u003e").replace("<", "\\u003c") + _END


def _sums(values: Json) -> Sums | None:
    names = [one.name for one in fields(Sums)]
    if not isinstance(values, list) or len(values) != len(names):
        return None
    whole = [one for one in values if isinstance(one, int) and not isinstance(one, bool) and abs(one) <= _MOST_NANOUSD]
    if len(whole) != len(names) or min(whole[:-1]) < 0:  # only a saving can be below zero, and it is the last
        return None
    return Sums(**dict(zip(names, whole, strict=True)))


# ------------------------------------------------------------------ words


def signed(runs: Runs, text: str) -> str:
    """The whole comment."""
    return f"{runs.marker()}\n{text}"


def markdown(now: Spending, runs: Runs | None = None, *, notes: Iterable[str] = ()) -> str:
    """What is shown: this run, and where it is known the pull request so far. `notes` are plain text."""
    rows = [("this run", now.sums)]
    if runs is not None:
        rows.append((f"this pull request, {_count(len(runs), 'run')}", runs.total))
    replayed = any(sums.routed_nanousd != sums.spent_nanousd for _, sums in rows)
    saved = any(sums.saved_nanousd for _, sums in rows)
    heads = ["", "calls", "spent", *(["with routing"] if replayed else []), *(["saved by routing"] if saved else [])]
    lines = ["### What agents cost", "", _row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    for name, sums in rows:
        cells = [name, f"{sums.calls:,}", _usd(sums.spent_nanousd)]
        if replayed:
            low, high = _usd(sums.routed_low_nanousd), _usd(sums.routed_high_nanousd)
            cells.append(f"{_usd(sums.routed_nanousd)} ({low} to {high})")
        if saved:
            cells.append(_usd(sums.saved_nanousd))
        lines.append(_row(cells))
    lines += ["", *_by_model(now)]
    lines += [f"{note}\n" for note in (*_notes(now, rows[-1][1], replayed=replayed), *map(_inert, notes))]
    return "\n".join(lines).rstrip() + "\n"


def _by_model(now: Spending) -> list[str]:
    if not now.models:
        return []
    lines = ["<details><summary>This run by model</summary>", "", _row(["model", "calls", "spent"]), "|---|---:|---:|"]
    for one in now.models[:_MOST_MODELS]:
        calls = "–" if one.calls is None else f"{one.calls:,}"
        lines.append(
            _row([escaped(one.model), calls, "unpriced" if one.spent_nanousd is None else _usd(one.spent_nanousd)])
        )
    if len(now.models) > _MOST_MODELS:
        lines.append(_row([f"{len(now.models) - _MOST_MODELS} more", "", ""]))
    return [*lines, "", "</details>", ""]


def _notes(now: Spending, all_runs: Sums, *, replayed: bool) -> list[str]:
    notes = []
    if replayed:
        notes.append(
            "*With routing*: what the same calls are expected to cost where each goes to the cheapest model that does "
            "it well, and how far that may be off."
        )
    elif now.replayed:
        notes.append("Routing would not have made this run cheaper.")
    if all_runs.unpriced_calls:
        notes.append(f"{_count(all_runs.unpriced_calls, 'call')} of unknown price: in no amount.")
    if now.unread_reports:
        notes.append(
            f"{_count(now.unread_reports, 'execution file')} of this run without a result: what it cost is not known."
        )
    return notes


def escaped(name: str) -> str:
    """A name as code in which nothing means anything: no Markdown, no HTML, nobody mentioned."""
    return f"<code>{_inert(name[:60] + ('…' if len(name) > 60 else '')) or '–'}</code>"


def _inert(text: str) -> str:
    return "".join(one if one in _SHOWN else f"&#{ord(one)};" if one.isprintable() else "�" for one in text)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _usd(nanousd: int) -> str:
    usd = nanousd_to_usd(nanousd)
    return format_usd(usd, places=2 if abs(usd) >= 1 else 4)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
