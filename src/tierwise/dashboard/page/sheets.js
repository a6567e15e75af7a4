// What lies over a view when something is opened: one call, one conversation, one task type, the list of keys.
// A <dialog> keeps the focus inside, makes the rest inert, and closes on Escape; the address says what is open.

import { get, post } from "./api.js";
import { timeChart } from "./charts.js";
import { clipped, h, replace, said } from "./dom.js";
import {
  count,
  countTick,
  duration,
  isNotCompared,
  isUnpriced,
  money,
  moneyTick,
  percent,
  secondOf,
  signedMoney,
  spent,
  stretchOf,
  UNKNOWN,
  words,
} from "./format.js";
import { announce, facts, panel, problem, problemText, table } from "./parts.js";
import { fill, legend, outcomeTag, stack, tierChip } from "./tiers.js";

let dialog = null;
let reading = null;
let back = null; // what follows when the viewer closes what is open

export const sheet = {
  isOpen: () => Boolean(dialog?.open),
  close() {
    back = null;
    reading?.abort();
    if (!dialog?.open) return;
    dialog.close();
    replace(dialog); // what was in it is not kept
  },
};

/**
 * The viewer closes it. What follows is done at once: the dialog's `close` event comes a moment after it is gone, when
 * another may be open already, which is not the one to close.
 */
function shut() {
  const next = back;
  sheet.close();
  next?.();
}

/** Show what `read(signal)` brings: elements. `then()` is called when the viewer closes it. */
async function open(title, read, then) {
  reading?.abort();
  reading = new AbortController();
  const { signal } = reading;
  if (!dialog) {
    dialog = h("dialog", {
      "aria-labelledby": "sheet-title",
      on: {
        cancel: shut, // Escape
        click: (event) => event.target === dialog && shut(),
        close: () => !dialog.open && shut(), // by a browser that did not ask
      },
    });
    document.body.append(dialog);
  }
  back = then;
  const body = h("div", { class: "sheet", "aria-busy": "true" }, h("p", { class: "waiting" }, "Reading …"));
  const top = h(
    "div",
    { class: "sheet-top" },
    h("h1", { id: "sheet-title" }, title),
    h("button", { type: "button", id: "close", on: { click: shut } }, "Close"),
  );
  replace(dialog, h("div", { class: "sheet" }, top), body);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  try {
    const elements = await read(signal);
    if (!signal.aborted) replace(body, elements);
  } catch (error) {
    if (error.name !== "AbortError" && !signal.aborted) replace(body, problem(error));
  } finally {
    body.setAttribute("aria-busy", "false");
  }
}

// ---------------------------------------------------------------- a call

export function openCall(context, id) {
  const back = () => context.open({});
  open(
    "Call",
    async (signal) => callParts(context, await get(`calls/${encodeURIComponent(id)}`, "", signal), signal),
    back,
  );
}

