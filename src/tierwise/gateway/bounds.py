"""Between which tiers a call may go, and who says so: its own headers, its key, its project.

The narrower holds, of two alike the one named first. A key and a project also bound models that a client asks for by
name; a header is about what is routed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tierwise.core.catalog import Catalog, Tier
from tierwise.core.decisions import Reason
from tierwise.core.errors import InvalidTask
from tierwise.core.settings import ProjectSettings
from tierwise.gateway.incoming import Directions
from tierwise.ledger.keys import ApiKey

__all__ = ["Bound", "Bounds", "bounds_of", "ceiling_by_name"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A tier that a call may not go below, or not above."""

    tier: Tier
    source: str  # who says so, in words


@dataclass(frozen=True, slots=True)
class Bounds:
    """The floor and the ceiling of a call; None: as configured for all."""

    floor: Bound | None = None
    ceiling: Bound | None = None

    @property
    def min_tier(self) -> str | None:
        """The floor's name."""
        return None if self.floor is None else self.floor.tier.name

    @property
    def max_tier(self) -> str | None:
        """The ceiling's name."""
        return None if self.ceiling is None else self.ceiling.tier.name

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What holds, and by whom."""
        told = (("at least", self.floor), ("at most", self.ceiling))
        return tuple(Reason("bounds", f"{how} {one.tier}: {one.source}") for how, one in told if one is not None)


_NONE = Bounds()


def bounds_of(
    said: Directions, key: ApiKey | None, project: str | None, ruled: ProjectSettings | None, catalog: Catalog
) -> Bounds:
    """The bounds of a call, of which `ruled` is what holds for its `project`.

    Raises:
        UnknownTier: a name that is not configured; the message says whose it is.
        InvalidTask: a floor above a ceiling; the message says whose they are.
    """
    policy = key.policy if key is not None else None
    if said.min_tier is None and said.max_tier is None and policy is None and ruled is None:
        return _NONE  # as of nearly all calls
    of_key, of_project = _of_key(key), _of_project(project)
    floor = _narrowest(
        [
            ("x-tierwise-min-tier", said.min_tier),
            (of_key, policy.min_tier if policy is not None else None),
            (of_project, ruled.min_tier if ruled is not None else None),
        ],
        catalog,
        up=True,
    )
    ceiling = _narrowest([("x-tierwise-max-tier", said.max_tier), *_ruled(key, project, ruled)], catalog, up=False)
    if floor is not None and ceiling is not None and floor.tier > ceiling.tier:
        raise InvalidTask(
            f"at least {floor.tier} ({floor.source}) and at most {ceiling.tier} ({ceiling.source}): no tier is both"
        )
    return Bounds(floor, ceiling)


def ceiling_by_name(
    key: ApiKey | None, project: str | None, ruled: ProjectSettings | None, catalog: Catalog
) -> Bound | None:
    """The highest tier of a model that a client asks for by name; None: any, and models of no tier.

    Raises:
        UnknownTier: a name that is not configured; the message says whose it is.
    """
    return _narrowest(_ruled(key, project, ruled), catalog, up=False)


def _ruled(key: ApiKey | None, project: str | None, ruled: ProjectSettings | None) -> list[tuple[str, str | None]]:
    return [
        (_of_key(key), key.policy.max_tier if key is not None else None),
        (_of_project(project), ruled.max_tier if ruled is not None else None),
    ]


def _of_key(key: ApiKey | None) -> str:
    return f"the key {key.name!r}" if key is not None else ""


def _of_project(project: str | None) -> str:
    return f"the project {project!r}"


def _narrowest(told: Iterable[tuple[str, str | None]], catalog: Catalog, *, up: bool) -> Bound | None:
    found = [Bound(catalog.tier(name, where=source).tier, source) for source, name in told if name is not None]
    if not found:
        return None
    return (max if up else min)(found, key=lambda bound: bound.tier.level)
