"""Counts by name within a row of the roll-up: how long calls took, and why attempts came to nothing.

Percentiles of groups cannot be made of percentiles, histograms can: so a latency is counted in one of a fixed set of
buckets, up to 16 ms one a millisecond, then eight to each doubling. A percentile read from them is off by a
sixteenth at most. A row has few of the buckets, so they are a JSON object, `{"77":3,"timeout":1}`: a bucket's
number, or an attempt's outcome, and how often. SQLite adds such objects up by the functions that `register` gives it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

__all__ = ["NO_COUNTS", "Counts", "bucket_bounds_ms", "latency_bucket", "percentile_ms", "register"]

_NOTHING = "{}"
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class Counts(dict[str, int]):
    """Counts by name, none of them 0; added and taken off as numbers are. Never changed once made."""

    __slots__ = ()

    @classmethod
    def of(cls, text: str) -> Counts:
        """What `text` wrote."""
        return cls(_decode(text)) if text != _NOTHING else NO_COUNTS

    def text(self) -> str:
        """As JSON."""
        return _encode(self) if self else _NOTHING

    def __add__(self, other: Mapping[str, int]) -> Counts:
        if not other:
            return self
        found = Counts(self)
        for name, count in other.items():
            _put(found, name, found.get(name, 0) + count)
        return found

    def __sub__(self, other: Mapping[str, int]) -> Counts:
        if not other:
            return self
        found = Counts(self)
        for name, count in other.items():
            _put(found, name, found.get(name, 0) - count)
        return found

    def __neg__(self) -> Counts:
        return Counts({name: -count for name, count in self.items()})

    @property
    def latencies(self) -> dict[int, int]:
        """Calls by latency bucket."""
        return {int(name): count for name, count in self.items() if name.isdigit()}

    @property
    def failures(self) -> dict[str, int]:
        """Attempts that ended without being accepted, by outcome."""
        return {name: count for name, count in self.items() if not name.isdigit()}


def _put(counts: Counts, name: str, count: int) -> None:
    if count:
        counts[name] = count
    else:
        counts.pop(name, None)


NO_COUNTS = Counts()


def latency_bucket(latency_ms: int) -> int:
    """The number of the bucket that a latency is counted in."""
    doublings = max(0, latency_ms.bit_length() - 4)
    return (doublings << 3) + (latency_ms >> doublings)


def bucket_bounds_ms(bucket: int) -> tuple[int, int]:
    """The latencies that a bucket counts: from, and up to but not including."""
    doublings = max(0, (bucket >> 3) - 1)
    low = (bucket - (doublings << 3)) << doublings
    return low, low + (1 << doublings)


def percentile_ms(latencies: Mapping[int, int], share: float) -> int | None:
    """The latency that this share of calls stays within, of calls by bucket; None where there are none."""
    total = sum(latencies.values())
    if total <= 0:
        return None
    wanted, before = share * total, 0
    for bucket in sorted(latencies):
        count = latencies[bucket]
        if before + count >= wanted:
            low, high = bucket_bounds_ms(bucket)
            return low + int((high - 1 - low) * max(0.0, wanted - before) / count)
        before += count
    return bucket_bounds_ms(max(latencies))[1] - 1


def register(connection: sqlite3.Connection) -> None:
    """Gives a connection `add_counts(one, other)`, `latency_bucket(ms)`, and for groups `sum_counts(counts)` of rows
    of the roll-up and `count_names(name)` of rows that stand for one each."""
    connection.create_function("add_counts", 2, _added, deterministic=True)
    connection.create_function("latency_bucket", 1, latency_bucket, deterministic=True)
    connection.create_aggregate("sum_counts", 1, _SumCounts)  # type: ignore[arg-type]  # typeshed knows numbers only
    connection.create_aggregate("count_names", 1, _CountNames)  # type: ignore[arg-type]  # as above


def _added(one: str, other: str) -> str:
    found: dict[str, int] = _decode(one)
    for name, count in _decode(other).items():
        total = found.get(name, 0) + count
        if total:
            found[name] = total
        else:
            del found[name]
    return _encode(found)


class _SumCounts:
    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def step(self, text: str) -> None:
        if text != _NOTHING:
            found = self._found
            for name, count in json.loads(text).items():
                found[name] = found.get(name, 0) + count

    def finalize(self) -> str:
        return Counts({name: count for name, count in self._found.items() if count}).text()


class _CountNames:
    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def step(self, name: str | int | None) -> None:
        if name is not None:
            self._found[str(name)] = self._found.get(str(name), 0) + 1

    def finalize(self) -> str:
        return Counts(self._found).text()