function callParts(context, call) {
  const { summary } = call;
  return [
    h(
      "section",
      { class: "panel rows" },
      h(
        "div",
        { class: "row" },
        outcomeTag(summary.status),
        tierChip(summary.tier, summary.level),
        clipped(summary.model, "mono"),
      ),
      facts([
        [
          "Task type",
          h(
            "button",
            { class: "link", type: "button", on: { click: () => context.open({ type: summary.task_type }) } },
            said(words(summary.task_type)),
          ),
        ],
        ["Confidence", `${percent(summary.confidence)}${summary.abstained ? ", abstained: sent up" : ""}`],
        ["Started", secondOf(summary.started_at)],
        ["Latency", duration(summary.latency_ms)],
        [
          "Spent",
          `${money(summary.cost_usd)}${call.attempts.some((attempt) => attempt.estimated) ? " (estimated tokens)" : ""}`,
        ],
        [said(`On ${call.baseline_model}`), money(summary.baseline_usd)],
        ["Saved", savedText(summary.saved_usd)],
        ["Needs", said(words(call.needs))],
        summary.project && ["Project", said(summary.project)],
        summary.key && ["Key", said(summary.key)],
        summary.kind && ["Kind", said(words(summary.kind))],
        summary.session && [
          "Conversation",
          h(
            "button",
            {
              class: "link",
              type: "button",
              css: { "max-width": "100%" },
              on: { click: () => context.open({ conversation: summary.session }) },
            },
            clipped(summary.session),
          ),
        ],
        ["Call", clipped(summary.call_id, "mono")],
        ...call.tags.filter((tag) => tag.name !== "kind").map((tag) => [said(tag.name), said(tag.value)]),
      ]),
      summary.error && h("pre", { tabindex: "0", "aria-label": "Error", dir: "auto" }, summary.error),
    ),
    panel({
      title: "Ladder",
      note: call.ladder_kept
        ? "Expected: of one attempt, when it was decided. Same tokens: those of the last attempt, at this rung's price."
        : "What was tried, and the tiers above: what the decision expected was not kept of this call.",
      name: "ladder",
      body: table({
        name: "ladder",
        caption: "The ladder of the decision",
        rows: call.ladder,
        keyOf: (rung) => rung.model,
        columns: [
          { name: "tier", title: "Tier", cell: (rung) => tierChip(rung.tier, rung.level) },
          { name: "model", title: "Model", cell: (rung) => clipped(rung.model, "mono") },
          {
            name: "expected",
            title: "Expected",
            number: true,
            cell: (rung) => (call.ladder_kept ? money(rung.estimated_usd) : "not kept"),
          },
          { name: "real", title: "Real", number: true, cell: (rung) => money(rung.cost_usd) },
          { name: "same", title: "Same tokens", number: true, cell: (rung) => money(rung.same_tokens_usd) },
          { name: "attempts", title: "Attempts", number: true, cell: (rung) => count(rung.attempts) },
          {
            name: "what",
            title: "Role",
            cell: (rung) => [
              rung.planned && h("span", { class: "tag" }, "planned"),
              " ",
              rung.answered && h("span", { class: "tag good" }, "answered"),
            ],
          },
        ],
      }),
      csv: () => [
        LADDER_COLUMNS,
        ...call.ladder.map((rung) => LADDER_COLUMNS.map((name) => rung[name])),
      ],
    }),
    panel({ title: "Attempts", name: "attempts", body: waterfall(call), csv: () => attemptRows(call) }),
    panel({ title: "Tokens", name: "tokens", body: tokens(call) }),
    h(
      "section",
      { class: "panel rows" },
      h("h2", {}, "Why"),
      call.reasons.length
        ? h(
            "ol",
            { class: "reasons" },
            call.reasons.map((reason) =>
              h("li", {}, said(reason.text), " ", h("span", { class: "step" }, `(${words(reason.step)})`)),
            ),
          )
        : h("p", { class: "muted" }, "No reasons were kept."),
    ),
    call.captured_text &&
      h(
        "section",
        { class: "panel rows" },
        h("h2", {}, "What the classifier saw"),
        h("pre", { tabindex: "0", dir: "auto", "aria-label": "What the classifier saw" }, call.captured_text),
      ),
    feedback(context, call),
  ];
}

export function savedText(usd) {
  if (usd === null || usd === undefined) return "—";
  return h("span", { class: Number(usd) < 0 ? "bad" : Number(usd) > 0 ? "good" : null }, signedMoney(usd));
}

/** The same of a group of calls, among which there may be none that can be compared. */
export const savedOf = (group) => (isNotCompared(group) ? UNKNOWN : savedText(group.saved_usd));

const LADDER_COLUMNS = [
  "tier",
  "model",
  "planned",
  "answered",
  "attempts",
  "estimated_usd",
  "cost_usd",
  "same_tokens_usd",
];

/** Number 0 asked a model what the task is; the others tried to do it. */
const nameOf = (attempt) => (attempt.number ? `Attempt ${attempt.number}` : "Asked what it is");

