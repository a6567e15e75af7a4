// Overview: what was spent and saved, how calls went, and where the money goes.

import { get } from "../api.js";
import { shares, sparkline, tablePicture, timeChart } from "../charts.js";
import { clipped, h, replace } from "../dom.js";
import {
  change,
  count,
  countShort,
  duration,
  isNotCompared,
  isUnpriced,
  minuteOf,
  money,
  moneyShort,
  moneyTick,
  percent,
  percentTick,
  signedMoney,
  spent,
  stretchOf,
  UNKNOWN,
  words,
} from "../format.js";
import { empty, panel, segments, table } from "../parts.js";
import { seriesRows, seriesTable } from "../sheets.js";
import { byLevel, legend, stack } from "../tiers.js";

const MOST_TYPES = 12;
const NARROW = 640;
const MEASURES = { calls: ["Calls", count], tokens: ["Tokens", count], cost_usd: ["Cost", money] };

export async function show(context, signal) {
  const measure = Object.hasOwn(MEASURES, context.state.measure ?? "") ? context.state.measure : "calls";
  const query = context.query();
  const points = String(innerWidth < NARROW ? 24 : 60); // bars that are wide enough to be told apart
  const series = (name) =>
    get("series", new URLSearchParams([...query, ["measure", name], ["by", "tier"], ["points", points]]), signal);
  const [told, cost, distribution, types] = await Promise.all([
    get("overview", query, signal),
    series("cost_usd"),
    measure === "cost_usd" ? null : series(measure),
    get("task-types", query, signal),
  ]);
  return {
    elements: [
      told.now.calls === 0 && told.last_call_at !== null ? nothing(context, told) : lead(context, told),
      cards(told),
      h(
        "div",
        { class: "columns" },
        costPanel(context, cost, told.now),
        sharePanel(context, distribution ?? cost, measure),
      ),
      typesPanel(context, types.items),
    ],
  };
}

function nothing(context, told) {
  return h(
    "section",
    { class: "panel banner" },
    h("p", {}, `No calls in this time with these filters. The last call was ${minuteOf(told.last_call_at)}.`),
    h(
      "div",
      { class: "row" },
      h(
        "button",
        { type: "button", on: { click: () => context.go({ view: context.state.view, range: "365d" }) } },
        "Show the last year, without filters",
      ),
    ),
  );
}

/** What the baseline is called; by its name as soon as that is known, for which the figures do not wait. */
function baseline(context) {
  const name = h("span", {}, "the baseline");
  const tell = () => context.choices && replace(name, clipped(context.choices.baseline_model));
  if (context.choices) tell();
  else context.ready?.then(tell);
  return name;
}

/** The figures in a sentence, with what they leave out. */
function lead(context, { now }) {
  const saved = Number(now.saved_usd);
  const doubts = [
    now.unpriced_calls &&
      `${count(now.unpriced_calls)} ${now.unpriced_calls === 1 ? "call has" : "calls have"} no known price and ${now.unpriced_calls === 1 ? "is" : "are"} in no saving`,
    now.estimated_attempts &&
      `${count(now.estimated_attempts)} ${now.estimated_attempts === 1 ? "attempt was" : "attempts were"} counted by estimate`,
    now.open_calls &&
      `${count(now.open_calls)} ${now.open_calls === 1 ? "call is" : "calls are"} still open (${money(now.open_cost_usd)} at most)`,
  ].filter(Boolean);
  return h(
    "div",
    {},
    h(
      "p",
      { class: "lead" },
      isUnpriced(now)
        ? ["What you spent is ", h("strong", {}, UNKNOWN)]
        : [`You spent ${now.unpriced_attempts ? "at least " : ""}`, h("strong", {}, money(now.cost_usd))],
      isNotCompared(now)
        ? ": no price is known of the models that answered."
        : [
            "; ",
            baseline(context),
            " alone would have cost ",
            h("strong", {}, money(now.baseline_usd)),
            ". ",
            h(
              "strong",
              { class: saved < 0 ? "bad" : saved > 0 ? "good" : null },
              saved < 0
                ? `Routing lost ${money(String(now.saved_usd).replace("-", ""))}`
                : `Routing saved ${money(now.saved_usd)}`,
            ),
            now.saved_percent === null ? "." : ` (${percent(now.saved_percent / 100)}).`,
          ],
    ),
    h(
      "p",
      { class: "note" },
      "Failed attempts, routing's own cost and lost cache are counted as spent.",
      doubts.length ? ` ${doubts.join("; ")}.` : "",
      now.unpriced_calls > 0 && [
        " A price of your own goes into tierwise.toml, under ",
        h("code", {}, "[[prices]]"),
        ".",
      ],
    ),
  );
}

