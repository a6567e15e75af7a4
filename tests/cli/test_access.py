"""`tierwise keys` and `tierwise budgets`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise
from tierwise.cli.keys import SCOPES
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import Budgets, Reservation
from tierwise.ledger.keys import Keys, KeyScope

NOW = 1_790_000_000_000


def test_secret_alone_is_on_stdout_and_holds(tierwise: Tierwise, ledger_path: Path) -> None:
    """What a script captures is what a client sends; the words about it go to stderr, without the secret."""
    done = tierwise("keys", "create", "laptop", "--project", "search", "--max-tier", "sonnet")
    assert done.code == 0
    secret = done.out.removesuffix("\n")
    assert re.fullmatch(r"tw-[0-9a-f]{12}-[\w-]{43}", secret)
    assert "'laptop' is made" in done.err
    assert secret[16:] not in done.err
    with Ledger(ledger_path) as ledger:
        key = Keys(ledger).verify(secret, NOW)
    assert key is not None
    assert (key.name, key.project, key.policy.max_tier) == ("laptop", "search", "sonnet")


def test_list_shows_keys_and_no_secret(tierwise: Tierwise) -> None:
    """Both forms of the list tell keys apart, say which are revoked, and cannot be used to get in."""
    secret = tierwise("keys", "create", "[/b] laptop", "--scope", "metrics", "--scope", "calls").out.strip()
    tierwise("keys", "create", "phone")
    assert tierwise("keys", "revoke", "phone").code == 0
    listed = tierwise("keys", "list")
    as_json = tierwise("keys", "list", "--json")
    for shown in (listed.out, as_json.out):
        assert secret[3:15] in shown
        assert secret[16:] not in shown
        assert "[/b] laptop" in shown
    laptop, phone = as_json.json["keys"]
    assert (laptop["scopes"], laptop["revoked_at_ms"]) == (["calls", "metrics"], None)
    assert phone["revoked_at_ms"] >= phone["created_at_ms"] > NOW - 10**12


def test_revoked_key_does_not_hold(tierwise: Tierwise, ledger_path: Path) -> None:
    """By its id or by its name; revoking it again by its id says since when it is."""
    made = tierwise("keys", "create", "laptop", "--json").json
    first = tierwise("keys", "revoke", "laptop")
    assert "is revoked since" in first.out
    assert tierwise("keys", "revoke", made["key_id"]).out == first.out
    with Ledger(ledger_path) as ledger:
        assert Keys(ledger).verify(made["secret"], NOW) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keys", "revoke", "laptop"], "there are no keys"),
        (["keys", "create", " "], "NAME is empty"),
        (["keys", "create", "x", "--scope", "all"], "'all' is not one of"),
        (["keys", "create", "x", "--min-tier", "hiku"], "unknown tier 'hiku'"),
        (["keys", "create", "x", "--min-tier", "opus", "--max-tier", "haiku"], "--min-tier opus is above"),
        (["budgets", "remove", "1"], "there are no budgets"),
        (["budgets", "set", "--per", "day", "--usd", "1"], "give one of --key, --project and --all"),
        (["budgets", "set", "--all", "--project", "x", "--per", "day", "--usd", "1"], "give one of"),
        (["budgets", "set", "--project", "", "--per", "day", "--usd", "1"], "--project is empty"),
        (["budgets", "set", "--all", "--per", "week", "--usd", "1"], "'week' is not one of"),
        (["budgets", "set", "--all", "--per", "day", "--usd", "-1"], "not an amount"),
        (["budgets", "set", "--all", "--per", "day", "--usd", "1000000000.01"], "more than a budget can be"),
        (["budgets", "set", "--key", "laptop", "--per", "day", "--usd", "1"], "no key 'laptop'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(tierwise: Tierwise, arguments: list[str], words: str) -> None:
    """Exit code 2, and a message that names what is wrong."""
    done = tierwise(*arguments)
    assert done.code == 2
    assert words in done.err


def test_unknown_and_ambiguous_names_are_refused(tierwise: Tierwise) -> None:
    """Of two keys of one name none is guessed: both ids are named."""
    ids = [tierwise("keys", "create", "same", "--json").json["key_id"] for _ in range(2)]
    done = tierwise("keys", "revoke", "same")
    assert done.code == 2
    assert all(key_id in done.err for key_id in ids)
    assert "`tierwise keys list`" in tierwise("keys", "revoke", "other").err
    assert "`tierwise budgets list`" in tierwise("budgets", "remove", "other").err


def test_budget_is_set_changed_listed_and_removed(tierwise: Tierwise, ledger_path: Path) -> None:
    """The whole life of a budget, with what a call spends of it in between."""
    key_id = tierwise("keys", "create", "laptop", "--json").json["key_id"]
    made = tierwise("budgets", "set", "--key", "laptop", "--per", "total", "--usd", "5.00", "--json").json
    assert (made["scope"], made["subject"], made["limit_usd"], made["hard"]) == ("key", key_id, 5.0, True)
    with Ledger(ledger_path) as ledger:
        reservation = Budgets(ledger).reserve("a", 2_000_000_000, NOW, key_id=key_id)
        assert isinstance(reservation, Reservation)
        Budgets(ledger).settle(reservation, 1_250_000_000)
        Budgets(ledger).reserve("b", 1, NOW, key_id=key_id)
    changed = tierwise("budgets", "set", "--key", key_id, "--per", "total", "--usd", "4", "--warn-only")
    assert changed.out.splitlines() == [
        f"budget {made['budget_id']} of key '{key_id}', $4.00 in total, as a warning",
        "$1.25 of it is spent, $2.749999999 is left",
    ]
    (row,) = tierwise("budgets", "list", "--json").json["budgets"]
    # The process that made the second reservation runs: it is this one.
    assert (row["spent_usd"], row["reserved_usd"], row["left_usd"]) == (1.25, 1e-9, 2.749999999)
    assert (row["resets_at_ms"], row["hard"]) == (None, False)
    shown = tierwise("budgets", "list").out
    assert all(text in shown for text in (key_id, "$4.00", "$1.25", "$2.749999999", "warning"))
    assert "is removed" in tierwise("budgets", "remove", made["budget_id"]).out
    assert tierwise("budgets", "list", "--json").json["budgets"] == []


def test_lists_of_nothing_say_so_and_make_no_ledger(tierwise: Tierwise, ledger_path: Path) -> None:
    """Who only looks leaves nothing behind, and is told how to begin."""
    assert "`tierwise keys create NAME`" in tierwise("keys", "list").out
    assert "`tierwise budgets set`" in tierwise("budgets", "list").out
    assert tierwise("keys", "list", "--json").json["keys"] == []
    assert not ledger_path.exists()


def test_scopes_offered_are_those_there_are() -> None:
    """The option is read without loading the ledger; it has the same choices."""
    assert list(SCOPES) == [scope.value for scope in KeyScope]
