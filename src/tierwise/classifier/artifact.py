"""The trained classifier's files: found, checked, loaded. No pickle anywhere.

`manifest.json` names the task types, the weights and thresholds that were fitted, and the SHA-256 of every other file.
A damaged, incomplete or newer artifact is refused with a message, never half used.

However many routers a process has, it has the models once, for as long as one of them uses them: they take 45 MB and a
few tenths of a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, WeakValueDictionary, ref

from tierwise.classifier.wordpiece import WordPiece
from tierwise.core.errors import ConfigError

__all__ = [
    "Artifact",
    "Encoder",
    "NgramModel",
    "encoder_of",
    "load_artifact",
    "open_encoder",
    "shipped_artifact",
    "shipped_folder",
]

SCHEMA = 2
_NUMBERS = (
    "encoder_weight",
    "ngram_weight",
    "rules_weight",
    "fast_weight",
    "fast_above",
    "fast_critical_below",
    "abstain_below",
)


@dataclass(frozen=True, slots=True)
class NgramModel:
    """A linear model over n-grams: `index` gives a term's row of `weights` (8-bit, times `scale`); then `biases`."""

    index: Mapping[str, int]
    weights: Any  # int8, terms × types
    scale: float
    biases: Any  # float32, types


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Artifact:
    """What was trained, without the encoder, which is opened when a text first needs it."""

    folder: Path
    types: tuple[str, ...]
    ngrams: NgramModel
    # Weights of the models' scores; with them a confidence is a frequency.
    encoder_weight: float
    ngram_weight: float
    rules_weight: float
    fast_weight: float  # of the n-gram model's scores where it decides alone
    fast_above: float  # it decides alone from this confidence on,
    fast_critical_below: float  # where critical work is no likelier than this
    abstain_below: float
    detector: tuple[float, float, float]  # weights of its score and of the critical types' mass, bias
    head_tokens: int
    tail_tokens: int
    metrics: Mapping[str, Any]
    digests: Mapping[str, str]  # SHA-256 of every file, by name


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Encoder:
    """The ONNX session, which several threads may run at once, and the tokenizer of its texts."""

    session: Any
    tokenizer: WordPiece


_sharing = threading.Lock()
_artifacts: WeakValueDictionary[Path, Artifact] = WeakValueDictionary()
_encoders: WeakKeyDictionary[Artifact, ReferenceType[Encoder]] = WeakKeyDictionary()


def shipped_artifact() -> Artifact:
    """That of this package, the same for all who have it at a time. Raises as `load_artifact`."""
    folder = shipped_folder()
    with _sharing:
        found = _artifacts.get(folder)
        if found is None:
            found = _artifacts[folder] = load_artifact(folder)
        return found


def encoder_of(artifact: Artifact) -> Encoder:
    """Its encoder, the same for all who have it at a time. Raises as `open_encoder`."""
    with _sharing:
        known = _encoders.get(artifact)
        found = None if known is None else known()
        if found is None:
            found = open_encoder(artifact)
            _encoders[artifact] = ref(found)
        return found


def shipped_folder() -> Path:
    """Where the artifact of this package lies."""
    return Path(str(files("tierwise") / "data" / "classifier"))


def load_artifact(folder: Path) -> Artifact:
    """Reads and checks an artifact; the encoder is only checked when it is opened.

    Raises:
        ConfigError: missing, damaged or newer than this version; says what to do.
    """
    import numpy as np  # noqa: PLC0415  80 ms: not for `--help`

    manifest = _manifest(folder)
    digests = manifest.get("files", {})
    weights_path, terms_path = _checked(folder, "ngrams.npz", digests), _checked(folder, "ngrams.txt", digests)
    try:
        arrays = np.load(weights_path, allow_pickle=False)
        terms = _lines(terms_path)
        weights, scale, biases = arrays["weights"], float(arrays["scale"]), arrays["biases"]
        types = tuple(manifest["types"])
        if weights.shape != (len(terms), len(types)) or biases.shape != (len(types),):
            raise ValueError("the arrays do not fit the vocabulary and the types")
        return Artifact(
            folder=folder,
            types=types,
            ngrams=NgramModel({term: k for k, term in enumerate(terms)}, weights, scale, biases),
            metrics=manifest.get("metrics", {}),
            digests=digests,
            head_tokens=int(manifest["head_tokens"]),
            tail_tokens=int(manifest["tail_tokens"]),
            detector=_three(manifest["detector"]),
            **{name: float(manifest[name]) for name in _NUMBERS},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the classifier in {folder} is damaged ({error}); reinstall tierwise") from None


def open_encoder(artifact: Artifact) -> Encoder:
    """Opens the encoder, which takes one thread for a text.

    Raises:
        ConfigError: damaged, or the packages that run it are missing.
    """
    model = _checked(artifact.folder, "encoder.onnx", artifact.digests)
    vocabulary = _checked(artifact.folder, "vocab.txt", artifact.digests)
    try:
        onnxruntime = _onnxruntime()
    except ImportError as error:
        raise ConfigError(f"the classifier needs {error.name}: pip install {error.name}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a few milliseconds: handing pieces to threads costs more, and starves others
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # From its path: handed over as bytes, the model would stay in memory twice.
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return Encoder(session, WordPiece(_lines(vocabulary)))


def _onnxruntime() -> Any:
    """onnxruntime, kept from telling its makers of its use: nothing leaves this machine, and nothing is left on it.

    Since 1.32 it looks for a variable when it is imported, then writes an id of the machine below the home directory.
    The variable is for this import only: who runs us may want another thing. Where it was imported before us, what it
    would send is at least turned off.
    """
    name = "ORT_DISABLE_TELEMETRY"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import onnxruntime  # noqa: PLC0415  50 ms and 20 MB: only for texts that need it
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")[:-1]


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except OSError as error:
        raise ConfigError(f"there is no classifier in {folder} ({error.strerror}); reinstall tierwise") from None
    except ValueError as error:
        raise ConfigError(f"{folder / 'manifest.json'} is damaged ({error}); reinstall tierwise") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"the classifier in {folder} has schema {schema!r}, this version reads {SCHEMA}; "
            "upgrade tierwise, or train it anew with `make train`"
        )
    return dict(manifest)


def _checked(folder: Path, name: str, digests: Mapping[str, str]) -> Path:
    """A file of the artifact, known to be what was trained. It is hashed in pieces: whole, it would leave its size."""
    path = folder / name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"the classifier lacks {path} ({error.strerror}); reinstall tierwise") from None
    if digest != digests.get(name):
        raise ConfigError(f"{path} is damaged: it is not what was trained; reinstall tierwise")
    return path
