// Charts. Time series are drawn by uPlot (vendor/), the small ones here as SVG.
//
// A stacked chart is drawn as sums: the whole first, then the whole less the top layer on it, and so on, so that each
// layer shows just its own part. What a chart shows can also be had as a table, which is what its buttons and screen
// readers use.

import { clipped, h, replace, short, svg } from "./dom.js";
import { spanOf, timeTicks } from "./format.js";
import { isStriped, shade } from "./tiers.js";
import uPlot from "./vendor/uplot.js";

const HEIGHT = 230;
const NARROW = 420;
const PICTURED = 640; // as wide is a picture of a chart that is not on the screen
const LETTER = 7; // as wide as those of an axis are at most

/** The colours of the theme, as the canvas needs them: resolved. */
function colour(name) {
  const probe = h("span", { css: { color: `var(--${name})`, display: "none" } });
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** What a canvas is filled with: a colour, or stripes of it, as style.css draws them. */
function brush(name, striped) {
  if (!striped) return colour(name);
  const size = Math.round(6 * (devicePixelRatio || 1));
  const tile = h("canvas", { width: size, height: size });
  const pen = tile.getContext("2d");
  pen.fillStyle = colour(name);
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = colour("panel");
  pen.lineWidth = size / 4;
  pen.beginPath();
  for (const x of [-size / 2, size / 2, (3 * size) / 2]) {
    pen.moveTo(x - size, size * 1.5);
    pen.lineTo(x + size, -size / 2);
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat");
}

/**
 * A chart over time. `starts`: moments; `lines`: {name, level, values (numbers or null), dash}; `kind`: "stack" or
 * "line"; `tick(value, step)` and `tell(value)` say a value, on the axis and by itself; `whole`: layers add up to
 * something; `zoom(since_ms, until_ms)` is called when a stretch is dragged. Returns {element, png}.
 */
export function timeChart({
  title,
  starts,
  interval_seconds,
  lines,
  kind,
  tick,
  tell,
  zoom,
  whole = false,
  height = HEIGHT,
  colours,
}) {
  const times = starts.map((start) => Date.parse(start) / 1000);
  // The first stretch may be cut short by the period. It is as wide as the others, which say how wide a bar is.
  if (times.length > 1) times[0] = times[1] - interval_seconds;
  const values = lines.map((line) => line.values.map((value) => (value === null ? null : Number(value))));
  const drawn = kind === "stack" ? sums(values) : values;
  const shades = lines.map((line, i) => colours?.[i] ?? `tier-${shade(line.level, line.name)}`);
  const striped = lines.map((line) => !colours && isStriped(line.level, line.name));
  const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const element = h("div", {
    class: "chart",
    css: { "min-height": `${height}px` }, // it is drawn once it is laid out: what lies below must not move then
    tabindex: "0",
    role: "group",
    "aria-label": `${title}: chart over time. Arrow keys move through it; the same figures are under Table.`,
  });
  const reading = h("span", { class: "sr-only", role: "status", "aria-live": "polite" });
  let plot = null;

  function options(width) {
    const [ink, line, ground] = [colour("muted"), colour("line"), colour("panel")];
    const order = kind === "stack" ? lines.map((_, i) => lines.length - 1 - i) : lines.map((_, i) => i);
    const axis = {
      stroke: ink,
      grid: { stroke: line, width: 1 },
      ticks: { stroke: line, width: 1, size: 4 },
      font: "11px system-ui, sans-serif",
    };
    return {
      width,
      height,
      legend: { show: false },
      padding: [8, 20, 0, 0], // room for half of the last label
      cursor: {
        y: false,
        points: { show: kind === "line", size: 6 },
        drag: { x: Boolean(zoom), y: false, setScale: false },
      },
      scales: {
        x: { time: true, range: () => [times[0], times.at(-1) + interval_seconds] },
        y: { range: (_, low, high) => heights(low ?? 0, high ?? 0) },
      },
      axes: [
        {
          ...axis,
          size: (_, labels) => (labels?.some((label) => label?.includes("\n")) ? 42 : 28),
          space: width < NARROW ? 70 : 60,
          values: (_, ticks, __, ___, step) => timeTicks(ticks, step),
        },
        {
          ...axis,
          size: (_, labels) => Math.max(...(labels ?? []).map((label) => 14 + LETTER * label.length), 40),
          values: (_, ticks, __, ___, step) => ticks.map((value) => tick(value, step)),
        },
      ],
      series: [
        {},
        ...order.map((i) =>
          kind === "stack"
            ? {
                label: lines[i].name,
                stroke: ground,
                width: 0.5,
                fill: brush(shades[i], striped[i]),
                paths: uPlot.paths.bars({ size: [1, Infinity], gap: times.length > 80 ? 0 : 1, align: 1 }),
                points: { show: false },
              }
            : {
                label: lines[i].name,
                stroke: colour(shades[i]),
                width: 2,
                dash: lines[i].dash,
                spanGaps: false,
                points: { show: times.length < 60, size: 4 },
              },
        ),
      ],
      hooks: {
        setCursor: [(u) => point(under(u), u.cursor.left)],
        setSelect: [
          (u) => {
            if (!zoom || u.select.width < 4) return;
            const [from, to] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
            u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            zoom(from * 1000, to * 1000);
          },
        ],
      },
    };
  }

  /** Which stretch the mouse is over: a bar begins at its moment, a point of a line lies on it. */
  function under({ cursor: { idx, left }, posToVal }) {
    if (kind === "line" || idx === null || idx === undefined) return idx;
    const bar = Math.floor((posToVal(left, "x") - times[0]) / interval_seconds);
    return Math.min(times.length - 1, Math.max(0, bar));
  }

  const stretch = (i) =>
    spanOf(starts[i], starts[i + 1] ?? new Date((times[i] + interval_seconds) * 1000).toISOString());

  function point(index, left) {
    if (index === null || index === undefined || left < 0) {
      tip.hidden = true;
      return;
    }
    const seen = lines
      .map((line, i) => [line.name || "none", values[i][index], i])
      .filter(([, value]) => value !== null && (kind === "line" || value !== 0));
    const row = (name, value, i) =>
      h(
        "div",
        { class: "line" },
        h(
          "span",
          { class: "tier" },
          i !== undefined &&
            h("span", {
              class: `swatch ${striped[i] ? "striped" : ""}`,
              css: { "background-color": `var(--${shades[i]})` },
            }),
          clipped(name),
        ),
        h("span", { class: "nowrap" }, tell(value)),
      );
    replace(
      tip,
      h("strong", {}, stretch(index)),
      whole && seen.length > 1 && row("together", drawn.at(-1)[index]),
      seen.reverse().map(([name, value, i]) => row(name, value, i)),
      seen.length === 0 && h("span", { class: "muted" }, "nothing"),
    );
    tip.hidden = false;
    const room = element.clientWidth - tip.offsetWidth - 8;
    const at = plot.bbox.left / devicePixelRatio + left;
    tip.style.left = `${Math.max(0, at + 14 > room ? Math.min(room, at - tip.offsetWidth - 14) : at + 14)}px`;
    tip.style.top = "8px";
  }

  function plotted(width, root) {
    const order = kind === "stack" ? [...drawn].reverse() : drawn;
    return new uPlot(options(width), [times, ...order], root);
  }

  function draw() {
    const width = Math.floor(element.clientWidth);
    if (!element.isConnected) {
      plot?.destroy(); // uPlot would keep it, and all that it holds, for ever
      plot = null;
    }
    if (!width) return;
    if (plot) {
      if (plot.width !== width) plot.setSize({ width, height });
      return;
    }
    plot = plotted(width, element);
    plot.root.setAttribute("aria-hidden", "true");
  }

  element.append(tip, reading);
  const watcher = new ResizeObserver(draw);
  watcher.observe(element);

  let at = -1; // where the keys are
  element.addEventListener("keydown", (event) => {
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape" && !tip.hidden) {
      tip.hidden = true;
      event.preventDefault(); // what the chart stands in stays open
    }
    if (!step) return;
    event.preventDefault();
    at = Math.min(times.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : times.length - 1) : at + step));
    plot.setCursor({ left: plot.valToPos(times[at] + (kind === "line" ? 0 : interval_seconds / 2), "x"), top: 10 });
    reading.textContent = `${stretch(at)}: ${lines.map((line, i) => `${short(line.name || "none", 40)} ${tell(values[i][at])}`).join(", ")}`;
  });
  element.addEventListener("blur", () => {
    tip.hidden = true;
  });

  return {
    element,
    png: async () => {
      const shown = plot ?? plotted(PICTURED, h("div")); // where its table is shown instead
      await null; // uPlot draws then
      const made = picture(
        title,
        shown.ctx.canvas,
        lines.map((line, i) => ({ name: line.name || "none", fill: brush(shades[i], striped[i]) })),
      );
      if (shown !== plot) shown.destroy();
      return made;
    },
  };
}

