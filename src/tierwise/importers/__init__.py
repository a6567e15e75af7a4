"""Other programs' records of their calls, read as `ImportedSession`s. Text of prompts never leaves memory."""
