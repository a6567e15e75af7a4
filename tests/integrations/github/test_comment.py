"""What the comment says, and what it carries from run to run."""

from __future__ import annotations

import re
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.integrations.github.comment import MARKER, Runs, escaped, markdown, signed
from tierwise.integrations.github.spending import ModelSpending, Spending, Sums

CENT = 10_000_000
SPENT = Sums(
    calls=3, spent_nanousd=5 * CENT, routed_nanousd=2 * CENT, routed_low_nanousd=CENT, routed_high_nanousd=4 * CENT
)

amounts = st.integers(0, 10**15)
sums = st.builds(
    Sums,
    calls=st.integers(0, 10**9),
    unpriced_calls=st.integers(0, 10**9),
    spent_nanousd=amounts,
    routed_nanousd=amounts,
    routed_low_nanousd=amounts,
    routed_high_nanousd=amounts,
    saved_nanousd=st.integers(-(10**15), 10**15),
)


@given(st.dictionaries(st.text(max_size=40), sums, max_size=6), st.text(max_size=200))
def test_what_is_carried_is_read_again(runs: dict[str, Sums], text: str) -> None:
    """Whatever the keys are, a comment's runs come out as they went in, and nothing in them ends the hidden part."""
    carried = Runs(runs, 2, SPENT)
    body = signed(carried, text)
    assert Runs.read(body) == carried
    head = body.partition("\n")[0]
    assert head.startswith(MARKER)
    assert head.index("-->") == len(head) - 3


def test_a_run_that_reports_again_counts_once() -> None:
    """Of the same run the last report stands; another attempt of it, and another job, count beside it."""
    runs = Runs().with_run("1.1.job.", SPENT).with_run("1.2.job.", SPENT)
    more = Sums(calls=4, spent_nanousd=7 * CENT)
    assert runs.with_run("1.2.job.", more).total == SPENT + more
    assert len(runs.with_run("1.2.job.", more)) == 2


def test_old_runs_are_folded() -> None:
    """Of a thousand runs the comment stays within what GitHub takes, and the sum is that of all."""
    runs = Runs()
    for number in range(1000):
        runs = runs.with_run(f"{number}.1.a-job-with-a-long-name.12", SPENT)
    assert (len(runs), runs.total.calls, runs.total.spent_nanousd) == (1000, 3000, 5000 * CENT)
    body = signed(runs, markdown(Spending(SPENT), runs))
    assert len(body) < 65_536
    assert Runs.read(body) == runs


def test_comments_of_two_jobs_become_one() -> None:
    """Runs of both are there, the same one once."""
    one, other = Runs().with_run("a", SPENT), Runs().with_run("b", SPENT).with_run("a", SPENT)
    assert set(one.merged(other).by_key) == {"a", "b"}
    assert one.merged(other).total == SPENT + SPENT


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        f"said above: {MARKER}{{}} -->",
        f"{MARKER}{{}} -->\n",
        f"{MARKER}nonsense -->\n",
        f"{MARKER}" + "[" * 100_000 + " -->\n",
        f'{MARKER}{{"format":1,"runs":{{"a":[1,0,-5,0,0,0,0]}},"folded":0,"folded_sums":[0,0,0,0,0,0,0]}} -->\n',
        f'{MARKER}{{"format":1,"runs":{{"a":[1,0,1e99,0,0,0,0]}},"folded":0,"folded_sums":[0,0,0,0,0,0,0]}} -->\n',
        f'{MARKER}{{"format":1,"runs":{{"a":[{10**30},0,0,0,0,0,0]}},"folded":0,"folded_sums":[0,0,0,0,0,0,0]}} -->\n',
        f'{MARKER}{{"format":1,"runs":{{"a":[1]}},"folded":0,"folded_sums":[0,0,0,0,0,0,0]}} -->\n',
        f'{MARKER}{{"format":2,"runs":{{}},"folded":0,"folded_sums":[0,0,0,0,0,0,0]}} -->\n',
        f'{MARKER}{{"format":1,"runs":{{}},"folded":-1,"folded_sums":[0,0,0,0,0,0,0]}} -->\n',
    ],
)
def test_what_is_no_comment_of_ours_carries_nothing(body: str) -> None:
    """A comment without the hidden line, with a broken one, or with sums that cannot be, is read as none."""
    assert Runs.read(body) is None


