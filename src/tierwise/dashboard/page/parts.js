// Pieces that the views are made of: panels with their exports, tables, what stands where there is nothing.

import { download, h, replace, unique } from "./dom.js";

const asTables = new Set(); // panels that the viewer reads as tables, which drawing them anew must not undo

/**
 * A panel. `csv()` gives [head, ...rows] of what is seen, `png()` a blob; `table()` the same as a table, for those who
 * would rather read a chart.
 */
export function panel({ title, note, tools = [], body, csv, png, table, name }) {
  const id = unique("panel");
  const inner = h("div", { class: "inner" }, body);
  const file = name ?? title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  const buttons = [...tools];
  if (table) {
    const toggle = h("button", { class: "plain", type: "button", data: { key: `${file}-table` } }, "Table");
    const draw = () => {
      toggle.setAttribute("aria-pressed", String(asTables.has(file)));
      replace(inner, asTables.has(file) ? table() : body);
    };
    toggle.addEventListener("click", () => {
      if (!asTables.delete(file)) asTables.add(file);
      draw();
    });
    draw();
    buttons.push(toggle);
  }
  if (csv)
    buttons.push(
      h(
        "button",
        {
          class: "plain",
          type: "button",
          title: `${title} as CSV`,
          "aria-label": `${title} as CSV`,
          on: { click: () => saveCsv(file, csv()) },
        },
        "CSV",
      ),
    );
  if (png)
    buttons.push(
      h(
        "button",
        {
          class: "plain",
          type: "button",
          title: `${title} as PNG`,
          "aria-label": `${title} as PNG`,
          on: { click: async () => download(`tierwise-${file}.png`, await png()) },
        },
        "PNG",
      ),
    );
  return h(
    "section",
    { class: "panel", "aria-labelledby": id },
    h(
      "div",
      { class: "top" },
      h("div", { class: "titles" }, h("h2", { id }, title), note && h("p", { class: "note" }, note)),
      buttons.length ? h("div", { class: "tools" }, buttons) : null,
    ),
    inner,
  );
}

export function saveCsv(name, rows) {
  // A BOM, so that spreadsheets know the text for UTF-8.
  download(`tierwise-${name}.csv`, new Blob([`\ufeff${csvText(rows)}`], { type: "text/csv;charset=utf-8" }));
}

