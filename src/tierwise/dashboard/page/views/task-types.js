// Task types: each with its tiers, cost, saving, confidence, acceptance and feedback. A row opens its history.

import { get } from "../api.js";
import { tablePicture } from "../charts.js";
import { clipped, h } from "../dom.js";
import { count, duration, percent, spent, words } from "../format.js";
import { empty, panel, table } from "../parts.js";
import { savedOf } from "../sheets.js";
import { byLevel, legend, stack, tierChip } from "../tiers.js";

export async function show(context, signal) {
  const { items } = await get("task-types", context.query(), signal);
  const title = "Task types";
  if (!items.length)
    return {
      elements: [
        panel({
          title,
          body: empty("No calls in this time", h("p", {}, "Choose a longer time, or clear the filters.")),
        }),
      ],
    };
  const seen = new Map(items.flatMap((item) => item.tiers.map((tier) => [tier.tier, tier.level])));
  const lines = [...seen].map(([name, level]) => ({ name, level })).sort(byLevel);
  const rows = () => csv(items, lines);
  return {
    elements: [
      panel({
        title,
        name: "task-types",
        note: "A row opens its history and how its calls were decided. Accepted: of the replies that came, those that passed their checks.",
        csv: rows,
        png: () =>
          tablePicture(
            title,
            rows().map((row) => row.slice(0, 10)),
          ),
        body: [
          legend(lines),
          table({
            name: "task-types",
            caption: "Task types in this time",
            rows: items,
            keyOf: (item) => item.task_type,
            open: (item) => context.open({ type: item.task_type }),
            sort: { name: "cost", descending: true },
            columns: [
              {
                name: "type",
                title: "Task type",
                value: (item) => item.task_type,
                cell: (item) => clipped(words(item.task_type)),
              },
              {
                name: "calls",
                title: "Calls",
                number: true,
                value: (item) => item.calls,
                cell: (item) => count(item.calls),
              },
              {
                name: "mix",
                title: "Tiers, by calls",
                cell: (item) =>
                  stack(
                    item.tiers.map((tier) => ({ tier: tier.tier, level: tier.level, value: tier.calls })),
                    null,
                    "Calls by tier",
                  ),
              },
              {
                name: "cost",
                title: "Cost",
                number: true,
                value: (item) => Number(item.cost_usd),
                cell: (item) => spent(item),
              },
              {
                name: "saved",
                title: "Saved",
                number: true,
                value: (item) => Number(item.saved_usd),
                cell: savedOf,
              },
              {
                name: "percent",
                title: "Saved, %",
                number: true,
                value: (item) => item.saved_percent,
                cell: (item) => (item.saved_percent === null ? "—" : percent(item.saved_percent / 100)),
              },
              {
                name: "confidence",
                title: "Confidence",
                number: true,
                value: (item) => item.mean_confidence,
                cell: (item) => percent(item.mean_confidence, 0),
              },
              {
                name: "acceptance",
                title: "Accepted, by tier",
                value: (item) => item.acceptance_rate,
                cell: acceptance,
              },
              {
                name: "climbs",
                title: "Climbs",
                number: true,
                value: (item) => item.climbs,
                cell: (item) => count(item.climbs),
              },
              {
                name: "p95",
                title: "Latency, p95",
                number: true,
                value: (item) => item.p95_latency_ms,
                cell: (item) => duration(item.p95_latency_ms),
              },
              {
                name: "feedback",
                title: "Feedback",
                number: true,
                value: (item) => item.feedback.good - item.feedback.bad,
                cell: feedback,
              },
            ],
          }),
        ],
      }),
    ],
  };
}

function acceptance(item) {
  const rated = item.tiers.filter((tier) => tier.acceptance_rate !== null);
  if (!rated.length) return "—";
  return h(
    "span",
    { class: "legend" },
    rated.map((tier) =>
      h("span", { class: "nowrap" }, tierChip(tier.tier, tier.level), ` ${percent(tier.acceptance_rate, 0)}`),
    ),
  );
}

function feedback({ feedback: { good, bad, typed } }) {
  if (!good && !bad && !typed) return "—";
  return [
    `${good} good, ${bad} bad`,
    typed > 0 && h("div", { class: "small muted" }, `${typed} ${typed === 1 ? "type" : "types"} named`),
  ];
}

function csv(items, lines) {
  const head = [
    "task_type",
    "calls",
    "unpriced_calls",
    "cost_usd",
    "baseline_usd",
    "saved_usd",
    "saved_percent",
    "mean_confidence",
    "acceptance_rate",
    "climbs",
    "p50_latency_ms",
    "p95_latency_ms",
    "feedback_good",
    "feedback_bad",
    "feedback_typed",
    ...lines.flatMap((line) => [`${line.name}_calls`, `${line.name}_acceptance_rate`]),
  ];
  return [
    head,
    ...items.map((item) => [
      item.task_type,
      item.calls,
      item.unpriced_calls,
      item.cost_usd,
      item.baseline_usd,
      item.saved_usd,
      item.saved_percent,
      item.mean_confidence,
      item.acceptance_rate,
      item.climbs,
      item.p50_latency_ms,
      item.p95_latency_ms,
      item.feedback.good,
      item.feedback.bad,
      item.feedback.typed,
      ...lines.flatMap((line) => {
        const tier = item.tiers.find((one) => one.tier === line.name);
        return [tier?.calls ?? 0, tier?.acceptance_rate];
      }),
    ]),
  ];
}
