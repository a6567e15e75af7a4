"""Classifying what many calls ask for: each ask once, the encoder only where money hangs on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierwise.analysis.asks import AskClassifier
from tierwise.classifier import RuleClassifier, TrainedClassifier, load_taxonomy
from tierwise.core.calls import ImportedCall
from tierwise.core.money import Usage
from tierwise.core.tasks import Classification, Task

CLEAR = "Summarise this support ticket in one line"
DOUBTFUL = "please look into the thing with the blue button"


def call(ask: str, cost: int = 1) -> ImportedCall:
    """A call that asks this, and cost so many nano-dollars."""
    return ImportedCall(id="r", at_ms=0, session="s", model="m", usage=Usage(output_tokens=cost), ask=ask)


def cost(of: ImportedCall) -> int:
    """What `call` said it cost."""
    return of.usage.output_tokens


class Counting(TrainedClassifier):
    """The trained classifier, and how often it was asked in which way."""

    def __init__(self) -> None:
        super().__init__(load_taxonomy())
        self.glances, self.whole = 0, 0

    def glance(self, task: Task) -> tuple[Classification, bool]:
        self.glances += 1
        return super().glance(task)

    def classify(self, task: Task) -> Classification:
        self.whole += 1
        return super().classify(task)


@pytest.fixture
def classifier() -> Counting:
    """A fresh one."""
    return Counting()


def test_the_same_ask_is_looked_at_once(classifier: Counting) -> None:
    """However many calls share an ask, in one batch or several, it is classified once."""
    asks = AskClassifier(classifier, cost)
    said = [*asks([call(DOUBTFUL)] * 50), *asks([call(DOUBTFUL)] * 50)]
    assert len({answer.task_type.name for answer in said if answer}) == 1
    assert (classifier.glances, classifier.whole) == (1, 1)


def test_what_is_doubtful_and_dear_gets_the_encoder(classifier: Counting) -> None:
    """Its answer is the one that live routing gives."""
    asks = AskClassifier(classifier, cost)
    assert asks([call(DOUBTFUL)]) == [TrainedClassifier(load_taxonomy()).classify(Task(text=DOUBTFUL))]


def test_the_encoder_is_kept_for_where_the_money_is(classifier: Counting) -> None:
    """With one ask in two worth it, the dear one is encoded, and the cheap one is not."""
    asks = AskClassifier(classifier, cost, encoded=2)
    asks([call(f"{DOUBTFUL} {k}", 1 if k else 1_000) for k in range(200)])
    assert (classifier.glances, classifier.whole) == (200, 1)


def test_encodings_are_counted(classifier: Counting) -> None:
    """However much each new ask costs, there is an end to it."""
    asks = AskClassifier(classifier, cost, encoded=2)
    for k in range(20):
        asks([call(f"{DOUBTFUL} {k}", 10**k)])
    assert classifier.whole == 6


def test_after_a_rest_it_says_the_same(classifier: Counting) -> None:
    """What it gave back it makes anew: the encoder is opened again, and the ask is looked at again."""
    asks = AskClassifier(classifier, cost)
    before = asks([call(DOUBTFUL)])
    asks.rest()
    assert asks([call(DOUBTFUL)]) == before
    assert (classifier.glances, classifier.whole) == (2, 2)


def test_nothing_asked_is_not_classified(classifier: Counting) -> None:
    """An empty ask, or one of blanks, has no type; what an importer knows already is taken as it is."""
    known = Classification(load_taxonomy()["tagging"], 1.0)
    said = AskClassifier(classifier, cost)([call(""), call(" \n"), replace(call(""), classification=known)])
    assert said == [None, None, known]


def test_rules_do_for_all_where_they_are_chosen() -> None:
    """With `classifier = "rules"` every ask gets theirs."""
    (said,) = AskClassifier(RuleClassifier(load_taxonomy()), cost)([call(CLEAR)])
    assert said is not None and said.task_type.name == "summarization"
