"""The findings as one self-contained page: no script, no font, no address, nothing that is fetched.

Charts are SVG in the page, drawn in percent of their width and in fixed heights, so that text keeps its size on a phone
and on paper; each is followed by its figures as a table. Every name out of a file goes through `escape`. The page's own
Content-Security-Policy allows its one style sheet, by its hash, and nothing else: should a name ever get past the
escaping, it still could not run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from html import escape as _escape

from tierwise.analysis import findings as f
from tierwise.analysis.aggregate import Totals, percent
from tierwise.analysis.names import printable, short_names
from tierwise.analysis.session import COLUMNS, Cell
from tierwise.core.money import format_usd, nanousd_to_usd

__all__ = ["page"]

_COLOURS = 6  # that are told apart; whatever is left over is grey
_ROWS = 12
_MOST_COLUMNS = 62  # days; longer periods are shown by week
_CHART_HEIGHT, _BARS_HEIGHT = 180, 164
_CLASSES = {
    "cache_read": "cache reads",
    "cache_write_1h": "1h cache writes",
    "cache_write_5m": "5m cache writes",
    "input": "fresh input",
    "output": "output",
    "web_search": "web searches",
    "told": "told as a sum",
}

# The colours are Okabe and Ito's, which people who confuse colours can tell apart too.
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1a1d21;--dim:#5c6570;--line:#d9dee4;--card:#f5f7f9;--good:#007a58;
--warn:#9a5b00;--c0:#0072b2;--c1:#e69f00;--c2:#009e73;--c3:#cc79a7;--c4:#56b4e9;--c5:#d55e00;--c6:#9aa3ad}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e8ebee;--dim:#a0a9b3;--line:#343a41;--card:#1d2125;
--good:#3ecf9f;--warn:#f0b35a;--c0:#4aa3dc;--c4:#b9e3fb;--c6:#77818c}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem 3rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .25rem}
h2{font-size:1.15rem;margin:2.25rem 0 .5rem}
p{margin:.4rem 0}
.dim,figcaption,caption{color:var(--dim);font-size:.9rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.75rem;margin:1.25rem 0;padding:0}
.cards div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1rem}
.cards dt{color:var(--dim);font-size:.85rem}
.cards dd{margin:0;font-size:1.45rem;white-space:nowrap;font-weight:650;line-height:1.3;
font-variant-numeric:tabular-nums}
.cards .note{white-space:normal;font-size:.85rem;font-weight:400;color:var(--dim)}
.good dd{color:var(--good)}
.warn{color:var(--warn)}
figure{margin:.5rem 0 0}
svg{display:block;width:100%;overflow:visible}
svg text{fill:var(--fg);font-size:13px;font-family:inherit;font-variant-numeric:tabular-nums}
svg .quiet{fill:var(--dim);font-size:12px}
svg .end{text-anchor:end}
svg .halo{paint-order:stroke;stroke:var(--bg);stroke-width:3px}
svg .grid{stroke:var(--line);stroke-width:1}
svg .back{fill:var(--line)}
svg .mark{fill:var(--fg)}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}
.f6{fill:var(--c6)}
.b0{background:var(--c0)}.b1{background:var(--c1)}.b2{background:var(--c2)}.b3{background:var(--c3)}
.b4{background:var(--c4)}.b5{background:var(--c5)}.b6{background:var(--c6)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;margin:.5rem 0 0;padding:0;font-size:.9rem}
.legend i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em}
ol.changes{padding-left:1.4rem}
ol.changes li{margin:.7rem 0}
code{font:.9em ui-monospace,monospace;background:var(--card);border:1px solid var(--line);border-radius:.3rem;
padding:.1rem .35rem}
details{margin:.5rem 0}
summary{cursor:pointer;color:var(--dim);font-size:.9rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th+th,td{text-align:right;white-space:nowrap}caption{text-align:left}
th[scope=row]{font-weight:400;min-width:8rem}
footer{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:.75rem}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--dim:#444;--line:#bbb;--card:#fff}
body{max-width:none;padding:0;font-size:11pt}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
h2{break-after:avoid}figure,li,tr{break-inside:avoid}details:not([open]){display:none}}
"""


def page(totals: Totals, home: str = "") -> str:
    """The whole page. Of projects it has the ends of their paths, and nothing of `home`, which may bear a name."""
    return "".join(_Page(totals, home).parts())


def escape(text: str) -> str:
    """A text as HTML shows it. What cannot be seen is shown as a dot: direction marks could turn figures around."""
    return _escape(printable(text), quote=True)


