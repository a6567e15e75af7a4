"""What Claude Code puts among the words of a person: reminders, notes, and requests of its own.

Read from requests (by the gateway) and from transcripts (by the importer) alike, as seen of Claude Code 2.1.330.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["is_note", "said", "without_reminders"]

_REMINDER, _REMINDER_END = "<system-reminder>", "</system-reminder>"
# How the notes begin that Claude Code puts before what the human says: the summary of what was compacted, commands
# that it carried out itself, what became of tasks in the background, and that it was interrupted.
_NOTES = (
    "This session is being continued from a previous conversation",
    "<local-command-",
    "<command-name>",
    "<command-message>",
    "<bash-input>",
    "<bash-stdout>",
    "<bash-stderr>",
    "<task-notification>",
    "[Request interrupted by user",
    "[Subagent hand-back]",
)


def without_reminders(text: str) -> str:
    """The text without what stands in a client's reminders. One that never ends is text like any other."""
    start = text.find(_REMINDER)
    if start < 0:
        return text.strip()
    kept, position = [], 0
    while start >= 0:
        end = text.find(_REMINDER_END, start)
        if end < 0:
            break
        kept.append(text[position:start])
        position = end + len(_REMINDER_END)
        start = text.find(_REMINDER, position)
    return "".join((*kept, text[position:])).strip()


def is_note(text: str) -> bool:
    """Whether a text (without reminders) is a note of the client's, no words of a person."""
    return text.startswith(_NOTES)


def said(texts: Iterable[str]) -> str:
    """What a person says in these blocks of one turn: no reminders; notes only where there is nothing else."""
    kept = [text for text in map(without_reminders, texts) if text]
    return "\n\n".join([text for text in kept if not is_note(text)] or kept)
