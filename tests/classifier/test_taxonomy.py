"""The task types as data: how many, which are critical, and what happens to a name that is none of them."""

from collections import Counter

import pytest

from tierwise.classifier.taxonomy import load_taxonomy
from tierwise.core.errors import ConfigError, UnknownTaskType
from tierwise.core.tasks import Needs, TaskType

FAMILIES = {
    "classify": 8,
    "extract": 5,
    "transform": 9,
    "check": 7,
    "answer": 4,
    "reason": 7,
    "create": 4,
    "code": 9,
    "critical": 5,
}
OWN = TaskType("invoice_booking", "extract", Needs.PROCESSING, recoverable=False)


def test_has_58_types_in_nine_families() -> None:
    """The data holds the whole table: every family, in order, with as many types as it lists."""
    taxonomy = load_taxonomy()
    assert len(taxonomy) == 58
    assert taxonomy.families == tuple(FAMILIES)
    assert Counter(t.family for t in taxonomy.values()) == FAMILIES
    assert [t.name for t in taxonomy.values() if t.family == "check"][:2] == ["schema_validation", "rule_checking"]


def test_needs_follow_the_table() -> None:
    """Five types are critical and never recoverable; fact checking is the one judgment among the checks."""
    taxonomy = load_taxonomy()
    assert Counter(t.needs for t in taxonomy.values()) == {
        Needs.PROCESSING: 30,
        Needs.JUDGMENT: 23,
        Needs.CRITICAL: 5,
    }
    assert all(t.family == "critical" and not t.recoverable for t in taxonomy.values() if t.needs is Needs.CRITICAL)
    checks = [t for t in taxonomy.values() if t.family == "check"]
    assert [t.name for t in checks if t.needs is Needs.JUDGMENT] == ["fact_checking"]
    assert not taxonomy["pii_redaction"].recoverable
    assert all(t.description for t in taxonomy.values())


def test_unknown_name_lists_near_matches() -> None:
    """A misspelt type is an error that names what was probably meant."""
    with pytest.raises(UnknownTaskType, match="summarization"):
        load_taxonomy().get("sumarisation")
    with pytest.raises(UnknownTaskType, match="unknown task type 'qqqq'"):
        load_taxonomy()["qqqq"]


def test_user_types_come_after_the_built_in_ones() -> None:
    """A user adds types without changing the shared taxonomy, and cannot take a name that is in use."""
    taxonomy = load_taxonomy()
    extended = taxonomy.with_user_types([OWN])
    assert list(extended)[-1] == "invoice_booking"
    assert "invoice_booking" in extended
    assert "invoice_booking" not in taxonomy
    with pytest.raises(ConfigError, match="declared twice"):
        extended.with_user_types([OWN])