def _hash_of_style() -> str:
    return base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


class _Page:
    def __init__(self, totals: Totals, home: str) -> None:
        self._found = totals.findings
        self._cells = totals.cells
        self._places = 2 if self._found.actual_usd >= 10 else 4
        self._projects = short_names((row.project for row in self._found.by_project), home)

    def parts(self) -> Iterator[str]:
        found = self._found
        policy = f"default-src 'none'; style-src 'sha256-{_hash_of_style()}'; base-uri 'none'; form-action 'none'"
        yield (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
            f"<title>What routing would have saved</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        )
        yield from self._head()
        yield from self._changes()
        yield from self._range()
        yield from self._days()
        yield self._section(
            "By type of work",
            [(row.task_type.replace("_", " "), row) for row in found.by_task_type],
            "type of work",
        )
        yield self._section("By model", [(row.model, row) for row in found.by_model], "model")
        yield self._section("By project", [(self._projects[row.project], row) for row in found.by_project], "project")
        yield self._section("By agent", [(row.agent, row) for row in found.by_agent], "agent")
        yield from self._classes()
        yield from self._policies()
        yield from self._notes()
        yield "</main>\n</body>\n</html>\n"

    def _usd(self, usd: Decimal) -> str:
        return format_usd(usd, places=self._places)

    def _head(self) -> Iterator[str]:
        found = self._found
        might = found.counterfactual
        days = " to ".join(dict.fromkeys((at or "")[:10] for at in (found.period.from_, found.period.to)))
        yield "<header>\n<h1>What routing would have saved</h1>\n"
        yield f'<p class="dim">{escape(days)} · {found.sessions:,} sessions · {found.calls:,} calls to a model</p>\n'
        yield '<dl class="cards">\n'
        yield _card("Spent", self._usd(found.actual_usd), "at the prices of each day")
        yield _card("With routing", self._usd(might.expected_usd), "expected" if might.recommended else "not advised")
        saved = self._usd(found.actual_usd - might.expected_usd)
        if might.recommended:
            between = f"{saved}; between {self._least_saved()} % and {self._most_saved()} %"
            yield _card("Less", f"{might.saved_pct} %", between, "good")
        else:
            more = self._usd(might.policy_expected_usd - found.actual_usd)
            yield _card("Less", "nothing", f"routing would have cost {more} more")
        yield "</dl>\n</header>\n"

    def _least_saved(self) -> Decimal:
        spent = self._found.actual_usd
        return percent(spent - self._found.counterfactual.high_usd, spent)

    def _most_saved(self) -> Decimal:
        spent = self._found.actual_usd
        return percent(spent - self._found.counterfactual.low_usd, spent)

    def _changes(self) -> Iterator[str]:
        yield "<section>\n<h2>What to change</h2>\n"
        if not self._found.changes:
            yield "<p>No change was found that would save anything worth the trouble.</p>\n"
        else:
            yield '<ol class="changes">\n'
            for change in self._found.changes:
                means = escape(change.means[:1].upper() + change.means[1:])
                yield (
                    f"<li>{means}: <strong>{self._usd(change.saves_usd)}</strong> ({change.saves_pct}&nbsp;%)<br>"
                    f"<code>{escape(change.command)}</code></li>\n"
                )
            yield '</ol>\n<p class="dim">They overlap: what they save cannot be added up.</p>\n'
        yield "</section>\n"

    def _range(self) -> Iterator[str]:
        might, spent = self._found.counterfactual, self._found.actual_usd
        if not might.recommended:
            return
        top = max(spent, might.at_worst_usd)
        low, expected, high = (
            _share(usd, top) for usd in (might.low_usd, might.expected_usd, min(might.high_usd, top))
        )
        said = (
            f"Spent {self._usd(spent)}. With routing {self._usd(might.low_usd)} to {self._usd(might.high_usd)}, "
            f"expected {self._usd(might.expected_usd)}."
        )
        yield "<section>\n<h2>How sure that is</h2>\n<figure>\n"
        yield _svg_open(104, "range", said)
        yield f'<text x="0" y="14">spent</text><text class="end" x="100%" y="14">{self._usd(spent)}</text>\n'
        yield f'<rect class="back" x="0" y="20" width="{_share(spent, top)}%" height="14" rx="2"/>\n'
        yield f'<text x="0" y="62">with routing</text><text class="end" x="100%" y="62">{self._usd(might.expected_usd)}'
        yield '</text>\n<rect class="back" x="0" y="68" width="100%" height="2"/>\n'
        yield f'<rect class="f2" x="{low}%" y="64" width="{max(high - low, Decimal("0.5"))}%" height="10" rx="5"/>\n'
        yield f'<circle class="mark" cx="{expected}%" cy="69" r="7"/>\n'
        yield f'<text class="quiet" x="0" y="98">from {self._usd(might.low_usd)}</text>'
        yield f'<text class="quiet end" x="100%" y="98">to {self._usd(might.high_usd)}</text>\n</svg>\n'
        yield (
            "<figcaption>The dot is what is expected, the band runs from favourable to unfavourable assumptions, over "
            f"{might.resamples:,} redrawn sets of sessions. The assumptions alone: "
            f"{self._usd(might.assumptions.low_usd)} to {self._usd(might.assumptions.high_usd)}; other sessions of the "
            f"same kind alone: {self._usd(might.sampling.low_usd)} to {self._usd(might.sampling.high_usd)}."
            "</figcaption>\n</figure>\n"
        )
        if might.at_worst_usd > spent:
            yield f'<p class="warn">At worst it would cost {self._usd(might.at_worst_usd - spent)} more.</p>\n'
        rows = [(part.means, self._usd(part.usd)) for part in might.contributions]
        if rows:
            yield _table("What the expected cost rests on", ("assumption", "adds"), rows)
        yield "</section>\n"

    # ------------------------------------------------------------------ over time

    def _days(self) -> Iterator[str]:
        columns = _columns(self._cells)
        if not columns:
            return
        models = [row.model for row in self._found.by_model if row.actual_usd]
        shown = models[:_COLOURS] if len(models) <= _COLOURS else models[: _COLOURS - 1]
        colour = {model: place for place, model in enumerate(shown)}
        top = max(sum(by_model.values()) for _, by_model in columns) or 1
        by_week = len(columns) > 1 and columns[1][0] - columns[0][0] > timedelta(days=1)
        unit = "week" if by_week else "day"
        yield "<section>\n<h2>Over time</h2>\n<figure>\n"
        yield _svg_open(_CHART_HEIGHT + 24, "days", f"US$ spent by {unit}")
        for part in (1, 2):  # half of the highest column, and its top
            y = _CHART_HEIGHT - _BARS_HEIGHT * part // 2
            yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>\n'
        width = Decimal(100) / len(columns)
        for place, (day, by_model) in enumerate(columns):
            parts = [sum(nanousd for name, nanousd in by_model.items() if name not in colour)]
            stack = [(_COLOURS, "others", parts[0])]
            stack += [(colour[name], name, by_model.get(name, 0)) for name in reversed(shown)]
            total = self._usd(nanousd_to_usd(sum(by_model.values())))
            yield f"<g><title>{day.isoformat()}: {total}</title>"
            base = Decimal(_CHART_HEIGHT)
            for number, name, nanousd in stack:
                if nanousd <= 0:
                    continue
                height = (Decimal(nanousd) * _BARS_HEIGHT / top).quantize(Decimal("0.01"))
                base -= height
                title = f"{day.isoformat()}, {escape(name)}: {self._usd(nanousd_to_usd(nanousd))}"
                yield (
                    f'<rect class="f{number}" x="{_two(width * place + width / 10)}%" y="{base}" '
                    f'width="{_two(width * 8 / 10)}%" height="{height}"><title>{title}</title></rect>'
                )
            yield "</g>\n"
        for part in (1, 2):  # over the bars, so that they can be read
            y = _CHART_HEIGHT - _BARS_HEIGHT * part // 2
            yield f'<text class="quiet halo" x="0" y="{y - 4}">{self._usd(nanousd_to_usd(top) * part / 2)}</text>\n'
        yield f'<line class="grid" x1="0" x2="100%" y1="{_CHART_HEIGHT}" y2="{_CHART_HEIGHT}"/>\n'
        y = _CHART_HEIGHT + 17
        yield f'<text class="quiet" x="0" y="{y}">{columns[0][0]}</text>'
        if len(columns) > 1:
            yield f'<text class="quiet end" x="100%" y="{y}">{columns[-1][0]}</text>'
        yield "\n</svg>\n"
        legend = [(place, model) for model, place in colour.items()]
        yield _legend([*legend, *([(_COLOURS, "others")] if len(shown) < len(models) else [])])
        yield f"<figcaption>US$ spent by {unit} and model (UTC).</figcaption>\n</figure>\n"
        header = (unit, *shown, *(("others",) if len(shown) < len(models) else ()), "all")
        rows = []
        for day, by_model in columns:
            listed = [by_model.get(name, 0) for name in shown]
            everything = sum(by_model.values())
            rest = [everything - sum(listed)] if len(shown) < len(models) else []
            rows.append(
                (day.isoformat(), *(self._usd(nanousd_to_usd(nanousd)) for nanousd in (*listed, *rest, everything)))
            )
        yield _table(f"US$ by {unit} and model", header, rows)
        yield "</section>\n"

    # ------------------------------------------------------------------ rankings

    def _section(self, title: str, rows: Sequence[tuple[str, f.Spent]], what: str) -> str:
        listed = [(name, row) for name, row in rows if row.actual_usd or row.unpriced_calls]
        if not listed:
            return ""
        shown = listed if len(listed) <= _ROWS else listed[: _ROWS - 1]
        bars = [(name, row.actual_usd, row.routed_usd) for name, row in shown]
        if rest := [row for _, row in listed[len(shown) :]]:
            nothing = Decimal(0)
            bars.append(
                (
                    f"{len(rest)} others",
                    sum((row.actual_usd for row in rest), nothing),
                    sum((row.routed_usd for row in rest), nothing),
                )
            )
        top = max((usd for bar in bars for usd in bar[1:]), default=Decimal(0)) or Decimal(1)
        anchor = what.replace(" ", "-")
        parts = [f"<section>\n<h2>{title}</h2>\n<figure>\n"]
        parts.append(_svg_open(46 * len(bars), anchor, f"US$ by {what}: spent, and expected with routing"))
        for place, (name, spent, routed) in enumerate(bars):
            y = 46 * place
            share = percent(spent, self._found.actual_usd)
            parts.append(
                f'<text x="0" y="{y + 14}">{escape(_cut(name))}</text>'
                f'<text class="end" x="100%" y="{y + 14}">{self._usd(spent)} · {share:.0f} %</text>'
                f'<rect class="f0" x="0" y="{y + 20}" width="{_share(spent, top)}%" height="9" rx="2">'
                f"<title>{escape(name)}: spent {self._usd(spent)}</title></rect>"
                f'<rect class="f2" x="0" y="{y + 31}" width="{_share(routed, top)}%" height="5" rx="2">'
                f"<title>{escape(name)}: with routing {self._usd(routed)}</title></rect>\n"
            )
        parts.append("</svg>\n")
        parts.append(_legend([(0, "spent"), (2, "expected with routing")]))
        parts.append("</figure>\n")
        parts.append(
            _table(
                f"US$ by {what}",
                (what, "calls", "spent", "share", "with routing"),
                [
                    (
                        name,
                        f"{row.calls:,}",
                        self._usd(row.actual_usd),
                        f"{percent(row.actual_usd, self._found.actual_usd)} %",
                        self._usd(row.routed_usd),
                    )
                    for name, row in listed
                ],
            )
        )
        parts.append("</section>\n")
        return "".join(parts)

    def _classes(self) -> Iterator[str]:
        rows = [(_CLASSES.get(row.token_class, row.token_class), row.actual_usd) for row in self._found.by_token_class]
        rows = [(name, usd) for name, usd in rows if usd > 0]
        if not rows:
            return
        whole = sum((usd for _, usd in rows), Decimal(0))
        yield "<section>\n<h2>By kind of token</h2>\n<figure>\n"
        yield _svg_open(28, "tokens", "share of US$ spent by kind of token")
        at = Decimal(0)
        for place, (name, usd) in enumerate(rows):
            share = _share(usd, whole)
            yield (
                f'<rect class="f{min(place, _COLOURS)}" x="{at}%" y="2" width="{share}%" height="24">'
                f"<title>{escape(name)}: {self._usd(usd)}</title></rect>"
            )
            at += share
        yield "\n</svg>\n"
        yield _legend(
            [(min(place, _COLOURS), f"{name} {percent(usd, whole):.0f} %") for place, (name, usd) in enumerate(rows)]
        )
        yield "</figure>\n"
        yield _table("US$ by kind of token", ("kind", "spent"), [(name, self._usd(usd)) for name, usd in rows])
        yield "</section>\n"

    def _policies(self) -> Iterator[str]:
        found = self._found
        if not found.policies:
            return
        might = found.counterfactual
        rows = [
            ("as it was", found.actual_usd, 0),
            (might.policy, might.policy_expected_usd, 0),
            *((policy.policy, policy.expected_usd, policy.below_calls) for policy in found.policies),
        ]
        yield "<section>\n<h2>The same calls under other policies</h2>\n"
        yield _table(
            "Expected cost by policy",
            ("policy", "expected", "saves", "calls below their work"),
            [
                (
                    name,
                    self._usd(usd),
                    f"{percent(found.actual_usd - usd, found.actual_usd)} %",
                    f"{below:,}" if below else "–",
                )
                for name, usd, below in sorted(rows, key=lambda row: row[1])
            ],
            is_open=True,
        )
        yield '<p class="dim">Below their work: calls sent to a lower tier than what they ask for.</p>\n</section>\n'

    def _notes(self) -> Iterator[str]:
        found = self._found
        own = found.reconciled
        yield '<footer class="dim">\n'
        if own.sessions:
            agreeing = f"{own.agreeing:,} of {own.sessions:,} sessions"
            yield f"<p>Claude Code's own figure agrees to the micro-dollar in {agreeing}"
            if own.not_in_transcript_usd:
                yield f"; {self._usd(own.not_in_transcript_usd)} of it is in no transcript"
            if own.beyond_claude_code_usd:
                yield f"; {self._usd(own.beyond_claude_code_usd)} in the transcripts is beyond it"
            yield ".</p>\n"
        if own.unknown_model_sessions:
            yield f"<p>Sessions with a model of unknown price, not compared: {own.unknown_model_sessions:,}.</p>\n"
        if found.unpriced_calls:
            models = ", ".join(escape(model) for model in found.unpriced_models)
            yield f"<p>{found.unpriced_calls:,} calls have no known price and are in no amount: {models}.</p>\n"
        skipped = found.skipped
        if skipped.lines or skipped.unknown_kinds or skipped.unknown_fields:
            unknown = len(skipped.unknown_kinds) + len(skipped.unknown_fields)
            yield f"<p>Not read: {skipped.lines:,} lines, {unknown:,} unknown kinds of rows or fields.</p>\n"
        yield (
            "<p>Computed on one machine from its own records by tierwise analyze; nothing was sent. The page holds "
            "names of projects, models and agents, and no text of any prompt or reply.</p>\n</footer>\n"
        )


# ------------------------------------------------------------------ pieces


def _card(title: str, figure: str, note: str, kind: str = "") -> str:
    return (
        f"<div{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}><dt>{title}</dt>"
        f'<dd>{escape(figure)}</dd><dd class="note">{escape(note)}</dd></div>\n'
    )


def _svg_open(height: int, name: str, title: str) -> str:
    return (
        f'<svg height="{height}" role="img" aria-labelledby="chart-{name}" focusable="false">'
        f'<title id="chart-{name}">{escape(title)}</title>\n'
    )


def _legend(entries: Iterable[tuple[int, str]]) -> str:
    items = "".join(f'<li><i class="b{place}"></i>{escape(name)}</li>' for place, name in entries)
    return f'<ul class="legend">{items}</ul>\n'


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, is_open: bool = False) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    table = (
        f'<div class="scroll"><table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )
    return f"{table}\n" if is_open else f"<details>\n<summary>As a table</summary>\n{table}\n</details>\n"


def _columns(cells: Mapping[Cell, Sequence[int]]) -> list[tuple[date, dict[str, int]]]:
    """Spent by model for each day of the period, those without calls too; by week (from Monday) where it is long."""
    spent = COLUMNS.index("nanousd")
    by_day: dict[date, dict[str, int]] = {}
    for (day, _, model, _), sums in cells.items():
        of_day = by_day.setdefault(date.fromisoformat(day), {})
        of_day[model] = of_day.get(model, 0) + sums[spent]
    if not by_day:
        return []
    first, last = min(by_day), max(by_day)
    step = timedelta(days=1)
    if (last - first).days >= _MOST_COLUMNS:
        step = timedelta(days=7)
        first -= timedelta(days=first.weekday())
    columns: list[tuple[date, dict[str, int]]] = [
        (first + step * place, {}) for place in range((last - first) // step + 1)
    ]
    for on, of_day in by_day.items():
        into = columns[(on - first) // step][1]
        for model, nanousd in of_day.items():
            into[model] = into.get(model, 0) + nanousd
    return columns


def _share(part: Decimal, whole: Decimal) -> Decimal:
    return _two(max(Decimal(0), min(part, whole)) * 100 / whole) if whole else Decimal(0)


def _two(number: Decimal) -> Decimal:
    return number.quantize(Decimal("0.01"))


def _cut(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
