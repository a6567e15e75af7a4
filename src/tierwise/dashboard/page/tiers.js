// Tiers as they are shown: a colour by their level, cheapest first, and always the name beside it.

import { clipped, h } from "./dom.js";
import { percent, words } from "./format.js";

const COLOURS = 6;

/**
 * The part of a class or of a custom property that names the colour of a tier. From the seventh on colours come again,
 * striped; so are those of names that are no tier of this configuration (any more), whose colour is of their letters.
 */
export function shade(level, name = "") {
  if (isTier(level)) return String(level % COLOURS);
  if (!name) return "none";
  return String([...name.slice(0, 100)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 9973, 7) % COLOURS);
}

export const isStriped = (level, name = "") => (isTier(level) ? level >= COLOURS : Boolean(name));

/** The classes of what is filled with the colour of a tier. */
export const fill = (level, name) => `fill-${shade(level, name)}${isStriped(level, name) ? " striped" : ""}`;

const isTier = (level) => level !== null && level !== undefined;

/** Tiers in their order, the cheapest first; then what is no tier (any more), by name. */
export const byLevel = (a, b) => (a.level ?? Infinity) - (b.level ?? Infinity) || (a.name < b.name ? -1 : 1);

export function tierChip(name, level) {
  return h(
    "span",
    { class: "tier" },
    h("span", { class: `swatch ${fill(level, name)}`, "aria-hidden": "true" }),
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
          class: fill(part.level, part.tier),
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