/** Each attempt on one time axis: waiting, then the model; a mark where the first token came. */
function waterfall(call) {
  const { attempts } = call;
  if (!attempts.length) return h("p", { class: "muted" }, "Nothing was sent.");
  const end = Math.max(call.summary.latency_ms ?? 0, ...attempts.map((a) => a.offset_ms + (a.latency_ms ?? 0)), 1);
  const at = (ms) => `${Math.min(100, Math.max(0, (100 * ms) / end))}%`;
  return h(
    "ol",
    { class: "waterfall" },
    attempts.map((attempt) => {
      const told = `${nameOf(attempt)}: from ${duration(attempt.offset_ms)}, ${attempt.latency_ms === null ? "not ended" : duration(attempt.latency_ms)}${attempt.ttft_ms === null ? "" : `, first token after ${duration(attempt.ttft_ms)}`}`;
      return h(
        "li",
        {},
        h(
          "div",
          { class: "about" },
          h(
            "span",
            { class: "row" },
            attempt.number ? `${attempt.number}.` : nameOf(attempt),
            tierChip(attempt.tier, attempt.level),
            clipped(attempt.model, "mono"),
            outcomeTag(attempt.outcome),
          ),
          h("span", { class: "nowrap" }, `${duration(attempt.latency_ms)} · ${money(attempt.cost_usd)}`),
        ),
        h(
          "div",
          { class: "lane", role: "img", "aria-label": told, title: told },
          attempt.wait_ms > 0 &&
            h("span", {
              class: "waited",
              css: { left: at(attempt.offset_ms - attempt.wait_ms), width: at(attempt.wait_ms) },
            }),
          h("span", {
            class: fill(attempt.level, attempt.tier),
            css: { left: at(attempt.offset_ms), width: at(attempt.latency_ms ?? end - attempt.offset_ms) },
          }),
          attempt.ttft_ms !== null &&
            h("span", { class: "first", css: { left: at(attempt.offset_ms + attempt.ttft_ms) } }),
        ),
        attempt.detail && h("p", { class: "note" }, said(attempt.detail)),
        attempt.reported_model &&
          attempt.reported_model !== attempt.model &&
          h("p", { class: "note" }, "The provider says that ", said(attempt.reported_model), " answered."),
      );
    }),
    h("li", { class: "note" }, `0 to ${duration(end)}. Hatched: waiting. Dark mark: first token.`),
  );
}

const ATTEMPT_COLUMNS = [
  "number",
  "tier",
  "model",
  "provider",
  "started_at",
  "outcome",
  "wait_ms",
  "ttft_ms",
  "latency_ms",
  "cost_usd",
  "input_tokens",
  "output_tokens",
  "cache_read_tokens",
  "cache_write_5m_tokens",
  "cache_write_1h_tokens",
  "thinking_tokens",
];

function attemptRows(call) {
  return [ATTEMPT_COLUMNS, ...call.attempts.map((attempt) => ATTEMPT_COLUMNS.map((name) => attempt[name]))];
}

const TOKEN_CLASSES = [
  ["Input", "input_tokens"],
  ["Cache read", "cache_read_tokens"],
  ["Cache write, 5 min", "cache_write_5m_tokens"],
  ["Cache write, 1 h", "cache_write_1h_tokens"],
  ["Output", "output_tokens"],
  ["of it thinking", "thinking_tokens"],
  ["Web searches", "web_searches"],
];

function tokens(call) {
  return table({
    name: "tokens",
    caption: "Tokens by class and attempt",
    rows: TOKEN_CLASSES.filter(
      ([, name]) => name === "input_tokens" || name === "output_tokens" || call.attempts.some((a) => a[name]),
    ),
    keyOf: ([title]) => title,
    columns: [
      { name: "class", title: "Class", cell: ([title]) => title },
      ...call.attempts.map((attempt) => ({
        name: `a${attempt.number}`,
        title: nameOf(attempt),
        number: true,
        cell: ([, name]) => count(attempt[name]),
      })),
    ],
  });
}

