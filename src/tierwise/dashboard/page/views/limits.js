// Limits and budgets: what is left of rate limits, what is switched off, what may still be spent, what caches did.

import { get, post } from "../api.js";
import { tablePicture, timeChart } from "../charts.js";
import { clipped, h, said } from "../dom.js";
import {
  count,
  countShort,
  dayOf,
  duration,
  isUnpriced,
  money,
  moneyTick,
  percent,
  percentTick,
  secondOf,
  signedMoney,
  spent,
  UNKNOWN,
  words,
} from "../format.js";
import { empty, facts, panel, problemText, table } from "../parts.js";
import { savedText } from "../sheets.js";

const NEARLY = 0.8; // used of a budget or of a limit

export async function show(context, signal) {
  const [limits, budgets, cache] = await Promise.all([
    get("limits", "", signal),
    get("budgets", "", signal),
    get("cache", context.query(), signal),
  ]);
  form ??= budgetForm(context);
  return {
    elements: [
      h("div", { class: "columns" }, headroom(limits), circuits(limits)),
      budgetPanel(context, budgets),
      cachePanel(cache),
    ],
  };
}

function meter(share, label) {
  const kind = share >= 1 ? "bad" : share >= NEARLY ? "warn" : "";
  return h(
    "div",
    {
      class: `meter ${kind}`,
      role: "meter",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": String(Math.round(Math.min(1, share) * 100)),
      "aria-label": label,
    },
    h("span", { css: { width: `${Math.min(100, share * 100)}%` } }),
  );
}

function headroom(limits) {
  const title = "Rate limits";
  if (!limits.available)
    return panel({
      title,
      body: empty(
        "No gateway here",
        h("p", {}, "What is left of rate limits is known to a running gateway alone."),
        h("p", {}, "Open ", h("code", {}, "/dashboard"), " of ", h("code", {}, "tierwise serve"), " to see it."),
      ),
    });
  if (!limits.headroom.length)
    return panel({
      title,
      body: empty("Nothing learned yet", h("p", {}, "Limits are learned from the headers of the first replies.")),
    });
  const rows = () => [
    ["account", "family", "measure", "limit_per_minute", "left", "left_share", "full_in_seconds", "closed_seconds"],
    ...limits.headroom.map((r) => [
      r.account,
      r.family,
      r.measure,
      r.limit_per_minute,
      r.left,
      r.left_share,
      r.full_in_seconds,
      r.closed_seconds,
    ]),
  ];
  return panel({
    title,
    name: "rate-limits",
    note: `${count(limits.running)} running, ${count(limits.waiting)} waiting.`,
    csv: rows,
    png: () => tablePicture(title, rows()),
    body: table({
      name: "limits",
      caption: title,
      rows: limits.headroom,
      keyOf: (row) => `${row.account}-${row.family}-${row.measure}`,
      columns: [
        {
          name: "family",
          title: "Family",
          cell: (row) => [
            clipped(row.family),
            row.account && h("span", { class: "small muted" }, " ", clipped(row.account)),
          ],
        },
        { name: "measure", title: "Per minute", cell: (row) => words(row.measure.replaceAll("-", "_")) },
        {
          name: "left",
          title: "Left",
          number: true,
          cell: (row) => `${countShort(row.left)} of ${countShort(row.limit_per_minute)}`,
        },
        {
          name: "used",
          title: "Used",
          cell: (row) => meter(1 - row.left_share, `Used of ${row.measure} of ${row.family.slice(0, 60)}`),
        },
        {
          name: "again",
          title: "Whole again",
          cell: (row) =>
            row.closed_seconds > 0
              ? h("span", { class: "tag bad" }, `closed, ${duration(row.closed_seconds * 1000)}`)
              : row.full_in_seconds > 0
                ? h("span", { class: "small muted nowrap" }, `whole in ${duration(row.full_in_seconds * 1000)}`)
                : "",
        },
      ],
    }),
  });
}

function circuits(limits) {
  const title = "Models left alone";
  if (!limits.available)
    return panel({
      title,
      body: empty(
        "No gateway here",
        h("p", {}, "It tells here which models it leaves alone for a while, after failures in a row."),
      ),
    });
  if (!limits.circuits.length)
    return panel({ title, body: empty("None", h("p", {}, "No model has failed so often that calls go round it.")) });
  return panel({
    title,
    name: "circuits",
    note: "After failures in a row calls go round a model for a while.",
    body: table({
      name: "circuits",
      caption: title,
      rows: limits.circuits,
      keyOf: (row) => row.model,
      columns: [
        { name: "model", title: "Model", cell: (row) => clipped(row.model, "mono") },
        { name: "why", title: "Why", cell: (row) => said(row.why) },
      ],
    }),
  });
}

