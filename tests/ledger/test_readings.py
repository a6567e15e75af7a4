"""The cache of what importers have read: bytes in, bytes out, and never in anybody's way."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger.readings import FileMark, FileReading, Readings

MARK = FileMark("1:2", 100, 5, 90, 3, b"head", b"tail")
READING = FileReading("/a/b.jsonl", MARK, b"summary", b"calls", b"state")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the cache is."""
    return tmp_path / "new" / "readings.db"


def test_what_is_put_is_found(path: Path) -> None:
    """A reading comes back as it was, after closing too; a list of files leaves calls and state out."""
    with Readings(path) as readings:
        readings.put_files("one", "r1", [READING])
    with Readings(path) as readings:
        assert readings.file("one", "r1", READING.path) == READING
        assert list(readings.files("one", "r1")) == [READING._replace(calls=None, state=None)]
        assert readings.file("two", "r1", READING.path) is readings.file("one", "r1", "/none") is None


def test_another_reader_finds_nothing_and_takes_its_place(path: Path) -> None:
    """Rows of one reader are not another's; there is one row a file."""
    with Readings(path) as readings:
        readings.put_files("one", "r1", [READING])
        assert list(readings.files("one", "r2")) == []
        readings.put_files("one", "r2", [READING._replace(calls=b"new")])
        assert readings.file("one", "r1", READING.path) is None
        assert readings.file("one", "r2", READING.path) == READING._replace(calls=b"new")


def test_names_that_are_no_text(path: Path) -> None:
    """A file's name may be any bytes."""
    odd = READING._replace(path="/a/\udcff\udcfe.jsonl")
    with Readings(path) as readings:
        readings.put_files("one", "r1", [odd])
        assert readings.file("one", "r1", odd.path) == odd


def test_forgetting(path: Path) -> None:
    """A forgotten file is gone with its calls, and no other."""
    other = READING._replace(path="/c")
    with Readings(path) as readings:
        readings.put_files("one", "r1", [READING, other])
        readings.forget_files("one", [READING.path, "/none"])
        assert [found.path for found in readings.files("one", "r1")] == ["/c"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM bodies").fetchone() == (1,)
    connection.close()


def test_results(path: Path) -> None:
    """A result is found under its session and digest; of a session a few are kept, the last one always."""
    with Readings(path) as readings:
        assert readings.result("s", "d") is None
        readings.put_results([("s", "d", b"1"), ("t", "d", b"2"), ("s", "d", b"3")])
        assert (readings.result("s", "d"), readings.result("t", "d")) == (b"3", b"2")
        for number in range(20):
            readings.put_results([("s", f"d{number}", b"%d" % number)])
            assert readings.result("s", f"d{number}") == b"%d" % number
        assert sum(readings.result("s", f"d{number}") is not None for number in range(20)) <= 4
        assert readings.result("t", "d") == b"2"


def test_many_results_at_once(path: Path) -> None:
    """Results are found by session and digest together, however many are asked for; what is not there is left out."""
    with Readings(path) as readings:
        readings.put_results([(f"s{k}", "d", b"%d" % k) for k in range(0, 1_200, 2)])
        found = readings.results([(f"s{k}", "d") for k in range(1_200)] + [("s0", "another")])
        assert found == {(f"s{k}", "d"): b"%d" % k for k in range(0, 1_200, 2)}
        assert readings.results([]) == {}


def test_all_or_nothing(path: Path) -> None:
    """What is handed over at once is there as a whole, or not at all."""

    def broken() -> list[FileReading]:
        return [READING, READING._replace(path="/c", summary=None)]  # type: ignore[arg-type]

    with Readings(path) as readings:
        with pytest.raises(LedgerUnavailable):
            readings.put_files("one", "r1", broken())
        assert list(readings.files("one", "r1")) == []
        readings.put_files("one", "r1", [READING])


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be read as one" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_damaged_file_is_replaced(path: Path, content: bytes) -> None:
    """It is only a cache: what cannot be read is made anew."""
    path.parent.mkdir()
    path.write_bytes(content)
    with Readings(path) as readings:
        readings.put_files("one", "r1", [READING])
        assert readings.file("one", "r1", READING.path) == READING


def test_another_schema_is_replaced(path: Path) -> None:
    """A cache of another version's is made anew."""
    with Readings(path) as readings:
        readings.put_files("one", "r1", [READING])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with Readings(path) as readings:
        assert list(readings.files("one", "r1")) == []


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A database that is not ours is neither used nor deleted; the message says what to do."""
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(LedgerUnavailable, match=r"another program.*delete it"):
        Readings(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    connection.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match=r"readings\.db"):
        Readings(tmp_path / "file" / "readings.db")


def test_two_processes_at_once(path: Path) -> None:
    """Two connections write in turn and see each other's rows."""
    with Readings(path) as one, Readings(path) as two:
        one.put_files("one", "r1", [READING])
        two.put_files("one", "r1", [READING._replace(path="/c")])
        assert len(list(one.files("one", "r1"))) == len(list(two.files("one", "r1"))) == 2


def test_a_private_one(tmp_path: Path) -> None:
    """Without a path nothing is left behind."""
    with Readings(None) as readings:
        readings.put_files("one", "r1", [READING])
        assert readings.file("one", "r1", READING.path) == READING
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_may_read_it(path: Path) -> None:
    """Names of sessions and projects are nobody else's business."""
    with Readings(path) as readings:
        readings.put_files("one", "r1", [READING])
        assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}