function feedback(context, call) {
  const said_ = h("p", { class: "note", role: "status" }, saidOf(call.feedback));
  const types = (context.choices?.task_types ?? []).map((type) => type.name);
  const type = h(
    "select",
    { id: "feedback-type" },
    h("option", { value: "" }, "was of another type …"),
    types.map((name) => h("option", { value: name, selected: call.feedback?.task_type === name }, words(name))),
  );
  let given = { verdict: call.feedback?.verdict ?? null, task_type: call.feedback?.task_type ?? null };
  let before = Promise.resolve(); // one after the other: what is said replaces all that was said
  const say = (what) => {
    given = { ...given, ...what };
    const now = given;
    before = before.then(async () => {
      try {
        await post("feedback", { call_id: call.summary.call_id, ...now });
        said_.textContent = `Noted. ${saidOf(now)}`;
      } catch (error) {
        said_.textContent = problemText(error);
      }
    });
  };
  type.addEventListener("change", () => say({ task_type: type.value || null }));
  return h(
    "section",
    { class: "panel rows" },
    h("h2", {}, "Was it good?"),
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", on: { click: () => say({ verdict: "good" }) } }, "Good"),
      h("button", { type: "button", on: { click: () => say({ verdict: "bad" }) } }, "Bad"),
      h("label", { class: "field" }, h("span", { class: "sr-only" }, "What it really was"), type),
    ),
    said_,
  );
}

function saidOf(given) {
  if (!given || (!given.verdict && !given.task_type))
    return "Nothing was said of it yet; what is said teaches the classifier (tierwise train).";
  return [given.verdict, given.task_type && `really ${words(given.task_type)}`].filter(Boolean).join(", ");
}

// ---------------------------------------------------------------- a conversation

export function openConversation(context, session) {
  open(
    "Conversation",
    async (signal) => {
      const told = await get(`conversations/${encodeURIComponent(session)}`, "", signal);
      return [
        h(
          "section",
          { class: "panel rows" },
          facts([
            ["Session", clipped(told.session, "mono")],
            told.project && ["Project", said(told.project)],
            ["From", secondOf(told.started_at)],
            ["To", secondOf(told.ended_at)],
            ["Calls", count(told.calls)],
            ["Spent", spent(told)],
            ["Baseline", money(told.baseline_usd)],
            ["Saved", savedOf(told)],
          ]),
          h(
            "div",
            { class: "row" },
            h(
              "button",
              {
                type: "button",
                on: {
                  click: () =>
                    context.go({ ...context.state, view: "calls", conversation: undefined, session: told.session }),
                },
              },
              "Show only its calls",
            ),
          ),
        ),
        h(
          "section",
          { class: "panel rows" },
          h("h2", {}, "Calls"),
          h("p", { class: "note" }, "Subagents and side calls hang below the call beside which they ran."),
          tree(context, told.nodes, "tree"),
          told.more && h("p", { class: "note" }, "It goes on: filter by this session in Calls to see all of it."),
        ),
      ];
    },
    () => context.open({}),
  );
}

function tree(context, nodes, className = null) {
  return h(
    "ul",
    { class: className },
    nodes.map((node) => {
      const { call } = node;
      return h(
        "li",
        {},
        h(
          "div",
          { class: "node" },
          h(
            "button",
            { class: "link", type: "button", on: { click: () => context.open({ call: call.call_id }) } },
            clipped(words(call.task_type)),
          ),
          h(
            "span",
            { class: "row" },
            call.kind && call.kind !== "main" && h("span", { class: "tag" }, clipped(words(call.kind))),
            tierChip(call.tier, call.level),
            call.climbed && h("span", { class: "tag warn" }, "climbed"),
            call.status !== "answered" && outcomeTag(call.status),
            h(
              "span",
              { class: "nowrap small muted" },
              `${secondOf(call.started_at)} · ${duration(call.latency_ms)} · ${money(call.cost_usd)}`,
            ),
          ),
        ),
        node.children.length > 0 && tree(context, node.children),
      );
    }),
  );
}

// ---------------------------------------------------------------- a task type

