"""What `analyze` and `replay` share: which records are read, what is remembered of them, and the progress shown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tierwise.cli.options import MOMENT
from tierwise.core.errors import ConfigError, LedgerError, LedgerUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from tierwise.analysis.aggregate import Totals
    from tierwise.analysis.gather import Plan, Watch
    from tierwise.analysis.learned import Learned
    from tierwise.analysis.screen import Line
    from tierwise.analysis.session import Scope
    from tierwise.core.settings import Settings
    from tierwise.importers.base import Importer

__all__ = ["found_totals", "print_lines", "scope_of", "source_options", "sources_of", "tell_nothing", "what_is_known"]

F = TypeVar("F", bound=Callable[..., Any])
Sources = Sequence[tuple["Importer", Sequence[Path]]]

_USUAL = "claude_code"


def source_options(function: F) -> F:
    """Adds PATHS and the options that say what is read."""
    for option in (
        click.option("--fresh", is_flag=True, help="Read everything again, and remember nothing."),
        click.option("--local", "with_local", is_flag=True, help="Let models on this machine answer too."),
        click.option("--project", metavar="NAME", help="Only calls of this project, by its path or the end of it."),
        click.option("--until", type=MOMENT, metavar="WHEN", help="Only calls before then."),
        click.option(
            "--since", type=MOMENT, metavar="WHEN", help="Only calls since then: 7d, 12h, 2026-11-01 (UTC), today."
        ),
        click.option(
            "--source",
            "sources",
            multiple=True,
            metavar="NAME",
            help="What wrote the records (repeatable): claude_code (the default), ledger, litellm, console, jsonl.",
        ),
        click.argument("paths", nargs=-1, type=click.Path(path_type=Path)),
    ):
        function = option(function)
    return function


def sources_of(names: Sequence[str], paths: Sequence[Path]) -> Sources:
    """The importers that are asked for, each with where it looks.

    Raises:
        ConfigError: there is no such importer, or no such path.
    """
    from tierwise.importers.registry import importer

    for path in paths:
        if not path.exists():
            raise ConfigError(f"there is no {path}; name a file or a directory with transcripts")
    home = Path.home()
    importers = [importer(name) for name in dict.fromkeys(names or (_USUAL,))]
    return [(one, list(paths) if paths else list(one.default_roots(os.environ, home))) for one in importers]


def scope_of(since: date | None, until: date | None, project: str | None) -> Scope:
    """Which calls are counted."""
    from tierwise.analysis.session import Scope
    from tierwise.report.spend import period

    since_ms, until_ms = period(since, until)
    return Scope(since_ms, until_ms, project)


def what_is_known(settings: Settings) -> Learned:
    """What the user's own ledger tells of conversations and answers: nothing where there is none, or it is broken."""
    from tierwise.analysis.learned import Learned, learned_from
    from tierwise.classifier import load_taxonomy
    from tierwise.ledger import Ledger

    if not settings.ledger.enabled or not settings.ledger.path.exists():
        return Learned()
    taxonomy = load_taxonomy().with_user_types(settings.task_types)
    try:
        with Ledger.of(settings.ledger) as ledger:
            return learned_from(ledger, settings.catalog, taxonomy, time.time_ns() // 1_000_000)
    except LedgerError as error:
        click.echo(f"tierwise: {error}; nothing is learned from it this time", err=True)
        return Learned()


def found_totals(plan: Plan, sources: Sources, settings: Settings, *, fresh: bool) -> Totals:
    """Everything that the sources tell, with progress on a terminal's stderr."""
    from tierwise.analysis.asks import classifier_id
    from tierwise.analysis.gather import analyse
    from tierwise.classifier import choose_classifier, load_taxonomy
    from tierwise.core.collector import calm_collector
    from tierwise.ledger.readings import Readings

    taxonomy = load_taxonomy().with_user_types(settings.task_types)
    classifier = choose_classifier(taxonomy, settings.classifier, settings.taught)
    store = None if fresh else settings.ledger.path.with_name("readings.db")

    def found(store: Path | None) -> Totals:
        with Readings(store) as readings, _watched() as watch:
            return analyse(
                plan,
                sources,
                classifier,
                taxonomy,
                classifier_id=classifier_id(settings),
                readings=readings,
                processes=_processors(),
                now_ms=time.time_ns() // 1_000_000,
                watch=watch,
            )

    calm_collector()
    try:
        return found(store)
    except LedgerUnavailable as error:  # at once, or in the middle: then all that was done is done again
        if store is None:
            raise
        click.echo(f"tierwise: {error}; nothing is remembered this time", err=True)
        return found(None)


def _processors() -> int:
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


@contextmanager
def _watched() -> Iterator[Watch]:
    from tierwise.analysis.gather import Watch

    if not sys.stderr.isatty():
        yield Watch()
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from tierwise.cli.output import console
    from tierwise.importers.base import Progress

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[what]}"))
    with Bars(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bars:
        reading = bars.add_task("reading", total=None, what="")
        looking = bars.add_task("replaying", total=None, what="", visible=False)

        def read(progress: Progress) -> None:
            bars.update(
                reading,
                total=progress.bytes or progress.files,
                completed=progress.bytes_done if progress.bytes else progress.files_done,
                what=f"{progress.files_done:,} of {progress.files:,} files",
            )

        def looked(sessions: int) -> None:
            if sessions % 10 == 0:
                bars.update(looking, visible=True, what=f"{sessions:,} sessions")

        yield Watch(read, looked)


def tell_nothing(sources: Sources, *, limited: bool) -> None:
    """What to say, and to do, where no call was found."""
    looked = [str(root) for _, roots in sources for root in roots]
    names = ", ".join(importer.name for importer, _ in sources)
    if looked and limited:
        click.echo(f"No calls of that time and project in {', '.join(looked)}. Try without --since and --project.")
    elif looked:
        click.echo(f"No calls were found in {', '.join(looked)} ({names}).")
    else:
        click.echo(f"No records of {names} on this machine: no such directory in the usual places.")
    if not limited:
        click.echo("Claude Code keeps its transcripts in ~/.claude/projects, or below CLAUDE_CONFIG_DIR.")
        click.echo("Elsewhere: tierwise analyze PATH. Other records: --source ledger, litellm, console or jsonl.")


_STYLES: Mapping[str, str] = {"green": "green", "yellow": "yellow", "cyan": "cyan", "bold": "bold", "dim": "dim"}


def print_lines(out: Console, lines: Sequence[Line]) -> None:
    """The lines of a report; what is in them is text and no markup."""
    from rich.text import Text

    for line in lines:
        out.print(Text.assemble(*((span.text, _STYLES.get(span.style, "")) for span in line)), soft_wrap=True)


def bar_of(out: Console) -> str:
    """What bars are made of: blocks where the terminal can show them."""
    try:
        "█".encode(out.encoding)
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"
