"""The OpenAI dialect as clients speak it, sans-io: their chat/completions request as a Messages one, replies back.

`wire.openai` goes the other way, to upstreams of that dialect. `request` and `conversation` translate what is asked,
`reply` what is answered, whole or as a stream, and `errors` what goes wrong. Shapes follow the types of OpenAI's Python
SDK 3.57 (November 2026).

What a request says and Messages cannot say is either

- left out and noted, where the answer is still the one that was asked for (a seed, a penalty, a cache key), or
- a `ChatError` with status 400, where it is not (several answers, token probabilities, audio).

So nothing is lost in silence. A `null` means, as at OpenAI, that the parameter was not given.
"""

from __future__ import annotations

from tierwise.wire.chat.errors import ChatError, error_body
from tierwise.wire.chat.reply import ChatChunks, completion
from tierwise.wire.chat.request import DEFAULT_MAX_TOKENS, messages_request

__all__ = ["DEFAULT_MAX_TOKENS", "ChatChunks", "ChatError", "completion", "error_body", "messages_request"]
