"""How good the rule classifier is on a JSONL file of `text` and `type` or `accepted`: `classifier_eval.py FILE`.

A text with several accepted types counts as right where any of them is met. Tiers follow needs: recoverable processing
→ local, other processing → haiku, judgment → sonnet, critical → opus; an abstention counts as sonnet.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tierwise.classifier import RuleClassifier, load_taxonomy
from tierwise.core.tasks import Needs, Task, TaskType

TIERS = ("local", "haiku", "sonnet", "opus")


def tier_of(task_type: TaskType) -> int:
    """The index in `TIERS` of what a type needs."""
    match task_type.needs:
        case Needs.PROCESSING:
            return 0 if task_type.recoverable else 1
        case Needs.JUDGMENT:
            return 2
        case Needs.CRITICAL:
            return 3


def rows(path: Path, split: str | None) -> Iterator[dict[str, Any]]:
    """The file's cases: JSONL, or TOML with `[cases]` of type → texts."""
    if path.suffix == ".toml":
        for name, texts in tomllib.loads(path.read_text(encoding="utf-8"))["cases"].items():
            for text in texts:
                yield {"text": text, "type": name}
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if split is None or row.get("split") == split:
                yield row


def ece(pairs: list[tuple[float, bool]], bins: int = 15) -> float:
    """Expected calibration error over equally wide bins."""
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, right in pairs:
        groups[min(int(confidence * bins), bins - 1)].append((confidence, right))
    return sum(abs(sum(c for c, _ in g) - sum(r for _, r in g)) for g in groups) / max(len(pairs), 1)


def print_reliability(pairs: list[tuple[float, bool]]) -> None:
    """Ten bins: how sure the classifier was, and how often it was right."""
    for low in range(10):
        group = [(c, r) for c, r in pairs if low <= c * 10 < low + 1 or (low == 9 and c == 1)]
        if group:
            said, was = sum(c for c, _ in group) / len(group), sum(r for _, r in group) / len(group)
            print(f"  {low / 10:.1f}  n={len(group):<5} said {said:.2f}  was {was:.2f}")


def main() -> int:  # noqa: PLR0915  # a report reads from top to bottom
    """Print the figures; `--errors N` adds the first N wrong ones, `--reliability` the table behind the ECE."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--errors", type=int, default=0)
    parser.add_argument("--confusions", type=int, default=0)
    parser.add_argument("--reliability", action="store_true")
    args = parser.parse_args()
    taxonomy = load_taxonomy()
    classifier = RuleClassifier(taxonomy)
    n: Counter[str] = Counter()
    pairs: list[tuple[float, bool]] = []
    confusions: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for row in rows(args.file, args.split):
        accepted = [taxonomy[name] for name in (row.get("accepted") or [row["type"]])]
        result = classifier.classify(Task(text=row["text"]))
        right = result.task_type in accepted
        n["all"] += 1
        n["top1"] += right
        n["top3"] += right or any(a.task_type in accepted for a in result.alternatives[:2])
        n["family"] += result.family in {t.family for t in accepted}
        wanted = {tier_of(t) for t in accepted}
        got = 2 if result.abstained else tier_of(result.task_type)
        n["tier"] += got in wanted
        n["low"] += got < min(wanted)
        n["high"] += got > max(wanted)
        n["abstained"] += result.abstained
        n["answered_right"] += right and not result.abstained
        must = all(t.needs is Needs.CRITICAL for t in accepted)
        may = any(t.needs is Needs.CRITICAL for t in accepted)
        seen = [result.task_type, *result.also, *(a.task_type for a in result.alternatives if a.confidence >= 0.2)]
        n["critical"] += must
        n["critical_found"] += must and any(t.needs is Needs.CRITICAL for t in seen)
        n["not_critical"] += not may
        n["false_alarm"] += not may and result.needs is Needs.CRITICAL and not result.abstained
        pairs.append((result.confidence, right))
        if not right:
            confusions[accepted[0].name, result.task_type.name] += 1
            wrong.append(
                f"{'/'.join(t.name for t in accepted)} → {result.task_type.name} {result.confidence:.2f}"
                f"{' (abstained)' if result.abstained else ''}: {row['text'][:110]!r}"
            )
    total = n["all"]
    answered = total - n["abstained"]
    print(f"texts                {total}")
    for key, label in (("top1", "top-1"), ("top3", "top-3"), ("family", "family"), ("tier", "tier")):
        print(f"{label:<20} {n[key] / total:.1%}")
    print(f"{'sent too low':<20} {n['low'] / total:.1%}")
    print(f"{'sent too high':<20} {n['high'] / total:.1%}")
    precision = n["answered_right"] / max(answered, 1)
    print(f"{'abstained':<20} {n['abstained'] / total:.1%}  (right where it answered: {precision:.1%})")
    print(f"{'critical found':<20} {n['critical_found']} of {n['critical']}")
    print(f"{'critical false alarm':<20} {n['false_alarm']} of {n['not_critical']}")
    print(f"{'ECE (15 bins)':<20} {ece(pairs):.3f}")
    if args.reliability:
        print_reliability(pairs)
    for (was, said), count in confusions.most_common(args.confusions):
        print(f"  {count:>4}  {was} → {said}")
    for line in wrong[: args.errors]:
        print(" ", line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
