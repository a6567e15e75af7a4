// What if: what the calls of this time would have cost under another policy or another day's prices, and where a text
// would go. The text goes to this server alone, and is not kept.

import { get, post } from "../api.js";
import { timeChart } from "../charts.js";
import { clipped, h, replace, said } from "../dom.js";
import { count, duration, money, moneyTick, percent, words } from "../format.js";
import { empty, facts, panel, problem, table } from "../parts.js";
import { savedText } from "../sheets.js";
import { tierChip } from "../tiers.js";

const AGAIN_MS = 2_000; // the server goes through calls for one question at a time
let typed = ""; // kept while the page is open: another time or filter must not cost what was typed

export async function show(context) {
  await context.ready;
  const replayed = h("div", { "aria-live": "polite" });
  const { state } = context;
  if (state.policy) replay(context, replayed);
  else
    replace(
      replayed,
      empty(
        "Choose a policy",
        h(
          "p",
          {},
          "The calls of the time and the filters above are gone through again, in order, under a simulated prompt cache.",
        ),
      ),
    );
  return { elements: [replayPanel(context, replayed), decisionPanel()], still: true };
}

function replayPanel(context, replayed) {
  const { state, choices } = context;
  const policy = h(
    "select",
    { id: "what-policy" },
    (choices?.policies ?? []).map((one) =>
      h("option", { value: one.name, selected: one.name === state.policy }, one.title),
    ),
  );
  const day = h("input", { id: "what-day", type: "date", value: state.priced_on ?? "" });
  return panel({
    title: "Another policy, another price list",
    name: "replay",
    body: [
      h(
        "form",
        {
          class: "row",
          on: {
            submit: (event) => {
              event.preventDefault();
              const asked = { ...context.state, policy: policy.value, priced_on: day.value || undefined };
              if (asked.policy === context.state.policy && asked.priced_on === context.state.priced_on)
                replay(context, replayed);
              else context.go(asked);
            },
          },
        },
        h("label", { class: "field" }, "Policy", policy),
        h("label", { class: "field" }, "Prices of (empty: of each call's day)", day),
        h("button", { type: "submit", class: "main" }, "Replay"),
      ),
      replayed,
    ],
  });
}

async function replay(context, root) {
  replace(root, h("p", { class: "waiting" }, "Going through the calls …"));
  const query = context.query();
  query.set("policy", context.state.policy);
  if (context.state.priced_on) query.set("priced_on", context.state.priced_on);
  try {
    replace(root, replayedParts(context, await get("what-if/replay", query)));
  } catch (error) {
    if (error.status === 429) setTimeout(() => root.isConnected && replay(context, root), AGAIN_MS);
    else replace(root, problem(error));
  }
}

function replayedParts(context, told) {
  if (!told.calls) return empty("No calls to replay", h("p", {}, "Choose a longer time, or clear the filters."));
  if (told.unpriced_calls === told.calls)
    return empty(
      "Of these calls no price is known",
      h("p", {}, "A price of your own goes into tierwise.toml, under ", h("code", {}, "[[prices]]"), "."),
    );
  const title = "Real and replayed cost";
  const lines = [
    { name: "real", values: told.points.map((point) => point.real_usd) },
    { name: "replayed", values: told.points.map((point) => point.replayed_usd), dash: [6, 4] },
  ];
  const starts = told.points.map((point) => point.at);
  const colours = ["muted", "accent"];
  const chart =
    starts.length > 1
      ? timeChart({
          title,
          starts,
          interval_seconds: told.interval_seconds,
          lines,
          kind: "line",
          tick: moneyTick,
          tell: money,
          zoom: context.zoom,
          colours,
        })
      : null;
  return h(
    "div",
    { class: "rows" },
    facts([
      ["Really spent", money(told.real_usd)],
      ["Replayed", `${money(told.replayed_usd)} (${money(told.low_usd)} to ${money(told.high_usd)})`],
      ["It would save", savedText(told.saved_usd)],
      ["That is", told.saved_percent === null ? "—" : percent(told.saved_percent / 100)],
      ["Calls", count(told.calls)],
      ["Conversations", count(told.sessions)],
      ["Moved to another model", count(told.moved_calls)],
      [
        "Below what their work demands",
        h("span", { class: told.below_calls ? "warn" : null }, count(told.below_calls)),
      ],
      told.unpriced_calls && ["No price known", count(told.unpriced_calls)],
    ]),
    told.more &&
      h(
        "p",
        { class: "warn" },
        "The time has more calls than are replayed here; these are the newest. The whole: tierwise replay.",
      ),
    chart &&
      panel({
        title,
        name: "replay-cost",
        body: [
          chart.element,
          h(
            "ul",
            { class: "legend" },
            lines.map((line, i) =>
              h(
                "li",
                { class: "tier" },
                h("span", { class: "swatch", css: { background: `var(--${colours[i]})` } }),
                i ? "replayed (dashed)" : "real",
              ),
            ),
          ),
        ],
        png: chart.png,
        csv: () => [
          ["start", "real_usd", "replayed_usd"],
          ...told.points.map((p) => [p.at, p.real_usd, p.replayed_usd]),
        ],
      }),
    panel({
      title: "Where calls go",
      name: "replay-tiers",
      csv: () => [
        ["tier", "real_calls", "replayed_calls", "real_usd", "replayed_usd"],
        ...told.tiers.map((t) => [t.tier, t.real_calls, t.replayed_calls, t.real_usd, t.replayed_usd]),
      ],
      body: table({
        name: "replay-tiers",
        caption: "Where calls go",
        rows: told.tiers,
        keyOf: (row) => row.tier,
        columns: [
          { name: "tier", title: "Tier", cell: (row) => tierChip(row.tier, row.level) },
          { name: "was", title: "Calls, real", number: true, cell: (row) => count(row.real_calls) },
          { name: "is", title: "replayed", number: true, cell: (row) => count(row.replayed_calls) },
          { name: "cost", title: "Cost, real", number: true, cell: (row) => money(row.real_usd) },
          { name: "then", title: "replayed", number: true, cell: (row) => money(row.replayed_usd) },
        ],
      }),
    }),
    told.assumptions.length > 0 &&
      panel({
        title: "What this rests on",
        body: h(
          "ul",
          { class: "rows" },
          told.assumptions.map((one) =>
            h(
              "li",
              {},
              said(one.text),
              Number(one.adds_usd) !== 0 && h("span", { class: "muted nowrap" }, ` (adds ${money(one.adds_usd)})`),
            ),
          ),
        ),
      }),
  );
}

