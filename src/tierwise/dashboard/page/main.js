// The page: its head, which view is shown, keys, and what goes on while it is open.
//
// The address is the state (state.js). `go` writes it, `show` draws what it says: a view reads what it needs from the
// API and gives back elements. A view that is still reading when another is asked for is told to stop, and what it
// brings later is dropped.

import { ApiError, get, listen, rememberKey } from "./api.js";
import { h, replace } from "./dom.js";
import { filters } from "./filters.js";
import { isUnpriced, signedMoney, spanOf, spent, zone } from "./format.js";
import { ofThisBrowser } from "./memory.js";
import { announce, problem } from "./parts.js";
import { between, chosen, isLive, parse, scope, serialize, shifted, span, toView, VIEWS, zoomed } from "./state.js";
import { openCall, openConversation, openKeys, openType, sheet } from "./sheets.js";
import * as calls from "./views/calls.js";
import * as limits from "./views/limits.js";
import * as overview from "./views/overview.js";
import * as quality from "./views/quality.js";
import * as taskTypes from "./views/task-types.js";
import * as whatIf from "./views/what-if.js";

const SHOWN = { overview, "task-types": taskTypes, quality, calls, limits, "what-if": whatIf };
const TITLES = {
  overview: "Overview",
  "task-types": "Task types",
  quality: "Quality",
  calls: "Calls",
  limits: "Limits and budgets",
  "what-if": "What if",
};
const OPENED = ["call", "conversation", "type"]; // over the view
const THEME = "tierwise.theme";
const REFRESH_MS = 30_000; // of a view whose time goes on, beside what live events bring
const SETTLE_MS = 5_000; // at most so often because of live events, as are the pickers

const page = {
  state: parse(location.search),
  choices: null,
  live: null, // {connected, totals}
  reading: null, // while the view is read: what aborts that
  came: [], // calls that were told of meanwhile
  listening: null,
  current: null, // the view's handle: {calls?(items), still?}, or {failed}
};
const main = document.getElementById("view");
const header = document.getElementById("header");

function go(next, { replace: instead = false } = {}) {
  const address = serialize(next);
  if (address === serialize(page.state)) return;
  const before = page.state;
  page.state = parse(address);
  history[instead ? "replaceState" : "pushState"](null, "", address);
  arrived(before);
}

/** Draw what changed between two states. What is opened lies over the view, which need not be read again. */
function arrived(before) {
  const under = (state) =>
    serialize(Object.fromEntries(Object.entries(state).filter(([name]) => !OPENED.includes(name))));
  if (under(before) !== under(page.state)) {
    drawHead();
    const moved = before.view !== page.state.view;
    if (chosen(before).toString() !== chosen(page.state).toString()) listenAgain();
    show({ fresh: true }).then(() => moved && announce(`${TITLES[page.state.view]} shown`));
    if (moved) main.focus({ preventScroll: true });
    if (moved) scrollTo(0, 0);
  }
  drawSheet();
}

const context = {
  go,
  get state() {
    return page.state;
  },
  get choices() {
    return page.choices;
  },
  ready: null, // what pickers offer is there, or will not come
  query: () => scope(page.state, Date.now()),
  zoom: (since_ms, until_ms) => go(between(page.state, since_ms, until_ms)),
  open: (what) => go({ ...page.state, call: undefined, conversation: undefined, type: undefined, ...what }),
  again: () => show({}),
  goOn: () => missed && settle(), // the view was held still
};

// Told apart from the rest of the head: they change while it stands, and a picker that is open must not be disturbed.
const pulse = h("span", { class: "pulse", "aria-hidden": "true" });
const logo = h("img", { src: "icon.svg", alt: "" });
const today = h("span", { title: "All calls since midnight UTC" });
const period = h("p", { class: "shown" });

function drawStatus() {
  const totals = page.live?.totals?.now;
  pulse.classList.toggle("on", Boolean(page.live?.connected));
  if (!page.live?.connected) today.textContent = "not live";
  else if (!totals) today.textContent = "live";
  else if (isUnpriced(totals)) today.textContent = "today: cost unknown";
  else today.textContent = `today ${spent(totals)} spent, ${signedMoney(totals.saved_usd)} saved`;
}

/** From when to when what is shown is. */
function drawPeriod() {
  const { since_ms, until_ms } = span(page.state, Date.now());
  replace(period, spanOf(since_ms, until_ms), h("br"), " ", zone);
}

