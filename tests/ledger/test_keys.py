"""Keys: whoever has the secret gets in, nobody else does, and the secret is nowhere."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger import Ledger
from tierwise.ledger.keys import ApiKey, KeyPolicy, Keys, KeyScope

Opener = Callable[..., Ledger]
NOW = 1_790_000_000_000


def test_secret_finds_its_key(ledger: Ledger) -> None:
    """A key is told by its secret, with all that it was given, also by another process's eyes."""
    made = Keys(ledger).create(
        "laptop",
        NOW,
        project="search",
        scopes=[KeyScope.CALLS, KeyScope.METRICS],
        policy=KeyPolicy(min_tier="haiku", max_tier="sonnet"),
    )
    expected = ApiKey(
        made.key.key_id,
        "laptop",
        NOW,
        None,
        "search",
        frozenset({KeyScope.CALLS, KeyScope.METRICS}),
        KeyPolicy("haiku", "sonnet"),
    )
    assert made.key == expected
    assert Keys(ledger).verify(made.secret, NOW) == expected
    assert Keys(ledger).all() == [expected]


def test_key_is_for_calls_and_receipts_unless_told_otherwise(ledger: Ledger) -> None:
    """The metrics of a gateway are not every client's."""
    assert Keys(ledger).create("laptop", NOW).key.scopes == {KeyScope.CALLS, KeyScope.RECEIPTS}


def test_anything_but_the_secret_is_refused(ledger: Ledger) -> None:
    """One character more, less or other, another key's secret under this id, odd text: no."""
    keys = Keys(ledger)
    secret, other = (keys.create(name, NOW).secret for name in ("one", "two"))
    changed = "B" if secret[-1] != "B" else "C"
    for wrong in (
        "",
        "tw-",
        secret[:-1],
        secret + "A",
        secret[:-1] + changed,
        secret.upper(),
        secret[:16] + other[16:],
        "sk" + secret[2:],
        f" {secret}",
        "tw-" + "é" * (len(secret) - 3),
        "\udcff" * len(secret),
    ):
        assert keys.verify(wrong, NOW) is None, wrong
    assert keys.verify(secret, NOW) is not None


def test_secrets_differ_and_have_256_random_bits(ledger: Ledger) -> None:
    """Two keys of one name have nothing in common but the prefix."""
    keys = Keys(ledger)
    secrets = {keys.create("same", NOW).secret for _ in range(50)}
    assert len(secrets) == len({secret[3:15] for secret in secrets}) == len({secret[16:] for secret in secrets}) == 50
    assert {len(secret[16:]) for secret in secrets} == {43}


def test_revoked_key_is_refused_at_once_here_and_within_a_second_elsewhere(opened: Opener) -> None:
    """The process that revokes knows it; another one knows once what it read is a second old."""
    here, elsewhere = Keys(opened()), Keys(opened())
    made = here.create("laptop", NOW)
    assert elsewhere.verify(made.secret, NOW) == here.verify(made.secret, NOW) == made.key
    revoked = here.revoke(made.key.key_id, NOW + 10)
    assert revoked is not None
    assert revoked.revoked_at_ms == NOW + 10
    assert here.verify(made.secret, NOW + 11) is None
    assert elsewhere.verify(made.secret, NOW + 999) is not None, "not yet: it reads once a second"
    assert elsewhere.verify(made.secret, NOW + 1000) is None
    assert here.all() == [revoked]


def test_key_made_elsewhere_is_known_within_a_second(opened: Opener) -> None:
    """A running gateway need not be told of a new key."""
    here, elsewhere = Keys(opened()), Keys(opened())
    assert not elsewhere.exist(NOW)
    made = here.create("laptop", NOW)
    assert elsewhere.verify(made.secret, NOW + 1000) == made.key
    assert elsewhere.exist(NOW + 1000)


def test_clock_that_jumps_back_does_not_keep_a_revoked_key(opened: Opener) -> None:
    """What was read in the future of the clock is read again."""
    here, elsewhere = Keys(opened()), Keys(opened())
    made = here.create("laptop", NOW)
    assert elsewhere.verify(made.secret, NOW) is not None
    here.revoke(made.key.key_id, NOW)
    assert elsewhere.verify(made.secret, NOW - 3_600_000) is None


def test_revoking_twice_keeps_the_first_time(ledger: Ledger) -> None:
    """Since when a key is refused does not move; one that is not there is None."""
    keys = Keys(ledger)
    key_id = keys.create("laptop", NOW).key.key_id
    assert keys.revoke(key_id, NOW + 1) == keys.revoke(key_id, NOW + 2)
    assert keys.revoke("nothing", NOW) is None


def test_keys_known_last_hold_while_the_ledger_cannot_be_read(opened: Opener) -> None:
    """A disk in trouble turns no client away; who starts without a ledger is told."""
    ledger = opened()
    keys = Keys(ledger)
    secret = keys.create("laptop", NOW).secret
    assert keys.verify(secret, NOW) is not None
    ledger.close()
    aside = ledger.path.rename(ledger.path.with_name("aside.db"))
    ledger.path.mkdir()
    assert keys.verify(secret, NOW + 5000) is not None
    with pytest.raises(LedgerUnavailable):
        Keys(opened()).verify(secret, NOW)
    ledger.path.rmdir()
    aside.rename(ledger.path)
    assert keys.verify(secret, NOW + 9000) is not None


def test_scope_of_a_newer_tierwise_means_nothing(ledger: Ledger) -> None:
    """What this version does not know it does not allow."""
    keys = Keys(ledger)
    made = keys.create("laptop", NOW)
    with sqlite3.connect(ledger.path) as db:
        db.execute("""UPDATE api_keys SET scopes = '["calls", "everything"]'""")
    db.close()
    found = keys.verify(made.secret, NOW)
    assert found is not None
    assert found.scopes == {KeyScope.CALLS}


@pytest.mark.parametrize(("name", "scopes"), [(" ", [KeyScope.CALLS]), ("laptop", [])])
def test_key_without_name_or_scope_is_refused(ledger: Ledger, name: str, scopes: list[KeyScope]) -> None:
    """A key that could not be told from others, or be used, is not made."""
    with pytest.raises(ValueError, match="needs a"):
        Keys(ledger).create(name, NOW, scopes=scopes)
    assert Keys(ledger).all() == []


def test_secret_is_in_no_file_and_no_repr(opened: Opener, tmp_path: Path) -> None:
    """Neither the ledger, its log and spools, nor what would be logged of any of it holds a secret."""
    ledger = opened()
    keys = Keys(ledger)
    made = keys.create("laptop", NOW)
    keys.verify(made.secret, NOW)
    keys.revoke(made.key.key_id, NOW)
    random_part = made.secret[16:]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert random_part.encode() not in path.read_bytes(), path
    shown = f"{made!r} {made} {made.key!r} {vars(keys)!r} {keys.all()!r}"
    assert random_part not in shown
    assert made.key.key_id in shown


def test_killed_process_leaves_its_keys(opened: Opener) -> None:
    """A secret that was shown is good, whatever happened to the process that showed it."""
    ledger = opened()
    program = (
        "import os, signal, sys; from tierwise.ledger import Ledger; from tierwise.ledger.keys import Keys\n"
        "print(Keys(Ledger(sys.argv[1], spool_dirs=())).create('x', 1).secret, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ledger.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    assert Keys(ledger).verify(done.stdout.strip(), NOW) is not None
