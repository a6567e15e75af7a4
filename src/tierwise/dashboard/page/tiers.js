// Tiers as they are shown: a colour by their level, cheapest first, and always the name beside it.

import { clipped, h } from "./dom.js";
import { percent, words } from "./format.js";

const COLOURS = 6;

/** The part of a class or of a custom property that names the colour of a level. */
export function shade(level) {
  return level === null || level === undefined ? "none" : String(level % COLOURS);
}

/** Tiers in their order, the cheapest first; then what is no tier (any more), by name. */
export const byLevel = (a, b) => (a.level ?? Infinity) - (b.level ?? Infinity) || (a.name < b.name ? -1 : 1);

export function tierChip(name, level) {
  return h(
    "span",
    { class: "tier" },
    h("span", { class: `swatch fill-${shade(level)}`, "aria-hidden": "true" }),
    clipped(name || "none"),
  );
}

export function legend(lines) {
  return h(
    "ul",
    { class: "legend" },
    lines.map((line) => h("li", {}, tierChip(line.name, line.level))),
  );
}

/** A bar split by tier. `parts`: {tier, level, value}; `of`: what the full width stands for. */
export function stack(parts, of, label) {
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  const whole = of ?? total;
  return h(
    "div",
    {
      class: "stack",
      role: "img",
      "aria-label": `${label}: ${described(parts, total)}`,
      title: described(parts, total),
    },
    parts
      .filter((part) => part.value > 0)
      .map((part) =>
        h("span", {
          class: `fill-${shade(part.level)}`,
          css: { width: `${whole > 0 ? (100 * part.value) / whole : 0}%` },
        }),
      ),
  );
}

function described(parts, total) {
  const seen = parts.filter((part) => part.value > 0);
  if (!seen.length) return "nothing";
  return seen
    .map((part) => `${String(part.tier).slice(0, 40)} ${percent(total ? part.value / total : 0, 0)}`)
    .join(", ");
}

const BAD = new Set([
  "failed",
  "refused",
  "rejected",
  "server_error",
  "timeout",
  "connection",
  "unauthorized",
  "invalid_request",
  "too_large",
  "unavailable",
]);
const DOUBTFUL = new Set(["truncated", "rate_limited", "overloaded", "cancelled", "not_run"]);

/** How a call or an attempt ended. */
export function outcomeTag(name) {
  const kind = BAD.has(name)
    ? "bad"
    : DOUBTFUL.has(name)
      ? "warn"
      : name === "accepted" || name === "answered"
        ? "good"
        : "";
  return h("span", { class: `tag ${kind}` }, clipped(words(name)));
}
