// Elements from data. Text is only ever set as text: nothing in this page parses a string as HTML, so that a task type
// or a project called <img onerror=…> is shown as that. Styles are set through the object model alone, which the strict
// content security policy allows.

const LONGEST = 1000; // of a text within others: laying out more, nested in grids, takes a browser seconds
const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props` are attributes, but for `on` (listeners), `data` (data attributes), `css` (custom properties
 * and lengths that depend on data), `prop` (properties, such as `value`). A property of null or false is left out.
 */
export function h(tag, props = {}, ...children) {
  return build(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "prop") Object.assign(element, value);
    else if (name === "css") for (const [key, length] of Object.entries(value)) element.style.setProperty(key, length);
    else if (/^on|^style$|^srcdoc$/.test(name))
      throw new Error(`${name} is not set as an attribute here: use on or css`);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Text that came with the data: isolated, so that one that is written from right to left turns nothing else round. */
export function said(text, className = "") {
  return h("bdi", { class: className || null }, short(text ?? "", LONGEST));
}

/** The same on one line, cut off by the style sheet where there is no room; whole in the tooltip, within reason. */
export function clipped(text, className = "") {
  const whole = String(text ?? "");
  return h(
    "bdi",
    { class: `clip ${className}`.trim(), title: whole.length > 24 ? short(whole, 400) : null },
    short(whole, 400),
  );
}

/** At most `length` characters, told to be cut. Never half of a pair of surrogates. */
export function short(text, length) {
  const points = Array.from(String(text).slice(0, length * 2 + 2));
  return points.length <= length && String(text).length <= length * 2
    ? points.join("")
    : `${points.slice(0, length - 1).join("")}…`;
}

/** Replace what is in `root`, leaving the focus on the element with the same `data-key`, or the same id. */
export function replace(root, ...children) {
  const active = document.activeElement;
  const key = root.contains(active) ? active.dataset.key || active.id : null;
  const caret = key && active.selectionStart !== undefined ? [active.selectionStart, active.selectionEnd] : null;
  const scrolled = new Map(
    [...root.querySelectorAll("[data-scroll]")].map((e) => [e.dataset.scroll, [e.scrollLeft, e.scrollTop]]),
  );
  const opened = new Set([...root.querySelectorAll("details[open][data-key]")].map((e) => e.dataset.key));
  root.replaceChildren();
  append(root, children);
  for (const details of root.querySelectorAll("details[data-key]"))
    if (opened.has(details.dataset.key)) details.open = true;
  for (const element of root.querySelectorAll("[data-scroll]")) {
    [element.scrollLeft, element.scrollTop] = scrolled.get(element.dataset.scroll) ?? [0, 0];
  }
  if (key) {
    const again = [...root.querySelectorAll("[data-key],[id]")].find((e) => e.dataset.key === key || e.id === key);
    again?.focus({ preventScroll: true });
    if (caret && again && "setSelectionRange" in again && caret[0] !== null) again.setSelectionRange(...caret);
  }
}

let ids = 0;

/** An id that is used once, for what labels and describes. */
export function unique(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

/** Call `action` when nothing more has come for `wait_ms`. */
export function debounced(action, wait_ms) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), wait_ms);
  };
}

/** Give the viewer a file. */
export function download(name, blob) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