const SCOPES = { all: "everything", project: "project", key: "key" };

function monthOf(told) {
  const month = { attempts: told.month_attempts, unpriced_attempts: told.month_unpriced_attempts };
  if (isUnpriced(month)) return `what was spent is ${UNKNOWN}`;
  const say = (usd) => spent({ ...month, cost_usd: usd });
  const projected = told.month_projected_usd;
  return `${say(told.month_spent_usd)} spent${projected === null ? "" : `, ${say(projected)} at its end at this pace`}`;
}

function budgetPanel(context, told) {
  const title = "Budgets";
  const rows = () => [
    [
      "scope",
      "subject",
      "period",
      "hard",
      "limit_usd",
      "spent_usd",
      "reserved_usd",
      "left_usd",
      "projected_usd",
      "resets_at",
    ],
    ...told.items.map((b) => [
      b.scope,
      b.subject,
      b.period,
      b.hard,
      b.limit_usd,
      b.spent_usd,
      b.reserved_usd,
      b.left_usd,
      b.projected_usd,
      b.resets_at,
    ]),
  ];
  return panel({
    title,
    name: "budgets",
    note: `This month (UTC): ${monthOf(told)}.`,
    csv: told.items.length ? rows : null,
    png: told.items.length ? () => tablePicture(title, rows()) : null,
    body: [
      told.items.length
        ? table({
            name: "budgets",
            caption: title,
            rows: told.items,
            keyOf: (budget) => budget.budget_id,
            columns: [
              {
                name: "of",
                title: "Of",
                cell: (budget) => [SCOPES[budget.scope], budget.subject && [" ", clipped(budget.subject)]],
              },
              {
                name: "period",
                title: "By",
                cell: (budget) => [budget.period, " ", h("span", { class: "tag" }, budget.hard ? "hard" : "warns")],
              },
              {
                name: "spent",
                title: "Spent",
                number: true,
                cell: (budget) => `${money(budget.spent_usd)} of ${money(budget.limit_usd)}`,
              },
              {
                name: "used",
                title: "Drawn",
                cell: (budget) =>
                  meter(
                    budget.used_share,
                    `Used of the budget of ${SCOPES[budget.scope]} ${budget.subject.slice(0, 60)}`,
                  ),
              },
              { name: "share", title: "Used, %", number: true, cell: (budget) => percent(budget.used_share, 0) },
              {
                name: "projected",
                title: "At its end",
                number: true,
                cell: (budget) =>
                  h(
                    "span",
                    {
                      class:
                        budget.projected_usd !== null && Number(budget.projected_usd) > Number(budget.limit_usd)
                          ? "bad"
                          : null,
                    },
                    money(budget.projected_usd),
                  ),
              },
              {
                name: "resets",
                title: "Begins anew",
                cell: (budget) =>
                  budget.resets_at
                    ? h(
                        "time",
                        { datetime: budget.resets_at, title: secondOf(budget.resets_at), class: "nowrap" },
                        dayOf(budget.resets_at),
                      )
                    : "—",
              },
              {
                name: "remove",
                title: h("span", { class: "sr-only" }, "Remove"),
                cell: (budget) =>
                  h(
                    "button",
                    {
                      type: "button",
                      class: "plain",
                      "aria-label": `Remove the budget of ${SCOPES[budget.scope]} ${budget.subject.slice(0, 60)}, by ${budget.period}`,
                      on: { click: () => remove(context, budget) },
                    },
                    "Remove",
                  ),
              },
            ],
          })
        : empty(
            "No budgets",
            h("p", {}, "A budget stops, or warns of, what a project, a key or everything may spend:"),
            h("p", {}, h("code", {}, "tierwise budgets set --limit 50 --period month")),
          ),
      form.element,
    ],
  });
}

async function remove(context, { scope, subject, period }) {
  if (!confirm(`Remove the budget of ${SCOPES[scope]} ${subject.slice(0, 60)}?`)) return;
  await changed(context, { scope, subject, period, limit_usd: null });
}

/** Whether a budget was set or removed; if not, the form tells why. */
async function changed(context, budget) {
  try {
    await post("budgets", budget);
  } catch (error) {
    form.told.textContent = problemText(error);
    if (error.status === 404) context.again(); // what is shown is no more
    return false;
  }
  form.told.textContent = "";
  context.again();
  return true;
}

let form = null; // one while the page is open: drawn anew with the view it would forget what is being typed

