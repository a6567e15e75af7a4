"""Names of calls grow with time, and never repeat."""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from tierwise.ledger import new_call_id
from tierwise.ledger.ids import CallIds


@given(st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=50))
def test_ids_grow_whatever_the_clock_does(times: list[int]) -> None:
    """Later ids sort after earlier ones, also when the clock jumps back."""
    ids = CallIds()
    made = [ids.new(now, bytes(8)) for now in times]
    assert made == sorted(set(made))


def test_ids_grow_past_a_full_counter() -> None:
    """More ids in one millisecond than the counter holds still grow."""
    ids = CallIds()
    made = [ids.new(1000, bytes(8)) for _ in range(10_000)]
    assert made == sorted(set(made))


def test_id_is_a_uuid_of_version_7() -> None:
    """Time, version and variant stand where the standard puts them."""
    made = CallIds().new(0x0123456789AB, b"\xff" * 8)
    assert made == "01234567-89ab-7000-bfff-ffffffffffff"
    assert (uuid.UUID(made).version, uuid.UUID(made).variant) == (7, uuid.RFC_4122)


def test_threads_get_different_ids() -> None:
    """Ids made at once by several threads, from the real clock and randomness, are all different."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: new_call_id(), range(2000)))
    assert len(set(made)) == 2000
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i) for i in made)