function decisionPanel() {
  const answer = h("div", { "aria-live": "polite" });
  const text = h("textarea", {
    id: "what-text",
    required: true,
    maxlength: "100000",
    placeholder: "Summarise this ticket in one line: …",
    prop: { value: typed },
    on: { input: () => (typed = text.value) },
  });
  const stakes = h(
    "select",
    { id: "what-stakes" },
    ["normal", "high", "critical"].map((name) => h("option", { value: name, selected: name === "normal" }, name)),
  );
  let last = null;
  const decide = async () => {
    const question = { text: text.value, stakes: stakes.value };
    last = question;
    const told = await post("what-if/decision", question).then(decision, problem);
    if (last === question) replace(answer, told); // else another was asked since
  };
  return panel({
    title: "Where would this go?",
    name: "decision",
    note: "The text stays on this machine, and is neither sent to a model nor kept.",
    body: h(
      "div",
      { class: "rows" },
      h(
        "form",
        {
          class: "rows",
          on: {
            submit: (event) => {
              event.preventDefault();
              decide();
            },
            keydown: (event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && text.value) decide();
            },
          },
        },
        h("label", { class: "field" }, "Task", text),
        h(
          "div",
          { class: "row" },
          h("label", { class: "field" }, "Stakes", stakes),
          h("button", { type: "submit", class: "main" }, "Decide"),
        ),
      ),
      answer,
    ),
  });
}

const LIKELY = 0.01; // a type that is less so is not worth telling of

function decision(told) {
  const likely = told.alternatives.filter((one) => one.confidence >= LIKELY);
  return h(
    "div",
    { class: "rows" },
    told.blockers.length > 0 &&
      h(
        "div",
        { class: "panel error" },
        h("h3", {}, "It could not be run as asked"),
        h(
          "ul",
          {},
          told.blockers.map((reason) => h("li", {}, said(reason.text))),
        ),
      ),
    facts([
      ["Task type", said(words(told.task_type))],
      ["Confidence", `${percent(told.confidence)}${told.abstained ? ", abstains: goes up" : ""}`],
      ["Tier", tierChip(told.tier, told.level)],
      ["Model", clipped(told.model, "mono")],
      [said(`On ${told.baseline_model}`), money(told.baseline_usd)],
      ["Saves", savedText(told.saved_usd)],
      [
        "It might be",
        likely.length
          ? likely.map((one) => h("div", {}, said(words(one.task_type)), ` ${percent(one.confidence)}`))
          : "nothing else",
      ],
      told.also.length > 0 && ["Asks for, too", told.also.map((name) => h("div", {}, said(words(name))))],
      told.evidence.length > 0 && ["Told by", said(told.evidence.join(", "))],
    ]),
    h("h3", {}, "Ladder"),
    table({
      name: "decision-ladder",
      caption: "The ladder of the decision",
      rows: told.ladder,
      keyOf: (rung) => rung.model,
      columns: [
        { name: "tier", title: "Tier", cell: (rung) => tierChip(rung.tier, rung.level) },
        { name: "model", title: "Model", cell: (rung) => clipped(rung.model, "mono") },
        { name: "cost", title: "Estimated", number: true, cell: (rung) => money(rung.estimated_usd) },
        { name: "time", title: "Takes", number: true, cell: (rung) => duration(rung.estimated_seconds * 1000) },
      ],
    }),
    h("h3", {}, "Why"),
    h(
      "ol",
      { class: "reasons" },
      told.reasons.map((reason) =>
        h("li", {}, said(reason.text), " ", h("span", { class: "step" }, `(${words(reason.step)})`)),
      ),
    ),
  );
}