function budgetForm(context) {
  const told = h("p", { class: "note", role: "status" });
  const field = (name, title, control) =>
    h("label", { class: "field" }, title, Object.assign(control, { id: `budget-${name}` }));
  const pick = (options) =>
    h(
      "select",
      {},
      options.map(([value, text]) => h("option", { value }, text)),
    );
  const scope = pick([
    ["all", "everything"],
    ["project", "a project"],
    ["key", "a key"],
  ]);
  const subject = h("input", { maxlength: "200", placeholder: "its name" });
  const period = pick([
    ["month", "month"],
    ["day", "day"],
    ["total", "in total"],
  ]);
  const limit = h("input", {
    type: "text",
    inputmode: "decimal",
    required: true,
    pattern: "[0-9]{1,9}(\\.[0-9]{1,9})?",
    size: "8",
    placeholder: "50",
  });
  const hard = h("input", { type: "checkbox", checked: true });
  const names = field("subject", "Which", subject);
  const shown = () => {
    names.hidden = scope.value === "all";
    subject.required = scope.value !== "all";
  };
  scope.addEventListener("change", shown);
  shown();
  const budget = () => ({
    scope: scope.value,
    subject: scope.value === "all" ? "" : subject.value,
    period: period.value,
    limit_usd: limit.value,
    hard: hard.checked,
  });
  const element = h(
    "form",
    {
      class: "rows",
      on: {
        submit: async (event) => {
          event.preventDefault();
          const asked = budget();
          if (!(await changed(context, asked)) || JSON.stringify(budget()) !== JSON.stringify(asked)) return;
          element.reset(); // unless the next one is being typed
          shown();
        },
      },
    },
    h("h3", {}, "Set a budget"),
    h(
      "div",
      { class: "row" },
      field("scope", "Of", scope),
      names,
      field("period", "By", period),
      field("limit", "Limit, $", limit),
      h("label", { class: "row" }, hard, "hard: refuse what would exceed it"),
      h("button", { type: "submit", id: "budget-set" }, "Set"),
    ),
    told,
  );
  return { element, told };
}

function overTime(title, series, tick, tell) {
  const colours = series.lines.length === 1 ? ["accent"] : undefined;
  const lines = series.lines.map((line) => ({ ...line, name: line.name || "all" }));
  return h(
    "div",
    {},
    h("h3", {}, title),
    lines.length
      ? timeChart({ title, ...series, lines, kind: "line", tick, tell, height: 140, colours }).element
      : empty("Nothing yet"),
  );
}

function cachePanel(cache) {
  const title = "Prompt caches";
  if (!cache.models.length) return panel({ title, body: empty("No cached tokens in this time") });
  const titles = ["Read from a cache, over time", "Saved by caches, over time"];
  const charts = h("div", { class: "columns" }, [
    overTime(titles[0], cache.hit_share_over_time, percentTick, percent),
    cache.saved_usd !== null && overTime(titles[1], cache.saved_over_time, moneyTick, signedMoney),
  ]);
  const names = [
    "model",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "hit_share",
    "saved_usd",
  ];
  const rows = () => [names, ...cache.models.map((row) => names.map((name) => row[name]))];
  return panel({
    title,
    name: "caches",
    note: "Saved: what reading saved against fresh input, less what writing cost beyond it.",
    csv: rows,
    png: () => tablePicture(title, rows()),
    body: [
      facts([
        ["Read from a cache", percent(cache.hit_share)],
        ["Saved, or lost", cache.saved_usd === null ? UNKNOWN : savedText(cache.saved_usd)],
      ]),
      charts,
      table({
        name: "caches",
        caption: title,
        rows: cache.models,
        keyOf: (row) => row.model,
        sort: { name: "read", descending: true },
        columns: [
          { name: "model", title: "Model", value: (row) => row.model, cell: (row) => clipped(row.model, "mono") },
          {
            name: "share",
            title: "Hits",
            number: true,
            value: (row) => row.hit_share,
            cell: (row) => percent(row.hit_share),
          },
          {
            name: "fresh",
            title: "Fresh",
            number: true,
            value: (row) => row.input_tokens,
            cell: (row) => countShort(row.input_tokens),
          },
          {
            name: "read",
            title: "Read",
            number: true,
            value: (row) => row.cache_read_tokens,
            cell: (row) => countShort(row.cache_read_tokens),
          },
          {
            name: "write5",
            title: "Written, 5 min",
            number: true,
            value: (row) => row.cache_write_5m_tokens,
            cell: (row) => countShort(row.cache_write_5m_tokens),
          },
          {
            name: "write1",
            title: "Written, 1 h",
            number: true,
            value: (row) => row.cache_write_1h_tokens,
            cell: (row) => countShort(row.cache_write_1h_tokens),
          },
          {
            name: "saved",
            title: "Saved",
            number: true,
            value: (row) => Number(row.saved_usd),
            cell: (row) => savedText(row.saved_usd),
          },
        ],
      }),
    ],
  });
}
