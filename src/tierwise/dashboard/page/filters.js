// The row of filters. It applies to every view, and lives in the address.

import { h, short } from "./dom.js";
import { words } from "./format.js";
import { cleared, FILTERS, isSet, RANGES, shifted, toRange, zoomed } from "./state.js";

const TITLES = {
  project: "Project",
  session: "Session",
  key: "Key",
  model: "Model",
  tier: "Tier",
  task_type: "Task type",
};
const WITHOUT = { project: "No project", key: "No key" };
const LONGEST = 60; // of a name in a picker
const TYPING_MS = 400;

function options(name, choices) {
  switch (name) {
    case "project":
      return choices.projects.map((value) => [value, value]);
    case "session":
      return choices.sessions.map((value) => [value, value]);
    case "key":
      return choices.keys.map((key) => [key.key, key.name || key.key]);
    case "model":
      return choices.models.map((model) => [model.name, model.name]);
    case "tier":
      return choices.tiers.map((tier) => [tier.name, tier.name]);
    case "task_type":
      return choices.task_types.map((type) => [type.name, words(type.name)]);
    default:
      throw new Error(`no such filter: ${name}`);
  }
}

function picker(name, state, choices, change) {
  const set = isSet(state, name);
  const offered = choices ? options(name, choices) : [];
  // What the address asks for is shown even if it is not offered (any more).
  if (set && !offered.some(([value]) => value === state[name])) offered.unshift([state[name], state[name]]);
  offered.sort(([a], [b]) => Boolean(a) - Boolean(b)); // calls without one come first
  const pick = ({ selectedOptions }) => {
    const [{ dataset, value }] = selectedOptions;
    change((now) => ({ ...now, [name]: value || "without" in dataset ? value : undefined }));
  };
  const select = h(
    "select",
    {
      id: `filter-${name}`,
      class: set ? "set" : null,
      disabled: !set && !offered.some(([value]) => value),
      on: picked(pick),
    },
    h("option", { value: "" }, "All"),
    offered.map(([value, text]) =>
      h(
        "option",
        { value, selected: set && value === state[name], data: value ? {} : { without: "" } },
        value ? short(text, LONGEST) : WITHOUT[name],
      ),
    ),
  );
  return h("label", { class: "field picked" }, h("span", {}, TITLES[name]), select);
}

let all = false; // whether a narrow screen shows the pickers, too

/**
 * What a picker listens to. Each letter that is typed into one changes it, and drawing it anew would forget the letters
 * before: so the choice of one that is typed into waits until that is over, or the picker is left.
 */
function picked(choose) {
  let [typing, timer] = [false, null];
  const now = ({ target }) => {
    clearTimeout(timer);
    timer = null;
    choose(target);
  };
  return {
    keydown: () => (typing = true),
    pointerdown: () => (typing = false),
    change: (event) => {
      clearTimeout(timer);
      if (typing) timer = setTimeout(now, TYPING_MS, event);
      else now(event);
    },
    blur: (event) => timer !== null && now(event),
  };
}

/**
 * The filters of `state`. It and the time have gone on when one is changed: `change` is given a function from the state
 * and the time of then to the next state. `period` stands last.
 */
export function filters(state, choices, change, period) {
  const ranges = h(
    "select",
    {
      id: "filter-range",
      on: picked(({ value }) => change((now) => (value === "custom" ? now : toRange(now, value)))),
    },
    Object.entries(RANGES).map(([value, range]) =>
      h("option", { value, selected: value === state.range }, range.label),
    ),
    state.range === "custom" && h("option", { value: "custom", selected: true }, "As chosen"),
  );
  const step = (text, label, next) =>
    h(
      "button",
      { type: "button", "aria-label": label, title: label, data: { key: label }, on: { click: () => change(next) } },
      text,
    );
  const set = FILTERS.filter((name) => isSet(state, name)).length;
  const more = h(
    "button",
    { type: "button", class: "more", id: "more-filters", "aria-expanded": String(all), on: { click: open } },
    set ? `Filters (${set})` : "Filters",
  );
  function open() {
    all = !all;
    more.setAttribute("aria-expanded", String(all));
    more.parentElement.classList.toggle("all", all);
  }
  function clear() {
    change(cleared);
    document.getElementById("filter-range").focus({ preventScroll: true }); // the button is gone
  }
  return h(
    "div",
    { class: `filters ${all ? "all" : ""}`.trim(), role: "group", "aria-label": "Filters" },
    h("label", { class: "field time" }, h("span", {}, "Time"), ranges),
    h(
      "div",
      { class: "steps", role: "group", "aria-label": "Move in time" },
      step("‹", "Earlier ([)", (now, now_ms) => shifted(now, -0.5, now_ms)),
      step("+", "Zoom in (+)", (now, now_ms) => zoomed(now, 0.5, now_ms)),
      step("−", "Zoom out (-)", (now, now_ms) => zoomed(now, 2, now_ms)),
      step("›", "Later (])", (now, now_ms) => shifted(now, 0.5, now_ms)),
    ),
    more,
    FILTERS.map((name) => picker(name, state, choices, change)),
    set > 0 && h("button", { type: "button", id: "clear", on: { click: clear } }, "Clear filters"),
    period,
  );
}
