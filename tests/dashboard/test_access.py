"""Who may ask: names of this machine, pages of this origin, programs with keys; and how often."""

from __future__ import annotations

import pytest

from tierwise.dashboard.access import Pace, check_change, check_origin, is_local_name
from tierwise.dashboard.refusals import Refused


@pytest.mark.parametrize("host", [b"127.0.0.1", b"127.0.0.1:8484", b"localhost:1", b"[::1]:8484", b"LOCALHOST"])
def test_names_of_this_machine_are_known(host: bytes) -> None:
    """Whatever the port."""
    assert is_local_name([(b"host", host)])


@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1.evil.example", b"evil@localhost.example", b"", b"[::1"])
def test_a_foreign_name_that_resolves_here_is_foreign(host: bytes) -> None:
    """So a page that rebinds its own name to 127.0.0.1 reads nothing."""
    assert not is_local_name([(b"host", host)])
    assert not is_local_name([])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"same-site")],
        [(b"origin", b"http://evil.example")],
        [(b"origin", b"null")],
        [(b"origin", b"http://127.0.0.1:9999")],
        [(b"origin", b"http://127.0.0.1:8484"), (b"sec-fetch-site", b"cross-site")],
    ],
)
def test_a_page_of_another_origin_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """By what the browser says of it, another port of the same machine included."""
    with pytest.raises(Refused, match="another origin") as refused:
        check_origin([(b"host", b"127.0.0.1:8484"), *headers])
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"sec-fetch-site", b"same-origin"), (b"origin", b"http://127.0.0.1:8484")],
        [(b"sec-fetch-site", b"none")],
    ],
)
def test_the_own_page_and_programs_are_let_in(headers: list[tuple[bytes, bytes]]) -> None:
    """Programs say nothing of an origin, and an address that was typed in has none."""
    check_origin([(b"host", b"127.0.0.1:8484"), *headers])


def test_a_change_needs_what_a_form_cannot_send() -> None:
    """A header of ours, and a body that is said to be JSON."""
    marked, kind = (b"x-tierwise-request", b"1"), (b"content-type", b"application/json; charset=utf-8")
    check_change([marked, kind])
    with pytest.raises(Refused, match="x-tierwise-request"):
        check_change([kind])
    with pytest.raises(Refused, match="JSON") as refused:
        check_change([marked, (b"content-type", b"text/plain")])
    assert refused.value.status == 415


def test_a_header_that_comes_twice_is_refused() -> None:
    """Nobody can tell which of them somebody else looked at."""
    with pytest.raises(Refused, match="2 times"):
        check_origin([(b"origin", b"http://a"), (b"origin", b"http://b")])


def test_one_client_cannot_ask_without_end() -> None:
    """What was allowed at once is used up, is told when it is there again, and comes back with time."""
    now = 0.0
    pace = Pace(2, 3, lambda: now)
    for _ in range(3):
        pace.take("a")
    with pytest.raises(Refused) as refused:
        pace.take("a")
    assert refused.value.status == 429
    assert dict(refused.value.headers)[b"retry-after"] == b"1"
    pace.take("b")
    now = 0.5
    pace.take("a")


def test_who_asks_from_everywhere_takes_no_memory() -> None:
    """A thousand clients are known; who has not asked for longest is forgotten."""
    pace = Pace(1, 1, lambda: 0.0)
    for client in range(5_000):
        pace.take(str(client))
    pace.take("0")
    with pytest.raises(Refused):
        pace.take("4999")