def test_it_says_what_was_spent_and_what_routing_would_change() -> None:
    """This run and the pull request stand side by side; what is not known is told and in no amount."""
    now = Spending(SPENT + Sums(calls=1, unpriced_calls=1), (ModelSpending("claude-opus-5-5", 3, 5 * CENT),), 1)
    runs = Runs().with_run("earlier", SPENT).with_run("now", now.sums)
    text = markdown(now, runs)
    assert "| this run | 4 | $0.0500 | $0.0200 ($0.0100 to $0.0400) |" in text
    assert "| this pull request, 2 runs | 7 | $0.1000 | $0.0400 ($0.0200 to $0.0800) |" in text
    assert "| <code>claude-opus-5-5</code> | 3 | $0.0500 |" in text
    assert "1 call of unknown price: in no amount." in text
    assert "1 execution file of this run without a result: what it cost is not known." in text
    assert "saved" not in text


def test_that_routing_would_change_nothing_is_told() -> None:
    """Where calls were replayed and nothing is to be saved, the comment says that; where they were not, nothing."""
    sums = Sums(calls=2, spent_nanousd=CENT, routed_nanousd=CENT)
    assert "would not have made this run cheaper" in markdown(Spending(sums, replayed=True))
    assert "cheaper" not in markdown(Spending(sums))


def test_what_routing_did_save_is_told() -> None:
    """Calls that went through tierwise have a saving, or a loss, and no estimate."""
    now = Spending(Sums(calls=2, spent_nanousd=CENT, routed_nanousd=CENT, saved_nanousd=-CENT))
    text = markdown(now)
    assert "| this run | 2 | $0.0100 | -$0.0100 |" in text
    assert "with routing" not in text


HOSTILE = [
    "a|b",
    "@octocat",
    "#1",
    "<img src=x onerror=alert(1)>",
    "</code></details><!-- tierwise-spend {} -->",
    "`tick` **bold** [x](https://example.com)",
    "two\nlines\r\n| and | a | row |",
    "\u202egnp.exe",
    "x" * 5000,
    "",
    "&lt;script&gt;",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_mean_nothing(name: str) -> None:
    """A model's name out of a record cannot end its cell, mention anybody, link, hide or draw anything."""
    shown = escaped(name)
    assert re.fullmatch(r"<code>([A-Za-z0-9 .,:;/_()–…�-]|&#\d+;)+</code>", shown)
    text = markdown(Spending(SPENT, (ModelSpending(name, 1, CENT),)))
    (row,) = [line for line in text.splitlines() if line.startswith("| <code>")]
    assert row.count("|") == 4
    assert text.count("<details>") == text.count("</details>") == 1
    assert MARKER not in text


def test_many_models_are_cut() -> None:
    """A job with a hundred models lists the dearest, and says how many there are besides."""
    models = tuple(ModelSpending(f"model {number}", 1, 100 - number) for number in range(100))
    text = markdown(Spending(SPENT, models))
    assert text.count("<code>model ") == 12
    assert "| 88 more |  |  |" in text


def test_sums_stay_in_their_order() -> None:
    """The hidden line holds sums by position: their order is part of its format."""
    assert astuple(
        Sums(
            calls=1,
            unpriced_calls=2,
            spent_nanousd=3,
            routed_nanousd=4,
            routed_low_nanousd=5,
            routed_high_nanousd=6,
            saved_nanousd=7,
        )
    ) == (1, 2, 3, 4, 5, 6, 7)
