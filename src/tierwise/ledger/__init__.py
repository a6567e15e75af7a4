"""The ledger: one row a call, one row an attempt, in SQLite. The only SQL of the program is in this package.

`Ledger` writes and reads; `recover` saves what can be read of a damaged file. The tables are documented in
docs/reference/ledger.md.
"""

from __future__ import annotations

from tierwise.ledger.feedback import Feedback, FeedbackCounts, Judgement
from tierwise.ledger.filter import Dimension, Filter
from tierwise.ledger.ids import new_call_id
from tierwise.ledger.recovery import RecoveryReport, recover
from tierwise.ledger.rollup import Totals
from tierwise.ledger.store import Abandoned, Ledger, ModelSpeed, StoredCall

__all__ = [
    "Abandoned",
    "Dimension",
    "Feedback",
    "FeedbackCounts",
    "Filter",
    "Judgement",
    "Ledger",
    "ModelSpeed",
    "RecoveryReport",
    "StoredCall",
    "Totals",
    "new_call_id",
    "recover",
]