function drawHead() {
  const { state } = page;
  drawStatus();
  drawPeriod();
  replace(
    header,
    h(
      "div",
      { class: "bar" },
      h(
        "a",
        {
          class: "brand",
          href: "?",
          on: {
            click: (event) =>
              follow(
                event,
                toView({ ...parse(""), range: state.range, since: state.since, until: state.until }, "overview"),
              ),
          },
        },
        logo,
        "tierwise",
      ),
      h(
        "nav",
        { "aria-label": "Views" },
        VIEWS.map((view) =>
          h(
            "a",
            {
              href: serialize(toView(state, view)),
              "aria-current": view === state.view ? "page" : null,
              data: { key: `nav-${view}` },
              on: { click: (event) => follow(event, toView(state, view)) },
            },
            TITLES[view],
          ),
        ),
      ),
      h(
        "div",
        { class: "status" },
        pulse,
        today,
        h(
          "button",
          {
            class: "plain",
            type: "button",
            id: "theme",
            "aria-label": `Theme: ${theme()}. Change it`,
            title: "Light, dark, or as the system (d)",
            on: { click: nextTheme },
          },
          { light: "☀", dark: "☾", system: "◐" }[theme()],
        ),
        h(
          "button",
          {
            class: "plain",
            type: "button",
            id: "help",
            "aria-label": "Keys (?)",
            title: "Keys (?)",
            on: { click: () => openKeys() },
          },
          "?",
        ),
      ),
    ),
    filters(state, page.choices, (change) => go(change(page.state, Date.now())), period),
  );
  document.title = `${TITLES[state.view]} – tierwise`;
  // On a narrow screen not all views fit: the one that is shown is seen. (`scrollIntoView` would move where Tab begins.)
  const shown = header.querySelector("[aria-current]");
  const [nav, link] = [shown.parentElement.getBoundingClientRect(), shown.getBoundingClientRect()];
  shown.parentElement.scrollLeft += link.left + link.width / 2 - (nav.left + nav.width / 2);
}

function follow(event, state) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a new tab is the browser's
  event.preventDefault();
  go(state);
}

/** Read and draw the view. `fresh`: it is another one, or of another time, and what is shown no longer holds. */
async function show({ fresh = false }) {
  page.reading?.abort();
  const reading = new AbortController();
  page.reading = reading;
  page.came = [];
  missed = false;
  main.setAttribute("aria-busy", "true");
  drawPeriod();
  try {
    if (fresh) page.current = null;
    const shown = await SHOWN[page.state.view].show(context, reading.signal);
    if (reading.signal.aborted) return;
    const isEmpty =
      page.choices && page.choices.first_call_at === null && !["what-if", "limits"].includes(page.state.view);
    page.current = shown;
    replace(main, h("h1", { class: "sr-only" }, TITLES[page.state.view]), isEmpty ? firstSteps() : shown.elements);
    if (page.came.length) shown.calls?.(page.came);
  } catch (error) {
    if (error.name === "AbortError" || reading.signal.aborted) return;
    if (!(error instanceof ApiError)) console.error(error);
    page.current = { failed: !(error.status >= 400 && error.status < 500) }; // by no fault of what was asked
    replace(
      main,
      h("h1", { class: "sr-only" }, TITLES[page.state.view]),
      error.status === 401 || error.status === 403 ? askKey(error) : problem(error),
    );
  } finally {
    if (page.reading === reading) {
      page.reading = null;
      main.setAttribute("aria-busy", "false");
    }
  }
}

function firstSteps() {
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "No calls yet"),
    h(
      "div",
      { class: "empty" },
      h("p", {}, "This page fills as calls are made. Three ways to make one:"),
      h(
        "ol",
        {},
        h("li", {}, h("code", {}, "tierwise demo"), " runs a small agent task through the tiers, without a key."),
        h("li", {}, h("code", {}, "tierwise claude"), " runs Claude Code through the gateway."),
        h("li", {}, h("code", {}, 'tierwise run "Summarise this ticket: …"'), " routes one piece of work."),
      ),
    ),
  );
}

function askKey(error) {
  const field = h("input", { type: "password", id: "api-key", autocomplete: "off", required: true });
  return h(
    "form",
    {
      class: "panel",
      on: {
        submit: (event) => {
          event.preventDefault();
          rememberKey(field.value.trim());
          start();
        },
      },
    },
    h("h2", {}, "A key is needed"),
    h("p", {}, error.message, error.advice ? `: ${error.advice}` : "", "."),
    h(
      "div",
      { class: "row" },
      h("label", { class: "field" }, "Key (kept in this tab only)", field),
      h("button", { class: "main", type: "submit" }, "Show the figures"),
    ),
  );
}

function drawSheet() {
  const { call, conversation, type } = page.state;
  if (call) openCall(context, call);
  else if (conversation) openConversation(context, conversation);
  else if (type) openType(context, type);
  else sheet.close();
}

// ---------------------------------------------------------------- what goes on

let settling = null;
let missed = false; // events were left out: the log of calls, too, has to be read again
let offering = null;

/** Read soon what the pickers offer: something happened, and a session may have begun. */
function offer() {
  offering ??= setTimeout(async () => {
    offering = null;
    const { first_call_at: began } = page.choices ?? {}; // that events told of, and the server may not know for a moment
    const found = await get("choices").catch(() => page.choices);
    page.choices = found && { ...found, first_call_at: found.first_call_at ?? began ?? null };
    if (!header.contains(document.activeElement)) drawHead(); // a picker that is open must not be disturbed
  }, SETTLE_MS);
}

