"""Token estimates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.tokens import estimate_tokens


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_every_text_has_an_estimate(text: str) -> None:
    """Any text, lone surrogates included, is between nothing and a token a character, and only the empty one is 0."""
    tokens = estimate_tokens(text)
    assert 0 <= tokens <= len(text)
    assert (tokens == 0) is (text == "")


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本", 2), ("\ud800", 1)])
def test_four_bytes_are_about_a_token(text: str, tokens: int) -> None:
    """Four bytes of UTF-8 count as one token, and a part of it as one."""
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize("unit", ["word ", "日本語のテキスト", "naïve café ", "🙂"])
def test_long_texts_are_sampled_without_going_wrong(unit: str) -> None:
    """The estimate of a megabyte, which is sampled, is within a hundredth of counting all of it."""
    text = unit * (1_000_000 // len(unit))
    exact = len(text.encode()) / 4
    assert estimate_tokens(text) == pytest.approx(exact, rel=0.01)
