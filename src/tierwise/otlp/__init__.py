"""What other programs report about themselves by OTLP: Claude Code's requests, where it has no gateway."""
