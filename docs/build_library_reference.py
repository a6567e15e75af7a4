"""Writes docs/reference/library.md from the public names of the library: signatures, fields and docstrings.

Read from the source, not from running objects: annotations and the comments beside fields are then as they were
written.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from reference_page import finish, table

import tierwise

T = TypeVar("T", bound=ast.AST)
SCRIPT = "build_library_reference.py"

INTRO = """\
# Library

What `import tierwise` offers. Importing it reads no file, no variable and opens no socket. Everything is typed.

The exceptions are on [a page of their own](errors.md). For tests there is
[`tierwise.testing`](../how-to/test-your-code.md), for providers [`tierwise.providers.base`](../how-to/providers.md).
"""

GROUPS = {
    "Short forms": (
        "classify",
        "route",
        "get_model",
        "run_subtask",
        "dispatch_tool",
        "adispatch_tool",
        "TOOL_TIER_OVERRIDES",
    ),
    "Tools of agent loops": ("model_tool", "Toolbox"),
    "Routers": ("Router", "AsyncRouter"),
    "Other libraries": ("wrap", "call_options", "judge_batch", "BatchVerdict"),
    "Tasks": ("Task", "TaskType", "Needs", "Stakes", "Classification"),
    "Decisions and results": ("Tier", "Decision", "Reason", "Result", "AttemptRecord", "OutcomeKind"),
    "Money": ("Usage", "Price"),
    "Configuration": ("load_settings", "Settings"),
    "Ledger": ("Ledger",),
}


def lines() -> list[str]:
    """The page."""
    errors = {name for name in tierwise.__all__ if _is_error(getattr(tierwise, name))}
    grouped = {name for names in GROUPS.values() for name in names}
    if wrong := grouped ^ (set(tierwise.__all__) - errors):
        sys.exit(f"{SCRIPT}: names of the library without a group, or grouped without being public: {sorted(wrong)}")
    out = [INTRO]
    for group, names in GROUPS.items():
        out += [f"## {group}", ""]
        for name in names:
            out += _entry(name)
    return out


def _is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseException)


def _entry(name: str) -> list[str]:
    thing = getattr(tierwise, name)
    out = [f"### {name}", ""]
    if isinstance(thing, type):
        module = sys.modules[thing.__module__]
        return out + _class(_find(module, name, ast.ClassDef), module)
    if inspect.isfunction(thing):
        kind: type[ast.FunctionDef | ast.AsyncFunctionDef] = (
            ast.AsyncFunctionDef if inspect.iscoroutinefunction(thing) else ast.FunctionDef
        )
        node = _find(sys.modules[thing.__module__], name, kind)
        return [*out, *_code(_signature(node)), *_doc(ast.get_docstring(node))]
    module = sys.modules[tierwise._MODULE_OF[name]]
    for node, after in zip(_tree(module).body, _tree(module).body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            return [*out, *_code(ast.unparse(node)), *_doc(str(text))]
    sys.exit(f"{SCRIPT}: {name} is not where it is said to be")


def _class(node: ast.ClassDef, module: ModuleType) -> list[str]:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    out = [f"`class {node.name}({bases})`", ""] if bases else []
    init = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    if init is not None:
        out += _code(_signature(init, name=node.name))
    out += _doc(ast.get_docstring(node))
    rows = list(_fields(node, module))
    if rows:
        wide = 4 if any(row[3] for row in rows) else 3
        out += table(("field", "type", "default", "what it is")[:wide], [row[:wide] for row in rows])
    members = [(f"`{value}`", f"`{name}`", _comment(module, at)) for value, name, at in _members(node)]
    if members:
        out += table(("value", "name", "what it is"), members)
    for method in node.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) or method.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
        if "property" in decorators:
            kind = ast.unparse(method.returns) if method.returns else ""
            out += [f"#### {node.name}.{method.name}", "", f"*property* → `{kind}`", ""]
        else:
            out += [f"#### {node.name}.{method.name}", "", *_code(_signature(method))]
        out += _doc(ast.get_docstring(method))
    return out


def _fields(node: ast.ClassDef, module: ModuleType) -> Iterator[tuple[str, str, str, str]]:
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        kind = ast.unparse(item.annotation)
        if kind.startswith("ClassVar"):
            continue
        default = f"`{ast.unparse(item.value)}`" if item.value is not None else "required"
        if match := re.match(r"`field\(.*default_factory=(\w+)", default):
            default = {"dict": "empty", "list": "empty"}.get(match[1], match[1])
        yield f"`{item.target.id}`", f"`{kind}`", default, _comment(module, item.end_lineno or item.lineno)


def _members(node: ast.ClassDef) -> Iterator[tuple[str, str, int]]:
    if not any("Enum" in ast.unparse(base) for base in node.bases):
        return
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            value = item.value.value if isinstance(item.value, ast.Constant) else ast.unparse(item.value)
            yield str(value), item.targets[0].id, item.lineno


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str | None = None) -> str:
    arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
    arguments = re.sub(r"(?<=[\w\]])=(?=[\w('\"])", " = ", arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and name is None else ""
    head = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    text = f"{head}{name or node.name}({arguments}){returns}"
    if len(text) <= 100:
        return text
    return f"{head}{name or node.name}(\n" + "".join(f"    {part},\n" for part in _split(arguments)) + f"){returns}"


def _split(arguments: str) -> Iterator[str]:
    """At commas that are in no bracket."""
    depth, start = 0, 0
    for at, character in enumerate(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield arguments[start:at].strip()
            start = at + 1
    yield arguments[start:].strip()


def _code(text: str) -> list[str]:
    return ["```text", text, "```", ""]


def _doc(text: str | None) -> list[str]:
    """A docstring as Markdown: its indented sections become lists."""
    out: list[str] = []
    section = False
    for line in inspect.cleandoc(text or "").splitlines():
        if line in {"Args:", "Raises:", "Returns:"}:
            out += [line, ""]
            section = True
        elif section and re.match(r" {4}\S", line):
            body = line.strip()
            head, colon, rest = body.partition(":")
            out.append(f"- `{head}`:{rest}" if colon and re.fullmatch(r"[\w, ]+", head) else f"- {body}")
        elif section and line.startswith("     "):
            out.append(f"  {line.strip()}")
        elif not section and re.match(r" {4}\S", line):
            out.append(line)
        else:
            section = section and not line
            out.append(line)
    return [*out, ""]


def _comment(module: ModuleType, line: int) -> str:
    return _comments(Path(str(module.__file__))).get(line, "")


@cache
def _comments(path: Path) -> dict[int, str]:
    with tokenize.open(path) as file:
        found = [token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.COMMENT]
    return {token.start[0]: token.string.lstrip("# ") for token in found if "noqa" not in token.string}


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _find(module: ModuleType, name: str, kind: type[T]) -> T:
    for node in _tree(module).body:
        if isinstance(node, kind) and getattr(node, "name", None) == name:
            return node
    sys.exit(f"{SCRIPT}: {name} is not in {module.__name__}")


if __name__ == "__main__":
    sys.exit(finish("library.md", SCRIPT, lines()))
