"""What kind of work a text asks for: type, calibrated confidence, alternatives, abstention.

`Classifier` is the interface; `choose_classifier` gives the one to use, trained or rules; `Taxonomy` is the
task types as data.
"""

from tierwise.classifier.base import Classifier
from tierwise.classifier.choose import choose_classifier
from tierwise.classifier.rules import RuleClassifier
from tierwise.classifier.taxonomy import Taxonomy, load_taxonomy
from tierwise.classifier.trained import TrainedClassifier

__all__ = ["Classifier", "RuleClassifier", "Taxonomy", "TrainedClassifier", "choose_classifier", "load_taxonomy"]
