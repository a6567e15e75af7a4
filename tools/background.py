"""Writes the texts of the corpus that are shipped, for whoever teaches the classifier a type of their own.

    python tools/background.py          writes src/tierwise/data/classifier/background.jsonl.gz
    python tools/background.py --check  exit status 1 where that file is not what would be written

A type is learned from its examples against texts of every other type. Those are the same number of rows of each type,
of the train split only, those whose text has the smallest digest: a new row of the corpus replaces few of them, and
no text of the test split can get into anybody's training.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from corpus import Row, Split, assign, known_types, load  # noqa: E402  the script's own folder comes first
from tierwise.classifier.features import shown  # noqa: E402

OUT = ROOT / "src" / "tierwise" / "data" / "classifier" / "background.jsonl.gz"
ROWS_A_TYPE = 12


def choose(rows: list[Row]) -> list[Row]:
    """The rows that are shipped, type by type in the taxonomy's order."""
    by_type: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_type[row.type].append(row)
    return [
        row
        for name in known_types()
        for row in sorted(by_type[name], key=lambda row: hashlib.sha256(row.text.encode()).digest())[:ROWS_A_TYPE]
    ]


def content() -> bytes:
    """The file's lines: what the classifier would see of each text, and its type."""
    rows = load()
    chosen = choose([row for row, split in zip(rows, assign(rows), strict=True) if split is Split.TRAIN])
    lines = (json.dumps({"text": shown(row.text), "type": row.type}, ensure_ascii=False) + "\n" for row in chosen)
    return "".join(lines).encode()


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if OUT.is_file() and gzip.decompress(OUT.read_bytes()) == content():
            return 0
        print(f"{OUT} is out of date; run `python tools/background.py`", file=sys.stderr)
        return 1
    OUT.write_bytes(gzip.compress(content(), 9, mtime=0))
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
