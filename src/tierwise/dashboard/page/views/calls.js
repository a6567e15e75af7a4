// Calls: the log, searchable, with new calls at its head as they are made. A row opens the call.
//
// While time goes on and nothing narrows the log but the filters, it is live: what server-sent events bring is laid on
// top, or in place of the row that it changes. The viewer can hold it still.

import { get } from "../api.js";
import { tablePicture } from "../charts.js";
import { clipped, debounced, h, replace } from "../dom.js";
import { count, countShort, duration, money, percent, secondOf, words } from "../format.js";
import { announce, empty, liveTable, panel } from "../parts.js";
import { savedText } from "../sheets.js";
import { isLive } from "../state.js";
import { outcomeTag, tierChip } from "../tiers.js";

const PAGE = 50;
const MOST_SHOWN = 100; // rows of a page that is left open all day: the newest, which are drawn as they come
const MOST_READ = 500; // where the viewer read on to older calls
const TYPING_MS = 350;
const AMOUNT = "[0-9]{1,6}([.][0-9]{0,9})?|[.][0-9]{1,9}"; // also one that is half typed
const FRESH_MS = 2_500; // so long a new call is marked: without an animation, which would draw the page all the time
const SAID_MS = 10_000; // at most so often a screen reader is told of new calls
const COLUMNS = [
  "call_id",
  "started_at",
  "status",
  "task_type",
  "confidence",
  "planned_tier",
  "tier",
  "model",
  "project",
  "session",
  "key",
  "kind",
  "attempts",
  "climbed",
  "cost_usd",
  "baseline_usd",
  "saved_usd",
  "tokens_in",
  "tokens_out",
  "latency_ms",
  "feedback",
  "feedback_type",
  "error",
];
const OWN = ["text", "status", "climbed", "min_cost_usd", "max_cost_usd"];

let held = false; // lasts while the page is open: who stopped the log does not want it to run off again

export async function show(context, signal) {
  const { state } = context;
  const narrowed = OWN.some((name) => state[name]);
  const ask = (cursor) => {
    const query = context.query();
    for (const name of OWN) if (state[name]) query.set(name, state[name]);
    query.set("limit", String(PAGE));
    if (cursor) query.set("cursor", cursor);
    return get("calls", query, signal);
  };
  await context.ready;
  const first = await ask(null);
  let items = first.items;
  let next = first.next_cursor;
  let searched_to = first.searched_to;
  let waiting = []; // came while the log was held
  let asking = false; // for older calls
  let reached = false; // the viewer read on to older calls
  let cut = false; // what came pushed others out: those older than `items` are no longer those after `next`
  let fading = null;
  let unsaid = 0; // new calls that a screen reader was not told of yet
  let said_at = -Infinity;
  let log = null;
  const live = isLive(state) && !narrowed;
  const body = h("div", {});
  const foot = h("div", { class: "row" });
  const hold = h("button", { type: "button", id: "hold", on: { click: () => setHeld(!held) } });

  function setHeld(value) {
    held = value;
    if (!held && waiting.length) {
      const came = waiting;
      waiting = [];
      add(came);
    }
    drawHold();
    if (!held) context.goOn();
  }

  function drawHold() {
    hold.setAttribute("aria-pressed", String(held));
    const shown = new Set(items.map((item) => item.call_id));
    const fresh = waiting.filter((item) => !shown.has(item.call_id)).length; // the others have changed
    hold.textContent = held ? (fresh ? `Go on (${fresh} new)` : "Go on") : "Hold still";
  }

  function add(came) {
    const known = new Map(items.map((item) => [item.call_id, item]));
    const fresh = new Set(came.filter((item) => !known.has(item.call_id)).map((item) => item.call_id));
    for (const item of came) known.set(item.call_id, item);
    const all = [...known.values()];
    all.sort((a, b) => (a.started_at === b.started_at ? 0 : a.started_at < b.started_at ? 1 : -1));
    items = all.slice(0, reached ? MOST_READ : MOST_SHOWN);
    if (items.length < all.length && !cut) {
      cut = true;
      drawFoot();
    }
    unsaid += fresh.size;
    if (unsaid && performance.now() - said_at > SAID_MS) {
      announce(`${unsaid} new ${unsaid === 1 ? "call" : "calls"}`);
      [unsaid, said_at] = [0, performance.now()];
    }
    draw(fresh);
    clearTimeout(fading);
    fading = setTimeout(() => log.update(items, new Set()), FRESH_MS);
  }

  function draw(fresh = new Set()) {
    if (log) {
      log.update(items, fresh);
      return;
    }
    if (!items.length && !next) {
      replace(
        body,
        empty(
          "No such calls",
          h(
            "p",
            {},
            "Choose a longer time, clear the filters, or search for something else. Prompts are not searched: they are not kept.",
          ),
        ),
      );
      return;
    }
    log = liveTable({
      name: "calls",
      caption: "Calls, newest first",
      rows: items,
      keyOf: (item) => item.call_id,
      open: (item) => context.open({ call: item.call_id }),
      columns: [
        {
          name: "started",
          title: "Started",
          cell: (item) => h("time", { datetime: item.started_at, class: "nowrap" }, secondOf(item.started_at)),
        },
        { name: "type", title: "Task type", cell: (item) => clipped(words(item.task_type)) },
        {
          name: "tier",
          title: "Tier",
          cell: (item) => [
            tierChip(item.tier, item.level),
            item.climbed && item.planned_tier !== item.tier
              ? h("span", { class: "small muted" }, " from ", clipped(item.planned_tier))
              : null,
          ],
        },
        { name: "model", title: "Model", cell: (item) => clipped(item.model, "mono") },
        { name: "outcome", title: "Outcome", cell: (item) => outcomeTag(item.status) },
        { name: "attempts", title: "Attempts", number: true, cell: (item) => count(item.attempts) },
        { name: "cost", title: "Cost", number: true, cell: (item) => money(item.cost_usd) },
        {
          name: "tokens",
          title: "Tokens in, out",
          number: true,
          cell: (item) => `${countShort(item.tokens_in)}, ${countShort(item.tokens_out)}`,
        },
        { name: "saved", title: "Saved", number: true, cell: (item) => savedText(item.saved_usd) },
        { name: "latency", title: "Latency", number: true, cell: (item) => duration(item.latency_ms) },
        { name: "confidence", title: "Confidence", number: true, cell: (item) => percent(item.confidence, 0) },
        { name: "project", title: "Project", cell: (item) => clipped(item.project ?? "") },
        {
          name: "session",
          title: "Session",
          cell: (item) =>
            item.session &&
            h(
              "button",
              {
                class: "link",
                type: "button",
                css: { "max-width": "100%" },
                data: { key: `session-${item.call_id}` },
                on: {
                  click: (event) => {
                    event.stopPropagation();
                    context.open({ conversation: item.session });
                  },
                },
              },
              clipped(item.session.slice(0, 8)),
            ),
        },
      ],
    });
    drawFoot();
    replace(body, log.element, foot);
  }

  function drawFoot() {
    const had = foot.contains(document.activeElement);
    replace(
      foot,
      (next || cut) &&
        h("button", { type: "button", id: "more", on: { click: more } }, narrowed ? "Search on" : "Older calls"),
      next && narrowed && searched_to && h("span", { class: "note" }, `Searched back to ${secondOf(searched_to)}.`),
    );
    if (had && !foot.contains(document.activeElement)) log.element.focus({ preventScroll: true }); // there are no more
  }

  async function more() {
    if (asking) return; // not disabled meanwhile: it would lose the focus
    asking = true;
    reached = true;
    try {
      if (cut) {
        const newest = await ask(null);
        items = newest.items;
        next = newest.next_cursor;
        cut = false;
      }
      if (next) {
        const older = await ask(next);
        items = [...items, ...older.items];
        next = older.next_cursor;
        searched_to = older.searched_to;
        announce(`${older.items.length} older calls`);
      }
      draw();
    } catch (error) {
      if (error.name !== "AbortError") announce(error.message);
    } finally {
      asking = false;
      drawFoot();
    }
  }

  const rows = () => [COLUMNS, ...items.map((item) => COLUMNS.map((name) => item[name]))];
  drawHold();
  draw();
  return {
    elements: [
      panel({
        title: "Calls",
        name: "calls",
        note: live
          ? "New calls appear as they are made."
          : "Time or search stands still: new calls do not appear by themselves.",
        tools: [live && hold].filter(Boolean),
        csv: rows,
        png: () =>
          tablePicture(
            "Calls",
            [["started_at", "task_type", "tier", "model", "status", "cost_usd", "latency_ms"]].flatMap((names) => [
              names,
              ...items.map((item) => names.map((name) => item[name])),
            ]),
          ),
        body: [search(context), body],
      }),
    ],
    // With these the view follows by itself, and is not read again.
    get still() {
      return !live || reached || held;
    },
    calls: live
      ? (came) => {
          if (!held) return add(came);
          const changed = new Set(came.map((item) => item.call_id));
          waiting = [...waiting.filter((item) => !changed.has(item.call_id)), ...came];
          return drawHold();
        }
      : undefined,
  };
}

const typed = new Map(); // by name: what stands in a field and not yet in the address, while the log is drawn anew

const takeTyped = debounced((context) => {
  const next = { ...context.state };
  for (const [name, text] of typed) next[name] = text || undefined;
  typed.clear();
  if (next.view === "calls") context.go(next, { replace: true }); // else the viewer went on before
}, TYPING_MS);

/** What narrows the log beside the filters. */
function search(context) {
  const { state, choices } = context;
  const set = (name) => (event) =>
    context.go({ ...context.state, [name]: event.target.value || undefined }, { replace: true });
  const field = (name, props) =>
    h("input", {
      value: typed.get(name) ?? state[name] ?? "",
      on: {
        input: ({ target }) => {
          if (!target.validity.valid) return;
          typed.set(name, target.value);
          takeTyped(context);
        },
      },
      ...props,
    });
  const cost = (name, title) =>
    h(
      "label",
      { class: "field" },
      title,
      field(name, {
        id: `calls-${name}`,
        type: "text", // of a number the caret could not be kept where it was
        inputmode: "decimal",
        pattern: AMOUNT,
        title: "US$, such as 0.05",
        size: "8",
      }),
    );
  return h(
    "div",
    { class: "row", role: "search", "aria-label": "Calls" },
    h(
      "label",
      { class: "field" },
      "Search",
      field("text", {
        id: "search",
        type: "search",
        maxlength: "200",
        placeholder: "id, project, session, model, error",
      }),
    ),
    h(
      "label",
      { class: "field" },
      "Outcome",
      h(
        "select",
        { id: "calls-status", on: { change: set("status") } },
        h("option", { value: "" }, "All"),
        (choices?.statuses ?? (state.status ? [state.status] : [])).map((name) =>
          h("option", { value: name, selected: name === state.status }, words(name)),
        ),
      ),
    ),
    h(
      "label",
      { class: "field" },
      "Climbed",
      h(
        "select",
        { id: "calls-climbed", on: { change: set("climbed") } },
        [
          ["", "All"],
          ["true", "Climbed"],
          ["false", "Did not"],
        ].map(([value, text]) => h("option", { value, selected: value === (state.climbed ?? "") }, text)),
      ),
    ),
    cost("min_cost_usd", "Cost from, $"),
    cost("max_cost_usd", "to, $"),
  );
}
