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
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** `$1,234.50`; below a dollar as many digits as say something: `$0.00123`. */
export function money(usd) {
  if (usd === null || usd === undefined) return MISSING;
  const size = Math.abs(Number(usd));
  return (size === 0 || size >= 1 ? dollars : size >= 0.01 ? fractions : tiny).format(String(usd)).replace("-", "−");
}

/** Money with its sign always: a saving may be a loss. */
export function signedMoney(usd) {
  if (usd === null || usd === undefined) return MISSING;
  return Number(usd) > 0 ? `+${money(usd)}` : money(usd);
}

/** A few characters for an axis. */
export function moneyTick(usd) {
  if (usd === 0) return "$0";
  if (Math.abs(usd) >= 10_000) return `$${compact.format(usd)}`;
  return money(String(usd)).replace(/\.00$/, "");
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
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.round((ms % 3_600_000) / 60_000)} min`;
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

const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const minute = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const second = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export const dayOf = (iso) => day.format(new Date(iso));
export const minuteOf = (iso) => minute.format(new Date(iso));
export const secondOf = (iso) => second.format(new Date(iso));

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

/** The labels of a time axis: the hour, and the day where it changes. */
export function timeTicks(seconds, step_seconds) {
  let last = "";
  return seconds.map((at) => {
    const moment = new Date(at * 1000);
    const date = axisDay.format(moment);
    const fresh = date !== last;
    last = date;
    if (step_seconds >= 86_400) return date;
    return fresh ? `${axisHour.format(moment)}\n${date}` : axisHour.format(moment);
  });
}

const axisDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const axisHour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