/** The first call of all was made: what stands where there is none gives way. */
function begin(call) {
  page.choices = { ...page.choices, first_call_at: call.started_at };
  show({});
}

/** Read again soon, since something happened. */
function settle() {
  settling ??= setTimeout(() => {
    settling = null;
    if (page.reading) settle();
    else if (isDue()) show({}); // else what was missed stays missed until somebody looks
  }, SETTLE_MS);
}

/** Whether the view may be read again by itself: its time goes on, somebody looks, and nothing would be disturbed. */
function goesOn() {
  const mayChange = isLive(page.state) || page.current?.failed;
  return mayChange && !document.hidden && !page.current?.still && !busy();
}

/**
 * Whether it has to be, too: it does not follow by itself, or missed something. Not while it is being read: begun anew
 * again and again, a reading that takes longer than that would never end.
 */
const isDue = () => goesOn() && !page.reading && (missed || !page.current?.calls);

/** Whether the viewer is in the middle of something that drawing anew would disturb. */
function busy() {
  const at = document.activeElement;
  const typing = main.contains(at) && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName);
  return (
    typing ||
    sheet.isOpen() ||
    !getSelection().isCollapsed ||
    main.querySelector(".chart:hover, .panel:active") !== null
  );
}

function listenAgain() {
  page.listening?.abort();
  if (document.hidden) return;
  const listening = new AbortController();
  page.listening = listening;
  listen(
    chosen(page.state),
    (event, data) => {
      if (listening.signal.aborted) return;
      if (event === "totals") {
        page.live = { connected: true, totals: data };
        drawStatus();
        offer();
        return;
      }
      const came = event === "calls" ? data.items : [];
      if (came.length && page.choices?.first_call_at === null) begin(came[0]);
      if (page.reading) page.came.push(...came);
      if (came.length && isLive(page.state)) page.current?.calls?.(came);
      if (event === "missed") missed = true;
      if (came.length || missed) settle();
    },
    (connected) => {
      if (listening.signal.aborted) return;
      if (connected && page.live?.connected === false) {
        missed = true; // what happened meanwhile
        settle();
      }
      page.live = { totals: page.live?.totals, connected };
      drawStatus();
    },
    listening.signal,
  );
}

document.addEventListener("visibilitychange", () => {
  listenAgain();
  if (document.hidden) missed = true; // from now on
  else if (goesOn()) show({});
});
setInterval(() => {
  if (isDue()) show({});
  else if (page.current?.calls) drawPeriod(); // it follows
}, REFRESH_MS);

// ---------------------------------------------------------------- theme, keys

function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  ofThisBrowser.set(THEME, name);
}

function nextTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order = dark ? ["system", "light", "dark"] : ["system", "dark", "light"];
  setTheme(order[(order.indexOf(theme()) + 1) % order.length]);
  announce(`Theme: ${theme()}`);
  drawHead();
  show({}); // charts are drawn in the theme's colours
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || sheet.isOpen()) return;
  const { state } = page;
  const number = Number(event.key);
  if (number >= 1 && number <= VIEWS.length) go(toView(state, VIEWS[number - 1]));
  else if (event.key === "[") go(shifted(state, -0.5, Date.now()));
  else if (event.key === "]") go(shifted(state, 0.5, Date.now()));
  else if (event.key === "+" || event.key === "=") go(zoomed(state, 0.5, Date.now()));
  else if (event.key === "-") go(zoomed(state, 2, Date.now()));
  else if (event.key === "d") nextTheme();
  else if (event.key === "r") show({});
  else if (event.key === "f") document.getElementById("filter-range").focus();
  else if (event.key === "/")
    document.getElementById("search") ? document.getElementById("search").focus() : go(toView(state, "calls"));
  else if (event.key === "?") openKeys();
  else return;
  event.preventDefault();
});

addEventListener("popstate", () => {
  const before = page.state;
  page.state = parse(location.search);
  arrived(before);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme() === "system" && show({}));

async function start() {
  if (["light", "dark"].includes(ofThisBrowser.get(THEME))) setTheme(ofThisBrowser.get(THEME));
  drawHead();
  // The pickers wait for nothing, and the figures do not wait for the pickers.
  context.ready = get("choices").then(
    (choices) => {
      page.choices = choices;
      drawHead();
      if (choices.first_call_at === null) show({});
    },
    () => {}, // the view tells what is wrong
  );
  const shown = show({ fresh: true });
  listenAgain(); // from now on: what is made while the view is read is not lost
  await Promise.all([context.ready, shown]);
  if (OPENED.some((name) => page.state[name])) drawSheet(); // not the keys, which may be open by now
}

start();