export function openType(context, name) {
  open(
    said(words(name)),
    async (signal) => {
      const told = await get(`task-types/${encodeURIComponent(name)}`, context.query(), signal);
      const { summary } = told;
      return [
        told.description && h("p", {}, told.description),
        h(
          "section",
          { class: "panel rows" },
          facts([
            ["Calls", count(summary.calls)],
            ["Spent", spent(summary)],
            ["Saved", savedOf(summary)],
            ["Mean confidence", percent(summary.mean_confidence)],
            ["Accepted", percent(summary.acceptance_rate)],
            ["Climbed", `${count(summary.climbs)} (${percent(summary.escalation_rate)})`],
            ["Latency p50, p95", `${duration(summary.p50_latency_ms)}, ${duration(summary.p95_latency_ms)}`],
            [
              "Feedback",
              `${summary.feedback.good} good, ${summary.feedback.bad} bad, ${summary.feedback.typed} with their type named`,
            ],
          ]),
          h("h2", {}, "Tiers, by calls"),
          stack(
            summary.tiers.map((tier) => ({ tier: tier.tier, level: tier.level, value: tier.calls })),
            null,
            "Calls by tier",
          ),
          legend(summary.tiers.map((tier) => ({ name: tier.tier, level: tier.level }))),
        ),
        isUnpriced(summary) ? null : history(context, "Cost", told.cost, moneyTick, money),
        history(context, "Calls", told.calls, countTick, count),
        h(
          "section",
          { class: "panel rows" },
          h("h2", {}, "How calls were decided"),
          told.examples.length
            ? told.examples.map((call) => example(context, call))
            : h("p", { class: "muted" }, "No calls of this type in this time."),
        ),
        h(
          "div",
          { class: "row" },
          h(
            "button",
            {
              type: "button",
              on: { click: () => context.go({ ...context.state, view: "calls", type: undefined, task_type: name }) },
            },
            "Show its calls",
          ),
        ),
      ];
    },
    () => context.open({}),
  );
}

function history(context, title, series, tick, tell) {
  const chart = timeChart({ title, ...series, kind: "stack", tick, tell, whole: true, height: 150 });
  return panel({
    title: `${title} over time`,
    note: `Each bar: ${stretchOf(series.interval_seconds)}.`,
    body: [legend(series.lines), chart.element],
    png: chart.png,
    csv: () => seriesRows(series),
    table: () => seriesTable(title, series, tell),
  });
}

export function seriesRows(series) {
  return [
    ["start", ...series.lines.map((line) => line.name || "none")],
    ...series.starts.map((start, i) => [start, ...series.lines.map((line) => line.values[i])]),
  ];
}

export function seriesTable(title, series, tell) {
  return table({
    name: `${title}-series`,
    caption: `${title} over time`,
    rows: series.starts.map((start, i) => ({ start, values: series.lines.map((line) => line.values[i]) })).reverse(),
    keyOf: (row) => row.start,
    columns: [
      { name: "start", title: "From", cell: (row) => secondOf(row.start) },
      ...series.lines.map((line, i) => ({
        name: `line-${i}`,
        title: clipped(line.name || "none"),
        number: true,
        cell: (row) => tell(row.values[i]),
      })),
    ],
  });
}

function example(context, call) {
  return h(
    "details",
    { data: { key: `example-${call.summary.call_id}` } },
    h("summary", {}, secondOf(call.summary.started_at), " · ", call.summary.tier, " · ", money(call.summary.cost_usd)),
    h(
      "ol",
      { class: "reasons" },
      call.reasons.map((reason) => h("li", {}, said(reason.text))),
    ),
    call.captured_text &&
      h("pre", { tabindex: "0", dir: "auto", "aria-label": "What the classifier saw" }, call.captured_text),
    h(
      "button",
      { class: "link", type: "button", on: { click: () => context.open({ call: call.summary.call_id }) } },
      "Open this call",
    ),
  );
}

// ---------------------------------------------------------------- keys

const KEYS = [
  ["1 … 6", "the six views"],
  ["f", "to the filters"],
  ["/", "search calls"],
  ["[  ]", "earlier, later"],
  ["+  -", "zoom in, out; or drag across a chart"],
  ["← →", "through a chart that has the focus"],
  ["r", "read again"],
  ["d", "dark, light, as the system"],
  ["Esc", "close what is open"],
];

export function openKeys() {
  open(
    "Keys",
    async () =>
      h(
        "section",
        { class: "panel rows" },
        h(
          "dl",
          { class: "keys" },
          KEYS.map(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)]),
        ),
      ),
    () => announce(""),
  );
}
