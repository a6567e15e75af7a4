"""What kind of work a text asks for: type, calibrated confidence, alternatives, abstention.

`Classifier` is the interface; `RuleClassifier` the first implementation; `Taxonomy` the task types as data.
"""

from tierwise.classifier.base import Classifier
from tierwise.classifier.rules import RuleClassifier
from tierwise.classifier.taxonomy import Taxonomy, load_taxonomy

__all__ = ["Classifier", "RuleClassifier", "Taxonomy", "load_taxonomy"]
