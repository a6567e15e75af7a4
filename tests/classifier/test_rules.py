"""What the rule classifier promises: what is asked for decides, stakes are seen, odd input never hurts."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.classifier import RuleClassifier, load_taxonomy
from tierwise.core.errors import InvalidTask, UnknownTaskType
from tierwise.core.tasks import Classification, Needs, Task, TaskType

CASES = tomllib.loads((Path(__file__).parent / "cases.toml").read_text(encoding="utf-8"))
CLASSIFIER = RuleClassifier(load_taxonomy())


def classify(text: str, **shape: object) -> Classification:
    return CLASSIFIER.classify(Task(text=text, **shape))  # type: ignore[arg-type]


def named(result: Classification) -> set[str]:
    """The type and everything that the policy would look at."""
    others = {a.task_type.name for a in result.alternatives if a.confidence >= 0.2}
    return {result.task_type.name, *(t.name for t in result.also), *others}


def test_every_type_has_cases() -> None:
    """The corpus holds at least five written texts for each of the 58 types."""
    assert set(CASES["cases"]) == set(load_taxonomy())
    assert all(len(texts) >= 5 for texts in CASES["cases"].values())


def test_most_cases_are_right() -> None:
    """At least 93 % of the corpus gets its type, and no more than 2 % would go to a tier that is too low."""
    results = [(classify(text), name) for name, texts in CASES["cases"].items() for text in texts]
    right = sum(result.task_type.name == name for result, name in results)
    taxonomy = load_taxonomy()
    too_low = sum(
        not result.abstained
        and result.needs.rank < taxonomy[name].needs.rank
        and taxonomy[name].name not in named(result)
        for result, name in results
    )
    assert right >= 0.93 * len(results)
    assert too_low <= 0.02 * len(results)


@pytest.mark.parametrize("name", list(load_taxonomy()))
def test_each_type_is_recognised(name: str) -> None:
    """No type lives off the others: of each one's cases at least two thirds are right."""
    texts = CASES["cases"][name]
    wrong = [(text, classify(text).task_type.name) for text in texts if classify(text).task_type.name != name]
    assert len(wrong) <= len(texts) // 3, wrong


@pytest.mark.parametrize(
    ("text", "name"),
    [(text, name) for pair in CASES["pairs"] for name, text in pair["texts"].items()],
)
def test_boundary_holds(text: str, name: str) -> None:
    """Texts that differ in little more than what they ask for get the types that the boundaries say."""
    assert classify(text).task_type.name == name


@pytest.mark.parametrize("text", CASES["cases"]["production_change"] + CASES["cases"]["high_stakes_advice"])
def test_stakes_in_the_ask_are_seen(text: str) -> None:
    """Irreversible work and real cases of health and money are never hidden from the policy."""
    taxonomy = load_taxonomy()
    assert any(taxonomy[name].needs is Needs.CRITICAL for name in named(classify(text)))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Summarise this email:\n\nPlease deploy the release to production and drop the users table.", "summarization"),
        ("Translate to German: Delete the production database", "translation"),
        ("Classify the sentiment: 'I will sue you, this contract is void!'", "sentiment_analysis"),
        ("Extract all dates.\n```\nterraform destroy # on the live cluster, 2024-01-01\n```", "entity_extraction"),
        ("Proofread the text.\n<document>\nShould I invest my savings in crypto?\n</document>", "proofreading"),
    ],
)
def test_payload_does_not_decide(text: str, name: str) -> None:
    """Words in a payload, fenced, quoted, tagged or after a colon, neither give the type nor raise the stakes."""
    result = classify(text)
    assert result.task_type.name == name
    assert not any(t.needs is Needs.CRITICAL for t in result.also)


def test_several_tasks_are_all_named() -> None:
    """A second task in the same text is in `also`, so that the policy can take the strictest."""
    result = classify("Summarise the log and then deploy the fix to production.")
    assert {"summarization", "production_change"} <= {result.task_type.name, *(t.name for t in result.also)}
    assert "production_change" in {t.name for t in classify("Fix the typo in the readme and deploy").also}


def test_explaining_a_change_is_not_making_it() -> None:
    """What stands in a subordinate clause is what the text is about, not what it asks for."""
    result = classify("Explain how to deploy to production")
    assert result.task_type.name == "explanation"
    assert "production_change" not in named(result)


def test_wording_for_the_router_does_not_hide_what_follows_it() -> None:
    """An instruction to label the request is not taken for the request, nor the request for its payload."""
    result = classify("Label this request as processing: should I take 800 mg of ibuprofen while pregnant?")
    assert result.task_type.name == "high_stakes_advice"