/** From where to where values are drawn, which may all be losses: zero is seen, and some room above and below. */
export function heights(low, high) {
  return [Math.min(0, low * 1.06), high > 0 ? high * 1.06 : low < 0 ? 0 : 1];
}

/** Each line on top of those before. */
export function sums(values) {
  const so_far = [];
  return values.map((line) =>
    line.map((value, i) => {
      so_far[i] = (so_far[i] ?? 0) + (value ?? 0);
      return so_far[i];
    }),
  );
}

/** Each value as a share of all lines at its time; null where there is nothing. */
export function shares(values) {
  const wholes = sums(values).at(-1) ?? [];
  return values.map((line) => line.map((value, i) => (wholes[i] > 0 ? (value ?? 0) / wholes[i] : null)));
}

/** A chart with its title and legend as a PNG. */
async function picture(title, canvas, entries) {
  const ratio = devicePixelRatio || 1;
  const [head, foot] = [34 * ratio, 30 * ratio];
  const out = h("canvas", {
    width: Math.max(canvas?.width ?? 0, 320 * ratio),
    height: (canvas?.height ?? 0) + head + foot,
  });
  const pen = out.getContext("2d");
  pen.fillStyle = colour("panel");
  pen.fillRect(0, 0, out.width, out.height);
  pen.fillStyle = colour("ink");
  pen.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  pen.fillText(title, 12 * ratio, 22 * ratio);
  if (canvas) pen.drawImage(canvas, 0, head);
  pen.font = `${12 * ratio}px system-ui, sans-serif`;
  let x = 12 * ratio;
  for (const entry of entries) {
    const text = short(entry.name, 30);
    pen.fillStyle = entry.fill;
    pen.fillRect(x, out.height - 20 * ratio, 10 * ratio, 10 * ratio);
    pen.fillStyle = colour("ink");
    pen.fillText(text, x + 15 * ratio, out.height - 11 * ratio);
    x += 30 * ratio + pen.measureText(text).width;
  }
  return new Promise((resolve) => out.toBlob(resolve, "image/png"));
}

