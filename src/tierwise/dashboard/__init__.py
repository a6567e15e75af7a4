"""The dashboard: a typed JSON API over the ledger's figures, and the page that shows them.

Mounted by the gateway, or served alone by `tierwise dashboard`. The API is documented in docs/reference/api.md.
"""