/** The stretches that are over and lie in the period: a sum of part of one would look as if it fell. */
function whole(points, until, interval_seconds) {
  const [end, stretch] = [Date.parse(until), interval_seconds * 1000];
  const at = points.map((point) => Date.parse(point.at));
  const found = points.filter((_, i) => at[i] + stretch <= end && (i > 0 || at[1] - at[0] === stretch));
  return found.length > 1 ? found : points;
}

function cards({ until, interval_seconds, now, before, points }) {
  const of = (name) => points.map((point) => point[name]);
  const began = before?.calls > 0; // else there is nothing to compare with
  const against = (value) => (began ? value : null);
  const sum = (name) => whole(points, until, interval_seconds).map((point) => point[name]);
  return h("div", { class: "cards" }, [
    card(
      "Spent",
      h("span", { title: spent(now) }, spent(now, moneyShort)),
      against(change(now.cost_usd, before?.cost_usd)),
      0,
      isUnpriced(now) ? [] : sum("cost_usd"),
    ),
    card(
      "Saved",
      isNotCompared(now)
        ? UNKNOWN
        : h(
            "span",
            { class: Number(now.saved_usd) < 0 ? "bad" : null, title: signedMoney(now.saved_usd) },
            signedMoney(now.saved_usd, moneyShort),
          ),
      against(change(now.saved_usd, before?.saved_usd)),
      1,
      isNotCompared(now) ? [] : sum("saved_usd"),
    ),
    card(
      "Saved, of baseline",
      now.saved_percent === null ? "—" : percent(now.saved_percent / 100),
      points_(now.saved_percent, before?.saved_percent, 1),
      1,
      of("saved_percent"),
    ),
    card("Calls", count(now.calls), against(change(now.calls, before?.calls)), 0, sum("calls")),
    card(
      "Escalated",
      percent(now.escalation_rate),
      points_(now.escalation_rate, before?.escalation_rate, 100),
      -1,
      of("escalation_rate"),
    ),
    card(
      "Latency, p50",
      duration(now.p50_latency_ms),
      change(now.p50_latency_ms, before?.p50_latency_ms),
      -1,
      of("p50_latency_ms"),
    ),
    card(
      "Latency, p95",
      duration(now.p95_latency_ms),
      change(now.p95_latency_ms, before?.p95_latency_ms),
      -1,
      of("p95_latency_ms"),
    ),
  ]);
}

/** How a share changed, in points of a per cent: `+1.2 pp`. */
function points_(now, before, factor) {
  if (now === null || now === undefined || before === null || before === undefined) return null;
  const by = (now - before) * factor;
  if (Math.abs(by) < 0.05) return "no change";
  return `${by > 0 ? "+" : "−"}${Math.abs(by).toFixed(1)} pp`;
}

/** `better`: 1 if more is better, −1 if less is, 0 if that is for the viewer to say. */
function card(label, value, changed, better, values) {
  const sign = changed?.startsWith("+") ? 1 : changed?.startsWith("−") ? -1 : 0;
  const kind = sign && better ? (sign === better ? "good" : "bad") : "";
  const arrow = sign > 0 ? "▲ " : sign < 0 ? "▼ " : "";
  return h(
    "section",
    { class: "card", "aria-label": label },
    h("h2", { class: "label" }, label),
    h("p", { class: "value" }, value),
    h(
      "p",
      { class: `change ${kind}`, title: "Against the period as long just before" },
      changed === null
        ? "nothing before"
        : [
            h("span", { "aria-hidden": "true" }, arrow),
            changed,
            h("span", { class: "sr-only" }, " against the period before"),
          ],
    ),
    sparkline(values),
  );
}

function costPanel(context, series, now) {
  const title = "Cost over time, by tier";
  if (isUnpriced(now)) return panel({ title, body: empty("What these calls cost is not known") });
  if (Number(now.cost_usd) === 0) return panel({ title, body: empty("Nothing was spent in this time") });
  const chart = timeChart({
    title,
    ...series,
    kind: "stack",
    tick: moneyTick,
    tell: money,
    whole: true,
    zoom: context.zoom,
  });
  return panel({
    title,
    name: "cost-by-tier",
    note: `Each bar: ${stretchOf(series.interval_seconds)}. Drag across a chart to zoom.`,
    body: [chart.element, legend(series.lines)],
    png: chart.png,
    csv: () => seriesRows(series),
    table: () => seriesTable(title, series, money),
  });
}