/** A table as a PNG, for panels that are no chart. `rows`: [head, ...rows] of text. */
export async function tablePicture(title, rows) {
  const ratio = devicePixelRatio || 1;
  const shown = rows.slice(0, 60).map((row) => row.map((cell) => short(cell ?? "", 40)));
  const pen = h("canvas").getContext("2d");
  const font = `${12 * ratio}px system-ui, sans-serif`;
  pen.font = font;
  const widths = shown[0].map(
    (_, i) => Math.max(...shown.map((row) => pen.measureText(row[i] ?? "").width)) + 18 * ratio,
  );
  const line = 20 * ratio;
  const out = h("canvas", {
    width: Math.ceil(widths.reduce((a, b) => a + b, 24 * ratio)),
    height: Math.ceil((shown.length + 2.5) * line),
  });
  const ink = out.getContext("2d");
  ink.fillStyle = colour("panel");
  ink.fillRect(0, 0, out.width, out.height);
  ink.fillStyle = colour("ink");
  ink.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  ink.fillText(title, 12 * ratio, 22 * ratio);
  shown.forEach((row, y) => {
    ink.font = y === 0 ? `600 ${font}` : font;
    ink.fillStyle = colour(y === 0 ? "muted" : "ink");
    let x = 12 * ratio;
    row.forEach((text, i) => {
      ink.fillText(text, x, (y + 2.4) * line);
      x += widths[i];
    });
  });
  return new Promise((resolve) => out.toBlob(resolve, "image/png"));
}

