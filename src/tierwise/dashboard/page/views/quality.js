// Quality: is the classifier as right as it says, are replies accepted, and why were rungs left.

import { get } from "../api.js";
import { interval, reliability, tablePicture } from "../charts.js";
import { clipped, h, said } from "../dom.js";
import { count, percent, words } from "../format.js";
import { empty, facts, panel, table } from "../parts.js";
import { outcomeTag, tierChip } from "../tiers.js";

export async function show(context, signal) {
  const told = await get("quality", context.query(), signal);
  return {
    elements: [summary(told), h("div", { class: "columns" }, reliable(told), left(told)), accepted(context, told)],
  };
}

function summary(told) {
  const { feedback } = told;
  return h(
    "section",
    { class: "panel" },
    facts([
      ["Feedback", `${count(feedback.good)} good, ${count(feedback.bad)} bad`],
      ["Types named", count(feedback.typed)],
      ["Calibration error", told.calibration_error === null ? "not known yet" : percent(told.calibration_error)],
      ["Refusals", count(told.refusals)],
      ["Cut off", count(told.truncations)],
    ]),
  );
}

function reliable(told) {
  const title = "Is confidence honest?";
  const bins = told.reliability.filter((bin) => bin.calls > 0);
  if (!bins.length) {
    return panel({
      title,
      body: empty(
        "No feedback yet",
        h("p", {}, "Say what calls really were, and this shows how often the classifier was right at each confidence:"),
        h("p", {}, h("code", {}, "tierwise feedback CALL --type TYPE")),
        h("p", {}, "or open a call and say it there."),
      ),
    });
  }
  const rows = () => [
    ["from_confidence", "to_confidence", "calls", "right", "mean_confidence", "right_rate", "low", "high"],
    ...bins.map((b) => [
      b.from_confidence,
      b.to_confidence,
      b.calls,
      b.right,
      b.mean_confidence,
      b.right_rate,
      b.low,
      b.high,
    ]),
  ];
  return panel({
    title,
    name: "reliability",
    note: "Of calls with feedback. Marks on the dashed line: as often right as it said. Lines: 95 % intervals.",
    body: reliability(bins),
    csv: rows,
    png: () => tablePicture(title, rows()),
    table: () =>
      table({
        name: "reliability",
        caption: title,
        rows: bins,
        keyOf: (bin) => bin.from_confidence,
        columns: [
          {
            name: "bin",
            title: "Confidence",
            cell: (bin) => `${percent(bin.from_confidence, 0)} – ${percent(bin.to_confidence, 0)}`,
          },
          { name: "calls", title: "Calls", number: true, cell: (bin) => count(bin.calls) },
          { name: "right", title: "Right", number: true, cell: (bin) => percent(bin.right_rate) },
          {
            name: "interval",
            title: "95 % interval",
            number: true,
            cell: (bin) => (bin.low === null ? "—" : `${percent(bin.low, 0)} – ${percent(bin.high, 0)}`),
          },
        ],
      }),
  });
}

function left(told) {
  const title = "Why rungs were left";
  if (!told.left.length)
    return panel({
      title,
      body: empty("No rung was left", h("p", {}, "Every first attempt in this time was accepted.")),
    });
  const rows = () => [
    ["tier", "outcome", "attempts"],
    ...told.left.map((row) => [row.tier, row.outcome, row.attempts]),
  ];
  const most = Math.max(...told.left.map((row) => row.attempts));
  return panel({
    title,
    name: "rungs-left",
    note: "Attempts that did not answer.",
    csv: rows,
    png: () => tablePicture(title, rows()),
    body: table({
      name: "left",
      caption: title,
      rows: told.left,
      keyOf: (row) => `${row.tier}-${row.outcome}`,
      sort: { name: "attempts", descending: true },
      columns: [
        { name: "tier", title: "Tier", value: (row) => row.level ?? 99, cell: (row) => tierChip(row.tier, row.level) },
        { name: "outcome", title: "Because", value: (row) => row.outcome, cell: (row) => outcomeTag(row.outcome) },
        {
          name: "attempts",
          title: "Attempts",
          number: true,
          value: (row) => row.attempts,
          cell: (row) => count(row.attempts),
        },
        {
          name: "bar",
          title: "Drawn",
          cell: (row) =>
            h(
              "div",
              { class: "meter", "aria-hidden": "true" },
              h("span", { css: { width: `${(100 * row.attempts) / most}%` } }),
            ),
        },
      ],
    }),
  });
}

function accepted(context, told) {
  const title = "Accepted replies, by task type and tier";
  if (!told.acceptance.length) return panel({ title, body: empty("No replies in this time") });
  const rows = () => [
    ["task_type", "tier", "attempts", "accepted", "rate", "low", "high"],
    ...told.acceptance.map((row) => [row.task_type, row.tier, row.attempts, row.accepted, row.rate, row.low, row.high]),
  ];
  return panel({
    title,
    name: "acceptance",
    note: "With 95 % intervals: few attempts tell little.",
    csv: rows,
    png: () => tablePicture(title, rows()),
    body: table({
      name: "acceptance",
      caption: title,
      rows: told.acceptance,
      keyOf: (row) => `${row.task_type}-${row.tier}`,
      open: (row) => context.open({ type: row.task_type }),
      sort: { name: "attempts", descending: true },
      columns: [
        {
          name: "type",
          title: "Task type",
          value: (row) => row.task_type,
          cell: (row) => clipped(words(row.task_type)),
        },
        { name: "tier", title: "Tier", value: (row) => row.level ?? 99, cell: (row) => tierChip(row.tier, row.level) },
        {
          name: "attempts",
          title: "Attempts",
          number: true,
          value: (row) => row.attempts,
          cell: (row) => count(row.attempts),
        },
        { name: "rate", title: "Accepted", number: true, value: (row) => row.rate, cell: (row) => percent(row.rate) },
        { name: "drawn", title: "0 to 100 %", cell: (row) => interval(row.rate, row.low, row.high) },
        {
          name: "interval",
          title: "95 % interval",
          number: true,
          value: (row) => row.low,
          cell: (row) => (row.low === null ? "—" : said(`${percent(row.low, 0)} – ${percent(row.high, 0)}`)),
        },
      ],
    }),
  });
}
