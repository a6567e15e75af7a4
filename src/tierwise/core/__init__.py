"""Values only: what every other package speaks in.

Nothing here reads a file, a clock, a socket, the environment or randomness. A value is a frozen dataclass, a
closed choice is an `Enum`. Everything above (`tierwise.policy`, `tierwise.engine`, …) takes and returns these.
"""
