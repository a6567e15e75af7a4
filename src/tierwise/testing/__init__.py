"""Test aids, public: a stand-in for a model API that answers, and fails, on demand.

    from tierwise.testing import Fault, StandInUpstream

    with StandInUpstream() as upstream:
        upstream.fail(Fault.status(529))
        upstream.reply("fine now")
        ...  # point a provider's base_url at upstream.url

It is a stand-in: no model runs behind it, its default replies say so, and its token counts are made up from the
lengths of the texts. What it takes over from the real API is the wire: shapes, headers, events, refusals of
requests, and the ways in which connections die. The product itself never imports this package.
"""

from tierwise.testing.faults import Fault, FaultKind
from tierwise.testing.replies import StandInReply, count_tokens
from tierwise.testing.rules import CLAUDE_MODELS, ModelRules
from tierwise.testing.server import RecordedRequest, StandInUpstream

__all__ = [
    "CLAUDE_MODELS",
    "Fault",
    "FaultKind",
    "ModelRules",
    "RecordedRequest",
    "StandInReply",
    "StandInUpstream",
    "count_tokens",
]