/** Rows as CSV. Text that a spreadsheet would take for a formula is kept from being one. */
export function csvText(rows) {
  return `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

function cell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  const isNumber = typeof value === "number" || /^-?\d+(\.\d+)?$/.test(text);
  if (!isNumber && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const MOST_ROWS = 100; // that a table draws unless it is asked for all of them
const unfolded = new Set(); // by name: tables that were
const sorted = new Map(); // by the name of a table: what the viewer sorted it by, which drawing it anew must not undo

/**
 * A table that sorts. `columns`: {name, title, cell(row), value(row), number, csv}. `open(row)` makes rows open
 * something: the first cell holds a button for it, and the whole row takes a click.
 */
export function table(options) {
  return liveTable({ ...options, most: MOST_ROWS }).element;
}

/**
 * The same, of rows that come and change while it is shown: `update(rows, fresh)` draws those alone that are new or
 * another object than before, and leaves the others, with the focus and what is selected in them, as they are.
 */
export function liveTable({ name, caption, columns, rows, open, sort, keyOf, most = Infinity }) {
  const order = sort ? (sorted.get(name) ?? { ...sort }) : null;
  const drawn = new Map(); // by key: the row, and its element
  const body = h("tbody");
  const heads = columns.map((column) => {
    const head = h("th", { scope: "col", class: column.number ? "number" : null });
    if (!order || !column.value) {
      head.append(column.title);
      return head;
    }
    head.append(
      h(
        "button",
        {
          type: "button",
          data: { key: `${name}-sort-${column.name}` },
          on: {
            click: () => {
              order.descending = order.name === column.name ? !order.descending : Boolean(column.number);
              order.name = column.name;
              sorted.set(name, order);
              fill();
            },
          },
        },
        column.title,
      ),
    );
    return head;
  });

  function fill() {
    const by = order && columns.find((column) => column.name === order.name);
    const inOrder = by
      ? [...rows].sort((a, b) => compare(by.value(a), by.value(b)) * (order.descending ? -1 : 1))
      : rows;
    columns.forEach((column, i) => {
      if (by && column === by) heads[i].setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      else heads[i].removeAttribute("aria-sort");
    });
    const folded = inOrder.length > most && !unfolded.has(name);
    replace(
      body,
      (folded ? inOrder.slice(0, most) : inOrder).map((row) => line(row)),
    );
    all.hidden = !folded;
  }

  function update(next, fresh) {
    rows = next;
    const keys = new Set(rows.map(keyOf));
    for (const [key, { element }] of drawn) {
      if (keys.has(key)) continue;
      element.remove();
      drawn.delete(key);
    }
    let at = body.firstElementChild;
    for (const row of rows) {
      const known = drawn.get(keyOf(row));
      const element = known?.row === row ? known.element : line(row);
      element.classList.toggle("fresh", fresh.has(keyOf(row)));
      if (known && known.element !== element) {
        if (at === known.element) at = element;
        replaceRow(known.element, element);
      }
      if (element === at) at = at.nextElementSibling;
      else body.insertBefore(element, at);
    }
  }

  function line(row) {
    const cells = columns.map((column, i) => {
      const content = column.cell(row);
      const shown =
        i === 0 && open
          ? h(
              "button",
              {
                class: "link",
                type: "button",
                css: { "max-width": "100%" },
                data: { key: `${name}-${keyOf(row)}` },
                on: {
                  click: (event) => {
                    event.stopPropagation();
                    open(row);
                  },
                },
              },
              content,
            )
          : content;
      return h("td", { class: column.number ? "number" : "text" }, shown);
    });
    const element = h(
      "tr",
      {
        class: open ? "opens" : null,
        on: open ? { click: () => getSelection().isCollapsed && open(row) } : {},
      },
      cells,
    );
    drawn.set(keyOf(row), { row, element });
    return element;
  }

  const all = h(
    "button",
    {
      type: "button",
      data: { key: `${name}-all` },
      on: {
        click: () => {
          unfolded.add(name);
          fill();
          element.firstElementChild.focus({ preventScroll: true }); // the button is gone
        },
      },
    },
    `Show all ${rows.length}`,
  );
  fill();
  const scroll = h(
    "div",
    {
      class: "scroll",
      tabindex: "0",
      role: "region",
      "aria-label": `${caption}: table`,
      data: { scroll: name, key: `${name}-scroll` },
    },
    h("table", {}, h("caption", { class: "sr-only" }, caption), h("thead", {}, h("tr", {}, heads)), body),
  );
  const element = most < rows.length ? h("div", { class: "rows folds" }, scroll, all) : scroll;
  return { element, update };
}

/** Another row in the place of one, with the focus where it was. */
function replaceRow(before, after) {
  const key = before.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  before.replaceWith(after);
  const again = key && [...after.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  if (again) again.focus({ preventScroll: true });
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return a < b ? -1 : 1;
}

/** What stands where there is nothing, and what to do about it. */
export function empty(title, ...advice) {
  return h("div", { class: "empty" }, h("h3", {}, title), advice);
}

/** A choice of a few, as buttons. */
export function segments(label, choices, chosen, choose) {
  return h(
    "div",
    { class: "segments", role: "group", "aria-label": label },
    choices.map(([value, text]) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(value === chosen),
          data: { key: `${label}-${value}` },
          on: { click: () => choose(value) },
        },
        text,
      ),
    ),
  );
}

export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
  );
}

export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** An error as the server told it, on a line. */
export const problemText = (error) => [error.message, error.advice].filter(Boolean).join(": ");

/** The same in the place of what could not be read. */
export function problem(error) {
  return h(
    "section",
    { class: "panel error", role: "alert" },
    h("h2", {}, "This could not be read"),
    h("p", {}, error.message),
    error.advice && h("p", {}, error.advice),
    error.where && h("p", { class: "note mono" }, error.where),
  );
}
