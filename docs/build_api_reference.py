"""Writes docs/reference/api.md: the dashboard's API, from its OpenAPI document."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from reference_page import finish, table

from tierwise import __version__
from tierwise.dashboard.openapi import document

SCRIPT = "build_api_reference.py"

INTRO = """\
# The dashboard's API

Everything that the [dashboard](../how-to/dashboard.md) shows comes from here, and programs may use it as well. A
running gateway serves it at `/api/v1`, and so does `tierwise dashboard`. The same as an OpenAPI 3.1 document: `GET
/api/v1/openapi.json`.

- **Filters** are query parameters, the same ones everywhere: `since`, `until`, `project`, `session`, `key`, `model`,
  `tier`, `task_type`. An unknown parameter is an error. Times are widened to whole hours, and those of long ago to
  whole UTC days; answers say to what.
- **Money** is a decimal number of US dollars in a string, and its name ends in `_usd`. A saving is signed: below
  zero is a loss.
- **Times** are ISO 8601 in UTC. **Shares and rates** are between 0 and 1; only what ends in `_percent` is a
  percentage.
- **`null`** means unknown: no price, nothing measured, nothing to divide by. It is never zero.
- **Errors** are `{"error": {"what": …, "where": …, "do": …}}`: 400 where a request cannot be read,
  422 where it contradicts itself or names something that does not exist.
- **Access.** On loopback there is no login. Where the gateway demands keys: `Authorization: Bearer tw-…` or
  `x-api-key`, with scope `metrics` for figures, also `receipts` for single calls, and also `manage` for changes.
  Pages of other origins are refused.
- **A change** needs the header `x-tierwise-request: 1` and `content-type: application/json`. There are two: feedback
  and budgets.
- **Rate limits**: 50 requests and one change per second and client, with room for bursts; then `429` with
  `retry-after`.
"""

LIVE = """\
## Live events

`GET /api/v1/live` sends server-sent events, for as long as somebody listens. `calls` carries [LiveCalls](#livecalls):
calls that are new, or that changed since they were sent; all filters apply except those of time. `totals` carries
[LiveTotals](#livetotals), the figures of all calls since midnight UTC. `missed` says that events were left out because
they were read too slowly: ask again. The ledger is polled once a second for all listeners together, and not at all
while there are none.

```console
$ curl -N 'http://127.0.0.1:8484/api/v1/live?project=checkout'
```
"""


def lines() -> list[str]:
    """The page."""
    found: Any = document(__version__)
    schemas = found["components"]["schemas"]
    out = [INTRO, "## Questions", ""]
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            if operation["operationId"] in ("live", "openapi"):
                continue
            out += _operation(path, method, operation)
    out += [LIVE, "## Types", ""]
    for name in sorted(schemas):
        if schemas[name].get("type") == "object":
            out += _schema(name, schemas[name])
    return out


def _operation(path: str, method: str, operation: Any) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield ""
    yield operation["summary"]
    yield ""
    answer = _type(operation["responses"]["200"]["content"]["application/json"]["schema"])
    scopes = operation["description"].rpartition(": ")[2].rstrip(".")
    yield f"Answers {answer}. Scopes: {scopes}."
    yield ""
    if "requestBody" in operation:
        yield f"The body is {_type(operation['requestBody']['content']['application/json']['schema'])}."
        yield ""
    filters = [one for one in operation["parameters"] if one["in"] == "query" and one["name"] in _FILTERS]
    own = [one for one in operation["parameters"] if one["in"] != "header" and one not in filters]
    if filters:
        yield "Takes the filters."
        yield ""
    if own:
        yield from table(
            ("parameter", "in", "type", "meaning"),
            [(f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", "")) for one in own],
        )


_FILTERS = ("since", "until", "project", "session", "key", "model", "tier", "task_type")


def _schema(name: str, schema: Any) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield schema.get("description", "")
    yield ""
    rows = [(f"`{field}`", _type(one), one.get("description", "")) for field, one in schema["properties"].items()]
    yield from table(("field", "type", "meaning"), rows)


def _type(schema: Any) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema and schema.get("type") != "string":
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "null":
        return "null"
    formats = [one["format"] for one in schema.get("anyOf", [])] or [schema.get("format", "")]
    names = {"date-time": "moment", "date": "day", "": ""}
    shown = " or ".join(names.get(one, one) for one in formats) or str(schema.get("type", "anything"))
    if str(schema.get("pattern", "")).startswith(("^-?\\d", "^[0-9]", "^\\d")):
        shown = "US$"
    if "default" in schema:
        shown += f", `{schema['default']}` by itself"
    return shown


if __name__ == "__main__":
    sys.exit(finish("api.md", SCRIPT, lines()))
