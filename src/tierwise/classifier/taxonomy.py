"""The task types as an immutable mapping: the built-in ones from `data/task_types.toml`, and the user's own."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from tierwise.core.errors import ConfigError, UnknownTaskType
from tierwise.core.tasks import Needs, TaskType

__all__ = ["Taxonomy", "load_taxonomy"]


class Taxonomy(Mapping[str, TaskType]):
    """Task types by name, in the order in which they were declared."""

    __slots__ = ("_types",)

    def __init__(self, types: Iterable[TaskType]) -> None:
        """Raises `ConfigError` where two types share a name."""
        self._types: dict[str, TaskType] = {}
        for task_type in types:
            if task_type.name in self._types:
                raise ConfigError(f"task type {task_type.name!r} is declared twice; give one of them another name")
            self._types[task_type.name] = task_type

    def __getitem__(self, name: str) -> TaskType:
        """The type of that name. Raises `UnknownTaskType` (a `LookupError`), which lists near matches."""
        try:
            return self._types[name]
        except KeyError:
            raise UnknownTaskType(self._unknown(name)) from None

    def get(self, name: str) -> TaskType:  # type: ignore[override]  # never falls back silently
        """The type of that name; unlike a dict's, it raises `UnknownTaskType` where there is none."""
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __repr__(self) -> str:
        return f"Taxonomy({len(self)} types in {len(self.families)} families)"

    @property
    def families(self) -> tuple[str, ...]:
        """The families' names, in the order in which they first occur."""
        return tuple(dict.fromkeys(t.family for t in self._types.values()))

    def with_user_types(self, types: Iterable[TaskType]) -> Taxonomy:
        """A taxonomy with the user's own types after these. Raises `ConfigError` where a name is taken."""
        return Taxonomy((*self._types.values(), *types))

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name.lower(), self._types, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`tierwise classify` shows the names in use"
        return f"unknown task type {name!r}; {hint}"


@cache
def load_taxonomy() -> Taxonomy:
    """The built-in types, read once."""
    document = tomllib.loads(files("tierwise").joinpath("data", "task_types.toml").read_text(encoding="utf-8"))
    return Taxonomy(
        TaskType(
            name=row["name"],
            family=row["family"],
            needs=Needs(row["needs"]),
            recoverable=row["recoverable"],
            description=row["description"],
        )
        for row in document["types"]
    )
