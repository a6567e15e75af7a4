// What is looked at, as it stands in the address: view, filters, time, what is opened. Everything on the page follows
// from it, so a link shows another person the same. Pure: addresses in, values out; times are given, not read.

export const VIEWS = ["overview", "task-types", "quality", "calls", "limits", "what-if"];
export const FILTERS = ["project", "session", "key", "model", "tier", "task_type"];
const MAY_BE_NONE = ["project", "key"]; // set and empty: calls without one
const OWN = [
  "text",
  "status",
  "climbed",
  "min_cost_usd",
  "max_cost_usd",
  "call",
  "conversation",
  "type",
  "measure",
  "policy",
  "priced_on",
];

const HOUR_MS = 3_600_000;
export const RANGES = {
  "1h": { label: "Last hour", ms: HOUR_MS },
  "6h": { label: "Last 6 hours", ms: 6 * HOUR_MS },
  "24h": { label: "Last 24 hours", ms: 24 * HOUR_MS },
  "7d": { label: "Last 7 days", ms: 7 * 24 * HOUR_MS },
  "30d": { label: "Last 30 days", ms: 30 * 24 * HOUR_MS },
  "90d": { label: "Last 90 days", ms: 90 * 24 * HOUR_MS },
  "365d": { label: "Last year", ms: 365 * 24 * HOUR_MS },
};
export const DEFAULT_RANGE = "7d";
const SHORTEST_MS = 60_000;
const [FIRST_MS, LAST_MS] = [0, Date.parse("9999-12-31T23:59:59.999Z")]; // that the server can be asked of

/** Whether a filter is set. */
export const isSet = (state, name) => Boolean(state[name]) || (state[name] === "" && MAY_BE_NONE.includes(name));

/** The state that an address tells. What it does not know is left out; a wrong time is as none. */
export function parse(search) {
  const query = new URLSearchParams(search);
  const state = { view: "overview", range: DEFAULT_RANGE };
  if (VIEWS.includes(query.get("view"))) state.view = query.get("view");
  const [since, until] = [time(query.get("since")), time(query.get("until"))];
  if (since !== null && until !== null && until > since) {
    state.range = "custom";
    state.since = new Date(since).toISOString();
    state.until = new Date(until).toISOString();
  } else if (Object.hasOwn(RANGES, query.get("range") ?? "")) state.range = query.get("range");
  for (const name of [...FILTERS, ...OWN]) {
    const value = query.get(name);
    if (value !== null && isSet({ [name]: value }, name)) state[name] = value;
  }
  return state;
}

/** The address of a state. What is usual is left out. */
export function serialize(state) {
  const query = new URLSearchParams();
  if (state.view !== "overview") query.set("view", state.view);
  if (state.range === "custom") {
    query.set("since", state.since);
    query.set("until", state.until);
  } else if (state.range !== DEFAULT_RANGE) query.set("range", state.range);
  for (const name of [...FILTERS, ...OWN]) if (isSet(state, name)) query.set(name, state[name]);
  const text = query.toString();
  return text ? `?${text}` : "?";
}

function time(text) {
  const at = text ? Date.parse(text) : Number.NaN;
  return at >= FIRST_MS && at <= LAST_MS ? at : null;
}

/** From when to when, in milliseconds. A preset ends now. */
export function span(state, now_ms) {
  if (state.range === "custom") return { since_ms: Date.parse(state.since), until_ms: Date.parse(state.until) };
  return { since_ms: now_ms - RANGES[state.range].ms, until_ms: now_ms };
}

/** Whether the time goes on with the clock. */
export const isLive = (state) => state.range !== "custom";

/** The filters, as the API takes them. */
export function scope(state, now_ms) {
  const { since_ms, until_ms } = span(state, now_ms);
  const query = new URLSearchParams({
    since: new Date(since_ms).toISOString(),
    until: new Date(until_ms).toISOString(),
  });
  for (const [name, value] of chosen(state)) query.set(name, value);
  return query;
}

/** The filters but for the time: which calls, whenever they are made. */
export function chosen(state) {
  return new URLSearchParams(FILTERS.filter((name) => isSet(state, name)).map((name) => [name, state[name]]));
}

/** Another stretch of time, not shorter than a minute, and not beyond the years that there are. */
export function between(state, since_ms, until_ms) {
  const start = Math.min(Math.max(since_ms, FIRST_MS), LAST_MS - SHORTEST_MS);
  const end = Math.min(Math.max(until_ms, start + SHORTEST_MS), LAST_MS);
  return {
    ...state,
    range: "custom",
    since: new Date(Math.round(start)).toISOString(),
    until: new Date(Math.round(end)).toISOString(),
  };
}

/** One of the presets. */
export const toRange = (state, range) => ({ ...state, range, since: undefined, until: undefined });

/** Earlier (−) or later (+), by a share of what is seen. */
export function shifted(state, share, now_ms) {
  const { since_ms, until_ms } = span(state, now_ms);
  const by = (until_ms - since_ms) * share;
  return between(state, since_ms + by, until_ms + by);
}

/** Twice as much time (2) or half (0.5), about the middle. */
export function zoomed(state, factor, now_ms) {
  const { since_ms, until_ms } = span(state, now_ms);
  const [middle, half] = [(since_ms + until_ms) / 2, ((until_ms - since_ms) / 2) * factor];
  return between(state, middle - half, Math.min(middle + half, Math.max(now_ms, until_ms)));
}

/** Another view with the same time and filters; what only one view knows is left behind. */
export function toView(state, view) {
  const next = { view, range: state.range };
  for (const name of ["since", "until", ...FILTERS]) if (isSet(state, name)) next[name] = state[name];
  return next;
}

/** Without filters; the time stays. */
export function cleared(state) {
  const next = { ...state };
  for (const name of FILTERS) delete next[name];
  return next;
}
