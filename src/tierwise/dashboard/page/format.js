// How figures read. Money comes as decimal strings and is formatted from them, never through a float. Times come in
// UTC and are shown in the viewer's own zone.

const MISSING = "—";

const CENTS = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", ...CENTS });
const fractions = new Intl.NumberFormat("en-US", {
  style: "currency",
  currency: "USD",
  minimumFractionDigits: 2,
  maximumFractionDigits: 3,
});
const tiny = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const wholeDollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumFractionDigits: 0 });
const shortDollars = new Intl.NumberFormat("en-US", {
  style: "currency",
  currency: "USD",
  notation: "compact",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** `$1,234.50`; below a dollar as many digits as say something: `$0.00123`. */
export function money(usd) {
  if (usd === null || usd === undefined) return MISSING;
  const size = Math.abs(Number(usd));
  return (size === 0 || size >= 1 ? dollars : size >= 0.01 ? fractions : tiny).format(String(usd)).replace("-", "−");
}

/** Money with its sign always: a saving may be a loss. */
export function signedMoney(usd, say = money) {
  if (usd === null || usd === undefined) return MISSING;
  return Number(usd) > 0 ? `+${say(usd)}` : say(usd);
}

/** Money where there is little room: `$31,415` of a thousand on, `$891.0K` of a hundred thousand on. */
export function moneyShort(usd) {
  const size = Math.abs(Number(usd ?? 0));
  if (size < 1_000) return money(usd);
  return (size < 100_000 ? wholeDollars : shortDollars).format(String(usd)).replace("-", "−");
}

export const UNKNOWN = "unknown";

/** Whether not one attempt of these has a known price: what they cost is not nothing, but unknown. */
export const isUnpriced = (of) => of.attempts > 0 && of.unpriced_attempts === of.attempts;

/** Whether there is none among these calls whose cost and baseline are both known. */
export const isNotCompared = (of) => of.calls > 0 && of.unpriced_calls === of.calls;

/** What calls cost, as far as it is known: `≥ $1.20` where a price is missing. */
export function spent(of, say = money) {
  if (isUnpriced(of)) return UNKNOWN;
  return `${of.unpriced_attempts ? "≥ " : ""}${say(of.cost_usd)}`;
}

/** A few characters for an axis whose ticks are `step` apart: all of them with as many digits. */
export function moneyTick(usd, step) {
  if (usd === 0) return "$0";
  const size = Math.abs(usd);
  const text = size >= 10_000 ? compact.format(size) : size.toFixed(places(step) === 1 ? 2 : places(step));
  return `${usd < 0 ? "−" : ""}$${text}`;
}

export function percentTick(share, step) {
  return percent(share, places(step * 100));
}

/** Of whole things: none where there is no whole number. */
export function countTick(value) {
  return Number.isInteger(value) ? countShort(value) : "";
}

/** How many digits after the point tell multiples of a step apart. */
function places(step) {
  const isWhole = (number) => Math.abs(number - Math.round(number)) <= 1e-6 * number;
  let digits = 0;
  while (digits < 12 && !isWhole(step * 10 ** digits)) digits += 1;
  return digits;
}

export function count(value) {
  return value === null || value === undefined ? MISSING : whole.format(value);
}

export function countShort(value) {
  if (value === null || value === undefined) return MISSING;
  return Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
}

/** A share of one as per cent. */
export function percent(share, digits = 1) {
  if (share === null || share === undefined) return MISSING;
  return `${(share * 100).toFixed(digits).replace("-", "−")} %`;
}

export function duration(ms) {
  if (ms === null || ms === undefined) return MISSING;
  if (ms < 1) return "0 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_995) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const [seconds, minutes] = [Math.round(ms / 1000), Math.round(ms / 60_000)];
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** How a figure changed: `+12 %`; more than tenfold as a factor, and from nothing as new. */
export function change(now, before) {
  if (now === null || now === undefined || before === null || before === undefined) return null;
  const [to, from] = [Number(now), Number(before)];
  if (from === 0) return to === 0 ? "no change" : "new";
  const share = (to - from) / Math.abs(from);
  if (Math.abs(share) < 0.0005) return "no change";
  if (Math.abs(share) > 10) return `${share > 0 ? "+" : "−"}${whole.format(Math.abs(to / from))}×`;
  return `${share > 0 ? "+" : "−"}${(Math.abs(share) * 100).toFixed(Math.abs(share) < 0.1 ? 1 : 0)} %`;
}

const DAY = { day: "numeric", month: "short" };
const MINUTE = { hour: "2-digit", minute: "2-digit" };
const day = new Intl.DateTimeFormat(undefined, { ...DAY, year: "numeric" });
const minute = dated(MINUTE);
const second = dated({ ...MINUTE, second: "2-digit" });

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export const dayOf = (iso) => day.format(new Date(iso));
export const minuteOf = (iso) => minute(new Date(iso));
export const secondOf = (iso) => second(new Date(iso));

/** How moments read: with their day, and with their year where it is not this one. */
function dated(time) {
  const near = new Intl.DateTimeFormat(undefined, { ...DAY, ...time });
  const far = new Intl.DateTimeFormat(undefined, { ...DAY, year: "numeric", ...time });
  return (moment) => (moment.getFullYear() === new Date().getFullYear() ? near : far).format(moment);
}

/** From when to when: `27 Nov, 09:00 – 12:00`, with the second day where it is another one. */
export function spanOf(from, to) {
  const [begin, end] = [new Date(from), new Date(to)];
  const sameDay = begin.toDateString() === end.toDateString();
  return `${minute(begin)} – ${sameDay ? axisHour.format(end) : minute(end)}`;
}

/** How long a bar of a chart is. Whole days are those of UTC, as the ledger keeps them. */
export function stretchOf(seconds) {
  const hours = seconds / 3600;
  const [size, unit] = [[168, "week"], [24, "day"], [1, "hour"]].find(([size]) => hours % size === 0);
  const number = hours / size;
  return `${number} ${unit}${number === 1 ? "" : "s"}${unit === "hour" ? "" : " (UTC)"}`;
}

/** A moment with its exact value for machines and in the tooltip. */
export function timeText(iso) {
  return iso ? secondOf(iso) : MISSING;
}

export function ago(iso, now_ms) {
  const seconds = Math.max(0, (now_ms - Date.parse(iso)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** `rate_limited` as people say it. */
export function words(name) {
  return String(name ?? "").replaceAll("_", " ");
}

/** The labels of a time axis: the hour, the day where it changes, and the year where that does. */
export function timeTicks(seconds, step_seconds) {
  let [last, year] = ["", new Date().getFullYear()];
  return seconds.map((at) => {
    const moment = new Date(at * 1000);
    const date = axisDay.format(moment);
    const [newDay, newYear] = [date !== last, moment.getFullYear() !== year];
    [last, year] = [date, moment.getFullYear()];
    if (step_seconds >= 86_400) return newYear ? `${date}\n${year}` : date;
    return newDay ? `${axisHour.format(moment)}\n${date}${newYear ? ` ${year}` : ""}` : axisHour.format(moment);
  });
}

const axisDay = new Intl.DateTimeFormat(undefined, DAY);
const axisHour = new Intl.DateTimeFormat(undefined, MINUTE);
