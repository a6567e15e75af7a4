// All that the page asks the server. Answers are documented in docs/reference/api.md.

import { ofThisTab } from "./memory.js";

const ROOT = "/api/v1/";
const KEY = "tierwise.key"; // of this tab only, and only where the server asks for one

/** What went wrong, in the server's words: what, where, what to do. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body.what);
    this.status = status;
    this.where = body.where;
    this.advice = body.do;
  }
}

function headers(more = {}) {
  const key = ofThisTab.get(KEY);
  return { accept: "application/json", ...(key ? { "x-api-key": key } : {}), ...more };
}

export function rememberKey(key) {
  ofThisTab.set(KEY, key);
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(ROOT + path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {
      what: "the server does not answer",
      where: ROOT + path,
      do: "start `tierwise dashboard` or `tierwise serve` again; this page goes on by itself",
    });
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new ApiError(
    response.status,
    body?.error?.what
      ? body.error
      : { what: `the server answered ${response.status}`, where: ROOT + path, do: "look at what the server printed" },
  );
}

export function get(path, query = "", signal = undefined) {
  const text = query.toString();
  return answer(text ? `${path}?${text}` : path, { headers: headers(), signal });
}

/** Say something: feedback, a budget, a question. The header cannot be sent from another site without being asked. */
export function post(path, body, signal = undefined) {
  return answer(path, {
    method: "POST",
    headers: headers({ "content-type": "application/json", "x-tierwise-request": "1" }),
    body: JSON.stringify(body),
    signal,
  });
}

/**
 * Server-sent events of the calls that a query chooses, until `signal` is aborted; told to `heard(event, data)`. By
 * fetch and not EventSource, which cannot send a key. Comes back by itself, more patiently each time; not where it is
 * refused.
 */
export async function listen(query, heard, changed, signal) {
  let wait_ms = 1000;
  while (!signal.aborted) {
    try {
      const response = await fetch(`${ROOT}live?${query}`, {
        headers: headers({ accept: "text/event-stream" }),
        cache: "no-store",
        signal,
      });
      if ([400, 401, 403].includes(response.status)) return; // the view says what is wrong
      if (!response.ok) throw new Error(`live answered ${response.status}`);
      changed(true);
      for await (const [event, data] of events(response.body)) {
        wait_ms = 1000;
        heard(event, JSON.parse(data));
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    changed(false);
    await new Promise((resolve) => {
      setTimeout(resolve, wait_ms);
      signal.addEventListener("abort", resolve, { once: true });
    });
    wait_ms = Math.min(wait_ms * 2, 30_000);
  }
}

/** The events of a stream of bytes, as [event, data]. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value.replaceAll("\r\n", "\n");
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        const block = text.slice(0, end);
        text = text.slice(end + 2);
        let event = "message";
        const data = [];
        for (const line of block.split("\n")) {
          if (line.startsWith("event:")) event = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        }
        if (data.length) yield [event, data.join("\n")];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
