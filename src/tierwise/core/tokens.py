"""Token counts estimated from text, for decisions and for what a provider did not report.

An estimate is marked as one wherever it ends up. English text and code have about four characters a token in
Claude's tokenizer up to the 4.5 models; other scripts about four UTF-8 bytes. Never used where a provider's own
count is known.
"""

from __future__ import annotations

__all__ = ["estimate_tokens"]

_BYTES_PER_TOKEN = 4
_SAMPLE = 4096


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has, at least 1 unless it is empty. Constant time for any length."""
    length = len(text)
    if length == 0:
        return 0
    if text.isascii():
        return (length + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN
    if length <= _SAMPLE:
        size = len(text.encode("utf-8", "surrogatepass"))
    else:
        # Head, middle and tail stand for the rest: encoding ten megabytes would take longer than the decision.
        third = _SAMPLE // 3
        middle = length // 2
        sample = text[:third] + text[middle : middle + third] + text[-third:]
        size = len(sample.encode("utf-8", "surrogatepass")) * length // len(sample)
    return (size + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN
