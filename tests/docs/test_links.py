"""Nothing in the documentation points nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import DOCS, PAGES, ROOT, anchors, links, name, spans


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    """Every link within the repository leads to a file, and to a heading of it."""
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_programs_that_are_named_exist(page: Path) -> None:
    """A command that starts a program of the repository, or make, names one that is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for span in spans(page):
        if match := re.match(r"python ((?:docs|benchmarks|examples)/\S+)", span):
            assert (ROOT / match[1]).is_file(), span
        if match := re.fullmatch(r"make ([a-z-]+)", span):
            assert match[1] in targets, span


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page under docs."""
    index = DOCS / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index) if ":" not in link}
    assert {page for page in DOCS.rglob("*.md") if page != index} == linked


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No page has a path of the author's machine in it."""
    for page in PAGES:
        assert not re.search(r"/(?:root|tmp|work|workspace)/|\.venv/lib", page.read_text("utf-8")), name(page)