/** A line of a few points, without axes. The figure beside it says what it is, so it is hidden from screen readers. */
export function sparkline(values) {
  const numbers = values.map((value) => (value === null || value === undefined ? null : Number(value)));
  const known = numbers.filter((value) => value !== null);
  const drawing = svg("svg", {
    class: "spark",
    viewBox: "0 0 100 30",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
    focusable: "false",
  });
  if (known.length < 2) return drawing;
  const [low, high] = [Math.min(0, ...known), Math.max(...known, 0)];
  const y = (value) => (high === low ? 28 : 28 - (26 * (value - low)) / (high - low));
  const x = (i) => (numbers.length > 1 ? (100 * i) / (numbers.length - 1) : 0);
  let path = "";
  numbers.forEach((value, i) => {
    if (value !== null)
      path += `${path && numbers[i - 1] !== null ? "L" : "M"}${x(i).toFixed(2)} ${y(value).toFixed(2)}`;
  });
  if (low < 0) drawing.append(svg("path", { class: "zero", d: `M0 ${y(0)}H100` }));
  if (!numbers.includes(null)) drawing.append(svg("path", { class: "area", d: `${path}L100 ${y(0)}L0 ${y(0)}Z` }));
  drawing.append(svg("path", { d: path }));
  return drawing;
}

/** A rate with its interval, between 0 and 1. */
export function interval(rate, low, high) {
  if (rate === null) return "—";
  const x = (share) => 4 + share * 122;
  return svg(
    "svg",
    { class: "interval", viewBox: "0 0 130 16", "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "axis", d: "M4 12V4M126 12V4M4 8H126" }),
    low !== null &&
      high !== null &&
      svg("path", { class: "whisker", d: `M${x(low)} 8H${x(high)}M${x(low)} 4V12M${x(high)} 4V12` }),
    svg("circle", { class: "mark", cx: x(rate), cy: 8, r: 3.5 }),
  );
}

/** Confidence against how often it was right: on the diagonal is honest. */
export function reliability(bins) {
  const x = (share) => 40 + share * 300;
  const y = (share) => 250 - share * 220;
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return svg(
    "svg",
    {
      class: "drawn",
      viewBox: "0 0 360 290",
      role: "img",
      "aria-label":
        "Reliability: confidence against the share that was right, with 95 % intervals. The same figures are under Table.",
    },
    ticks.map((tick) => [
      svg("path", { class: "axis", d: `M40 ${y(tick)}H340` }),
      svg("text", { x: 34, y: y(tick) + 4, "text-anchor": "end" }, `${tick * 100}`),
      svg("text", { x: x(tick), y: 266, "text-anchor": "middle" }, `${tick * 100}`),
    ]),
    svg("path", { class: "ideal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
    svg("text", { x: 190, y: 284, "text-anchor": "middle" }, "confidence, %"),
    svg("text", { x: 40, y: 18 }, "right, %"),
    bins
      .filter((bin) => bin.right_rate !== null)
      .map((bin) => {
        const at = x(bin.mean_confidence ?? (bin.from_confidence + bin.to_confidence) / 2);
        return [
          bin.low !== null && svg("path", { class: "whisker", d: `M${at} ${y(bin.low)}V${y(bin.high)}` }),
          svg(
            "circle",
            { class: "mark", cx: at, cy: y(bin.right_rate), r: Math.min(9, 3 + Math.sqrt(bin.calls) / 3) },
            svg("title", {}, `${bin.right} of ${bin.calls} right`),
          ),
        ];
      }),
  );
}
