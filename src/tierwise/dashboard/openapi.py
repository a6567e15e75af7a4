"""The OpenAPI document of the dashboard's API, made of the routes and types that answer it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tierwise.core.json import Json, JsonObject
from tierwise.dashboard.access import CHANGE_HEADER, Need
from tierwise.dashboard.api import ROUTES, Route
from tierwise.dashboard.models import Error, LiveCalls, LiveTotals
from tierwise.dashboard.questions import Chosen

__all__ = ["document"]

_REF = "#/components/schemas/{model}"
_ABOUT = """What the dashboard shows, for programs. Read-only, but for feedback and budgets.

On loopback nobody has to log in. Where the gateway demands keys, send one as `Authorization: Bearer tw-…` or
`x-api-key`: of scope `metrics` for figures, `receipts` too for single calls, and `manage` too to change something.
Money is a decimal number of US dollars in a string; moments are ISO 8601 in UTC; shares lie between 0 and 1.
"""
_NEEDS = {
    Need.FIGURES: "metrics",
    Need.CALLS: "metrics, receipts",
    Need.CHANGES: "metrics, receipts, manage",
}


def document(version: str) -> JsonObject:
    """The document, OpenAPI 3.1."""
    types: list[type[BaseModel]] = [Error, LiveCalls, LiveTotals]
    for route in ROUTES:
        types.append(route.answers)
        if route.method == "POST":
            types.append(route.asks)
    unique = list(dict.fromkeys(types))
    _, definitions = models_json_schema(
        [(one, "validation" if one in {r.asks for r in ROUTES} else "serialization") for one in unique],
        ref_template=_REF,
    )
    schemas = cast("JsonObject", definitions["$defs"])
    paths: dict[str, Json] = {}
    for route in ROUTES:
        operations = paths.setdefault(f"/api/v1{route.path}", {})
        assert isinstance(operations, dict)  # noqa: S101 made in the line before
        operations[route.method.lower()] = _operation(route)
    paths["/api/v1/live"] = {"get": _live()}
    paths["/api/v1/openapi.json"] = {"get": _itself()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tierwise dashboard API",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _operation(route: Route[Any, Any]) -> JsonObject:
    errors = ["400", "401", "403", "422", "429", "503"]
    if route.in_path or route.method == "POST":
        errors.append("404")
    if route.method == "POST":
        errors += ["408", "413", "415"]
    found: JsonObject = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": f"Scopes of a key, where one is demanded: {_NEEDS[route.need]}.",
        "tags": [route.tag],
        "parameters": list(_parameters(route)),
        "responses": {
            "200": _answer("The answer.", route.answers),
            **{status: _answer("There is none.", Error) for status in sorted(errors)},
        },
    }
    if route.method == "POST":
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=route.asks.__name__)}}},
        }
    return found


def _answer(text: str, model: type[BaseModel]) -> JsonObject:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}},
    }


def _parameters(route: Route[Any, Any]) -> Iterator[Json]:
    if route.method != "POST":
        yield from _fields(route.asks, route.in_path)
    elif route.need is Need.CHANGES:
        yield {
            "name": CHANGE_HEADER.decode(),
            "in": "header",
            "required": True,
            "description": "Any value. Pages of other origins cannot send it.",
            "schema": {"type": "string"},
            "example": "1",
        }


def _fields(asks: type[BaseModel], path_field: str | None = None) -> Iterator[Json]:
    """What can be asked, as parameters of a query; one of them may stand in the path."""
    schema = asks.model_json_schema(ref_template=_REF)
    kinds = schema.get("$defs", {})
    for name, described in schema.get("properties", {}).items():
        kept = {key: value for key, value in described.items() if key not in ("title", "description", "default")}
        in_path = name == path_field
        inner = [one for one in kept.pop("anyOf", []) if one != {"type": "null"}]
        if len(inner) == 1:
            kept |= inner[0]
        elif inner:
            kept["anyOf"] = inner
        if "$ref" in kept:  # an enumeration, told in place
            kept = {
                key: value for key, value in kinds[kept["$ref"].rpartition("/")[2]].items() if key in ("type", "enum")
            }
        if in_path:
            kept["minLength"] = max(1, kept.get("minLength", 0))
        if described.get("default") is not None:
            kept["default"] = described["default"]
        one: JsonObject = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path,
            "schema": cast("Json", kept),
        }
        if "description" in described:
            one["description"] = described["description"]
        yield one


def _live() -> JsonObject:
    return {
        "operationId": "live",
        "summary": "New calls, and the day's figures, as server-sent events.",
        "description": (
            "Event `calls` carries `LiveCalls`, event `totals` carries `LiveTotals` (of all calls, whichever are asked "
            "for), event `missed` says that events were left out. "
            f"Scopes of a key, where one is demanded: {_NEEDS[Need.CALLS]}."
        ),
        "tags": ["calls"],
        "parameters": list(_fields(Chosen)),
        "responses": {
            "200": {"description": "Events, until one side ends it.", "content": {"text/event-stream": {}}},
            **{status: _answer("There are none.", Error) for status in ("400", "401", "403", "429", "503")},
        },
    }


def _itself() -> JsonObject:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "tags": ["page"],
        "responses": {"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {}}}},
    }