function sharePanel(context, series, measure) {
  const title = `Tiers by share of ${MEASURES[measure][0].toLowerCase()}`;
  const choose = segments(
    "Share of",
    Object.entries(MEASURES).map(([name, [text]]) => [name, text]),
    measure,
    (value) => context.go({ ...context.state, measure: value === "calls" ? undefined : value }),
  );
  if (!series.lines.length) return panel({ title, tools: [choose], body: empty("No calls in this time") });
  const parts = shares(series.lines.map((line) => line.values.map((value) => (value === null ? null : Number(value)))));
  const lines = series.lines.map((line, i) => ({ ...line, values: parts[i] }));
  const chart = timeChart({
    title,
    ...series,
    lines,
    kind: "stack",
    tick: percentTick,
    tell: percent,
    zoom: context.zoom,
  });
  return panel({
    title,
    name: "tier-shares",
    note: "Which tiers answered.",
    tools: [choose],
    body: [chart.element, legend(series.lines)],
    png: chart.png,
    csv: () => seriesRows(series),
    table: () => seriesTable(title, { ...series, lines }, percent),
  });
}

function typesPanel(context, items) {
  const title = "Cost by task type";
  const ranked = [...items].sort((a, b) => Number(b.cost_usd) - Number(a.cost_usd)).slice(0, MOST_TYPES);
  if (!ranked.length) return panel({ title, body: empty("No calls in this time") });
  const most = Math.max(...ranked.map((item) => Number(item.cost_usd)), 1e-12);
  const seen = new Map(ranked.flatMap((item) => item.tiers.map((tier) => [tier.tier, tier.level])));
  const lines = [...seen].map(([name, level]) => ({ name, level })).sort(byLevel);
  const rows = () => [
    [
      "task_type",
      "calls",
      "unpriced_calls",
      "cost_usd",
      "baseline_usd",
      "saved_usd",
      ...lines.map((line) => `${line.name}_usd`),
    ],
    ...items.map((item) => [
      item.task_type,
      item.calls,
      item.unpriced_calls,
      item.cost_usd,
      item.baseline_usd,
      item.saved_usd,
      ...lines.map((line) => item.tiers.find((tier) => tier.tier === line.name)?.cost_usd ?? "0"),
    ]),
  ];
  return panel({
    title,
    name: "cost-by-task-type",
    note: items.length > MOST_TYPES ? `The ${MOST_TYPES} dearest of ${items.length}.` : null,
    tools: [
      h(
        "button",
        { class: "plain", type: "button", on: { click: () => context.go({ ...context.state, view: "task-types" }) } },
        "All task types",
      ),
    ],
    body: [
      h(
        "ul",
        { class: "ranked" },
        ranked.map((item) =>
          h(
            "li",
            {},
            h(
              "div",
              { class: "name" },
              h(
                "button",
                {
                  class: "link",
                  type: "button",
                  data: { key: `ranked-${item.task_type}` },
                  on: { click: () => context.open({ type: item.task_type }) },
                },
                clipped(words(item.task_type)),
              ),
            ),
            stack(
              item.tiers.map((tier) => ({ tier: tier.tier, level: tier.level, value: Number(tier.cost_usd) })),
              most,
              `Cost of ${words(item.task_type).slice(0, 60)} by tier`,
            ),
            h(
              "span",
              { class: "amount nowrap" },
              spent(item),
              h("span", { class: "muted" }, ` · ${countShort(item.calls)} ${item.calls === 1 ? "call" : "calls"}`),
            ),
          ),
        ),
      ),
      legend(lines),
    ],
    csv: rows,
    png: () => tablePicture(title, rows()),
    table: () =>
      table({
        name: "types-cost",
        caption: title,
        rows: ranked,
        keyOf: (item) => item.task_type,
        columns: [
          { name: "type", title: "Task type", cell: (item) => clipped(words(item.task_type)) },
          { name: "calls", title: "Calls", number: true, cell: (item) => count(item.calls) },
          { name: "cost", title: "Cost", number: true, cell: (item) => spent(item) },
        ],
      }),
  });
}
