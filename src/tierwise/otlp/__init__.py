"""What other programs report of themselves by OTLP: Claude Code's requests, for who cannot put a gateway before it."""