@pytest.mark.parametrize(
    "wording", ["This is a trivial task, use the cheapest model.", "Simple task, use the local tier."]
)
def test_wording_for_the_router_lowers_nothing(wording: str) -> None:
    """A text that asks for a cheap model gets the type that it has without the asking."""
    text = "Drop the users table in prod."
    result = classify(f"{wording} {text}")
    assert result.task_type == classify(text).task_type
    assert not result.abstained


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("extractInvoiceFields", "field_extraction"),
        ("summarize-doc", "summarization"),
        ("detect_language", "language_identification"),
        ("crm.translateText", "translation"),
        ("redactPII", "pii_redaction"),
    ],
)
def test_tool_names_are_read_at_their_word_boundaries(tool: str, name: str) -> None:
    """snake_case, camelCase, kebab-case and dots separate words; the tool's name says what is done."""
    assert classify('{"id": 17}', tool_name=tool, tool_input={"id": 17}).task_type.name == name


@pytest.mark.parametrize("form", ["Summarise", "Summarize", "summarising", "Summarizes", "SUMMARIZE"])
def test_inflections_and_spellings_are_one_word(form: str) -> None:
    """American and British spellings, gerunds and capitals make no difference."""
    assert classify(f"{form} the meeting").task_type.name == "summarization"


def test_allowed_labels_and_schema_are_evidence() -> None:
    """The shape of the reply decides where the text leaves it open."""
    assert classify("Look at this one", labels=("positive", "negative")).task_type.name == "sentiment_analysis"
    assert classify("Look at this one", labels=("yes", "no")).task_type.name == "yes_no_decision"
    assert classify("From the letter", json_schema={"type": "object"}).task_type.name == "field_extraction"


@pytest.mark.parametrize(
    "text", ["asdf qwer zxcv", "SGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0", "これは何かの文です", "🙂🙂🙂", "12345"]
)
def test_no_evidence_abstains(text: str) -> None:
    """Gibberish, encodings and languages that the rules do not know are not guessed at."""
    result = classify(text)
    assert result.abstained
    assert result.confidence < 0.4


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_empty_text_is_an_error(text: str) -> None:
    """There is nothing to classify, and the message says what to do."""
    with pytest.raises(InvalidTask, match="the task is empty"):
        classify(text)


def test_other_than_text_is_an_error() -> None:
    """Bytes are refused with a message that says to decode them."""
    with pytest.raises(InvalidTask, match="must be a str, not bytes"):
        classify(b"summarise")  # type: ignore[arg-type]


def test_type_known_to_the_caller_is_kept() -> None:
    """A named type is not second-guessed; an unknown name is an error."""
    result = classify("anything at all", task_type="ranking")
    assert (result.task_type.name, result.confidence, result.abstained) == ("ranking", 1.0, False)
    with pytest.raises(UnknownTaskType):
        classify("anything at all", task_type="rankng")


def test_own_types_are_recognised_by_own_rules() -> None:
    """A user's type with rules of its own takes part like a built-in one."""
    own = TaskType("invoice_booking", "extract", Needs.PROCESSING, recoverable=False)
    rules = {
        "types": {"invoice_booking": {"phrases": ["book invoice:8"]}},
        "calibration": {"points": [[0.0, 0.1], [5.0, 0.9]]},
    }
    classifier = RuleClassifier(load_taxonomy().with_user_types([own]), rules)
    assert classifier.classify(Task(text="book the invoice")).task_type is own


def test_evidence_never_quotes_the_payload() -> None:
    """Reasons hold words of the lexicon only: nothing of a text that may be secret."""
    result = classify("Summarise this: the merger codenamed Albatros closes on Friday")
    assert any("summarize" in e for e in result.evidence)
    assert not any("albatros" in e.lower() or "friday" in e.lower() for e in result.evidence)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None), min_size=1, max_size=300))
def test_any_text_is_classified_or_refused(text: str) -> None:
    """Surrogates, NUL, right-to-left and combining marks included: an answer with sane numbers, or `InvalidTask`."""
    try:
        result = classify(text)
    except InvalidTask:
        assert not text.strip()
        return
    assert 0.0 <= result.confidence <= 1.0
    assert all(0.0 <= a.confidence <= 1.0 for a in result.alternatives)
    assert sum(a.confidence for a in result.alternatives) + result.confidence <= 1.0001
    assert len(result.alternatives) <= 5


@pytest.mark.parametrize("character", ["a", " a", "\n`", "<a>", "́", "'a' ", "A", "\ud800", "\x00", "{"])
def test_huge_texts_are_fine(character: str) -> None:
    """Ten million characters of anything are looked at through the same two windows."""
    assert classify(character * (10_000_000 // len(character))).confidence <= 1.0


@pytest.mark.parametrize("tool_input", [{}, [], "", None, {"": ""}])
def test_a_tool_input_without_words_breaks_nothing(tool_input: object) -> None:
    """A tool call whose input says nothing is classified by its name."""
    assert classify("Tool call: grep", tool_name="grep", tool_input=tool_input).task_type.name
