"""Keys that the gateway's clients identify themselves with: made, checked, listed, taken back.

A secret is `tw-<id>-<256 random bits>`. The id is no secret: it finds the key, names it in lists and logs, and what
is left is one comparison in constant time. Of the secret itself only its SHA-256 is stored. That is enough, and a
slow password hash would add nothing: those make guessing likely passwords dear, and of 2²⁵⁶ secrets that are all
equally likely none can be guessed at any speed. A fast hash is what lets every request be checked.

Checking reads no database: all keys that hold are in memory, and are read anew once a second at most, so that a key
revoked in another process is refused here a second later.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING

from tierwise.core.errors import LedgerError

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["DEFAULT_SCOPES", "ApiKey", "KeyPolicy", "KeyScope", "Keys", "NewKey"]

_PREFIX = "tw-"
_ID_CHARS = 12
_ID_END = len(_PREFIX) + _ID_CHARS
_SECRET_CHARS = _ID_END + 1 + 43  # 32 bytes are 43 characters in Base64
_FRESH_MS = 1000


class KeyScope(StrEnum):
    """What a key may be used for."""

    CALLS = "calls"  # sending calls, counting tokens, listing models
    RECEIPTS = "receipts"  # reading what a call cost
    METRICS = "metrics"  # reading the gateway's metrics, and the dashboard's figures
    MANAGE = "manage"  # giving feedback and setting budgets in the dashboard


DEFAULT_SCOPES = frozenset({KeyScope.CALLS, KeyScope.RECEIPTS})


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Between which tiers the calls of a key are routed; None: as configured."""

    min_tier: str | None = None
    max_tier: str | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. Neither the secret nor its hash is in it: it may be shown."""

    key_id: str
    name: str
    created_at_ms: int
    revoked_at_ms: int | None = None
    project: str | None = None  # of its calls, whatever their headers say
    scopes: frozenset[KeyScope] = DEFAULT_SCOPES
    policy: KeyPolicy = KeyPolicy()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. Its secret is here and nowhere else, and in no `repr`."""

    key: ApiKey
    secret: str = field(repr=False)


class Keys:
    """The keys in a ledger, for any number of threads and processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read_at_ms: int | None = None  # None: to be read before the next answer
        self._ever_read = False
        self._rows: list[_Row] = []
        self._known: dict[str, tuple[ApiKey, bytes]] = {}

    def verify(self, secret: str, now_ms: int) -> ApiKey | None:
        """The key that this is the secret of; None where it is none, or revoked. Takes microseconds.

        While the ledger cannot be read, the keys known last are still good.

        Raises:
            LedgerError: the ledger cannot be read, and never could.
        """
        read_at = self._read_at_ms
        if read_at is None or not 0 <= now_ms - read_at < _FRESH_MS:
            self._read(now_ms)
        if len(secret) != _SECRET_CHARS or not secret.startswith(_PREFIX):
            return None
        known = self._known.get(secret[len(_PREFIX) : _ID_END])
        if known is None or not compare_digest(sha256(secret.encode("utf-8", "replace")).digest(), known[1]):
            return None
        return known[0]

    def create(
        self,
        name: str,
        now_ms: int,
        *,
        project: str | None = None,
        scopes: Iterable[KeyScope] = DEFAULT_SCOPES,
        policy: KeyPolicy = KeyPolicy(),
    ) -> NewKey:
        """Makes a key. Its secret cannot be had again.

        Raises:
            ValueError: no name, or no scope.
            LedgerError: the ledger cannot be written.
        """
        if not name.strip():
            raise ValueError("a key needs a name to be recognised by")
        key_id = os.urandom(_ID_CHARS // 2).hex()
        secret = f"{_PREFIX}{key_id}-{urlsafe_b64encode(os.urandom(32)).decode('ascii').rstrip('=')}"
        key = ApiKey(key_id, name, now_ms, None, project, frozenset(scopes), policy)
        if not key.scopes:
            raise ValueError(f"key {name!r} needs a scope: {', '.join(KeyScope)}")
        with self._ledger._transaction() as connection:
            connection.execute(
                f"INSERT INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, NULL, ?, ?, ?)",  # noqa: S608 column names only
                (
                    key_id,
                    name,
                    sha256(secret.encode("ascii")).hexdigest(),
                    now_ms,
                    project,
                    json.dumps(sorted(key.scopes)),
                    _policy_text(policy),
                ),
            )
        self._read_at_ms = None
        return NewKey(key, secret)

    def all(self) -> list[ApiKey]:
        """All keys, revoked ones too, in the order in which they were made.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._ledger._reading() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at_ms, key_id").fetchall()  # noqa: S608 column names only
        return [_key(row) for row in rows]

    def revoke(self, key_id: str, now_ms: int) -> ApiKey | None:
        """Refuses a key from now on; None where there is none of that id. One that is revoked stays as it is.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._ledger._transaction() as connection:
            connection.execute(
                "UPDATE api_keys SET revoked_at_ms = ? WHERE key_id = ? AND revoked_at_ms IS NULL", (now_ms, key_id)
            )
            row = connection.execute(f"SELECT {_COLUMNS} FROM api_keys WHERE key_id = ?", (key_id,)).fetchone()  # noqa: S608 column names only
        self._known.pop(key_id, None)
        self._read_at_ms = None
        return None if row is None else _key(row)

    def exist(self, now_ms: int) -> bool:
        """Whether there is a key that holds: a gateway that others can reach must have one.

        Raises:
            LedgerError: the ledger cannot be read, and never could.
        """
        self._read(now_ms)
        return bool(self._known)

    def _read(self, now_ms: int) -> None:
        try:
            if not self._ever_read:
                self._ledger.open()  # makes it, and brings it up to date
            with self._ledger._snapshot() as connection:
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM api_keys WHERE revoked_at_ms IS NULL ORDER BY key_id"  # noqa: S608 column names only
                ).fetchall()
        except LedgerError:
            if not self._ever_read:
                raise
            self._read_at_ms = now_ms  # asked again in a second
            return
        if rows != self._rows:
            self._known = {row[0]: (_key(row), bytes.fromhex(row[2])) for row in rows}
            self._rows = rows
        self._read_at_ms = now_ms
        self._ever_read = True


_Row = tuple[str, str, str, int, int | None, str | None, str, str]
_COLUMNS = "key_id, name, hash, created_at_ms, revoked_at_ms, project, scopes, policy"


def _key(row: _Row) -> ApiKey:
    key_id, name, _, created, revoked, project, scopes, policy = row
    known = {scope.value: scope for scope in KeyScope}  # one that a newer tierwise gave means nothing here
    allowed = frozenset(known[text] for text in json.loads(scopes) if text in known)
    return ApiKey(key_id, name, created, revoked, project, allowed, _policy(policy))


def _policy_text(policy: KeyPolicy) -> str:
    return json.dumps(
        {name: tier for name, tier in (("min_tier", policy.min_tier), ("max_tier", policy.max_tier)) if tier}
    )


def _policy(text: str) -> KeyPolicy:
    read: dict[str, str] = json.loads(text)
    return KeyPolicy(read.get("min_tier"), read.get("max_tier"))
