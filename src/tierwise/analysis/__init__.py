"""What transcripts show: what was spent, on what, what routing would have cost, and what to change.

`session` looks at one session, `aggregate` adds sessions up, `advise` says what to do about it, and `findings` is the
result as values and as JSON. `html` and `table` write it down; `apply` makes the changes. Nothing here sends anything.
"""
