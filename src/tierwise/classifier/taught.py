"""Where what a user taught the classifier is kept, and how it is learned again.

A folder `tierwise.types` beside a tierwise.toml holds the examples of each own type (`NAME.jsonl`, one text a line),
and what was learned: `learned-….npz`, and `manifest.json`, which names it with its SHA-256, the schema, and the
encoder that it belongs to. No pickle. What is damaged, newer, or of another encoder is refused with a message, never
half used.

Writers hold a lock on the folder. Readers need none: the manifest is replaced as a whole, last, and names a file that
was complete before.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tierwise.classifier.artifact import Artifact, shipped_artifact
from tierwise.classifier.features import shown
from tierwise.classifier.learned import BUCKETS, Correction, Lesson, Taught, lesson_features
from tierwise.classifier.learning import Fit, Quality, fit_type
from tierwise.classifier.taxonomy import Taxonomy, load_taxonomy
from tierwise.classifier.trained import Scored, TrainedClassifier
from tierwise.core.errors import ConfigError, InvalidTask

if sys.platform != "win32":
    import fcntl

__all__ = [
    "FEWEST_EXAMPLES",
    "Examples",
    "Stored",
    "TypesFolder",
    "background",
    "encoded_background",
    "learn_types",
    "load_taught",
    "parse_examples",
    "relearn",
    "untaught_classifier",
]

SCHEMA = 1
FEWEST_EXAMPLES = 5
_MOST_EXAMPLES = 2_000
_MOST_BYTES = 8 * 1024 * 1024
_MOST_MANIFEST_BYTES = 1024 * 1024
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_MANIFEST = "manifest.json"
_SURE = 0.5
_AGAIN = "`tierwise types relearn` learns it anew from the examples"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a folder's `learned` file holds."""

    encoder: str  # SHA-256 of the encoder whose vectors it is learned over
    fits: Mapping[str, Fit] = field(default_factory=dict)  # by own type
    correction: Correction | None = None
    feedback: int = 0  # texts that the correction was learned from


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a file, as the classifier sees them."""

    texts: tuple[str, ...]
    duplicates: int  # left out


class TypesFolder:
    """The folder beside a configuration file. It need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps other writers out while the block runs (not on Windows)."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.path} ({error.strerror}); check its permissions") from None
        try:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def names(self) -> tuple[str, ...]:
        """The own types that have examples here, by name."""
        try:
            found = [path.stem for path in self.path.iterdir() if path.suffix == ".jsonl"]
        except OSError:
            return ()
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))

    def examples(self, name: str) -> Examples:
        """The examples of a type. Raises `ConfigError` where they cannot be used."""
        path = self.path / f"{name}.jsonl"
        try:
            return parse_examples(path.read_bytes(), str(path))
        except OSError as error:
            raise ConfigError(f"cannot read {path} ({error.strerror})") from None
        except InvalidTask as error:
            raise ConfigError(f"{error}; mend the file, or `tierwise types remove {name}`") from None

    def keep_examples(self, name: str, examples: Examples) -> None:
        """Writes the examples of a type in place of those that were there."""
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in examples.texts)
        _put(self.path / f"{name}.jsonl", "".join(lines).encode("utf-8", "backslashreplace"))

    def drop_examples(self, name: str) -> None:
        """Removes the examples of a type, if there are any."""
        (self.path / f"{name}.jsonl").unlink(missing_ok=True)

    def read(self) -> Stored | None:
        """What was learned; None where nothing was.

        Raises:
            ConfigError: damaged, or newer than this version; says what to do.
        """
        seen: bytes | None = None
        while True:
            manifest = self._manifest()
            if manifest is None:
                return None
            try:
                return self._stored(manifest)
            except FileNotFoundError as error:
                # Replaced between the two reads, if there is another manifest now.
                if manifest == seen:
                    raise ConfigError(f"{self.path} is damaged: {error.filename} is missing; {_AGAIN}") from None
                seen = manifest

    def _manifest(self) -> bytes | None:
        try:
            with (self.path / _MANIFEST).open("rb") as file:
                return file.read(_MOST_MANIFEST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {self.path / _MANIFEST}: {error.strerror}") from None

    def _stored(self, manifest: bytes) -> Stored:
        import numpy as np  # noqa: PLC0415

        try:
            plain = json.loads(manifest)
            schema = plain["schema"]
            if isinstance(schema, int) and schema > SCHEMA:
                raise ConfigError(
                    f"{self.path} has schema {schema}, and this version reads {SCHEMA}: a newer tierwise wrote it; "
                    f"upgrade tierwise, or move the folder away"
                )
            if schema != SCHEMA or not re.fullmatch(r"learned-[0-9a-f]{16}\.npz", plain["file"]):
                raise ValueError("not a manifest")
            data = (self.path / plain["file"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != plain["sha256"]:
                raise ValueError(f"{plain['file']} is not what was learned")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return _stored(plain, {name: arrays[name] for name in arrays.files})
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError) as error:
            raise ConfigError(f"{self.path} is damaged ({error}); {_AGAIN}") from None

    def write(self, stored: Stored) -> None:
        """Puts what was learned in place of what was there; call it `locked`."""
        import numpy as np  # noqa: PLC0415

        names = list(stored.fits)
        arrays: dict[str, Any] = {}
        if names:
            arrays["weights"] = np.stack([stored.fits[name].weights for name in names])
            arrays["biases"] = np.array([stored.fits[name].bias for name in names], np.float32)
        if stored.correction is not None:
            arrays["correction_weights"] = stored.correction.weights
            arrays["correction_biases"] = stored.correction.biases
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        name = f"learned-{digest[:16]}.npz"
        manifest = {
            "schema": SCHEMA,
            "encoder": stored.encoder,
            "file": name,
            "sha256": digest,
            "types": [
                {
                    "name": own,
                    "examples": fit.quality.examples,
                    "recall": fit.quality.recall,
                    "false_alarms": fit.quality.false_alarms,
                    "near": [list(pair) for pair in fit.quality.near],
                    "resembles": [list(pair) for pair in fit.quality.resembles],
                }
                for own, fit in stored.fits.items()
            ],
            "correction": None
            if stored.correction is None
            else {"types": list(stored.correction.types), "feedback": stored.feedback},
        }
        try:
            _put(self.path / name, data)
            _put(self.path / _MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
            for old in self.path.glob("learned-*.npz"):
                if old.name != name:
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.path} ({error.strerror}); check its permissions") from None


def _stored(plain: Mapping[str, Any], arrays: Mapping[str, Any]) -> Stored:
    """Checked: whatever is wrong is an error of Python's own, which the caller explains."""
    rows = list(plain["types"])
    fits: dict[str, Fit] = {}
    if rows:
        weights, biases = _checked(arrays["weights"], len(rows), 2), _checked(arrays["biases"], len(rows), 1)
        for k, row in enumerate(rows):
            quality = Quality(
                int(row["examples"]),
                float(row["recall"]),
                float(row["false_alarms"]),
                tuple((str(near), int(count)) for near, count in row["near"]),
                tuple((str(known), int(count)) for known, count in row["resembles"]),
            )
            fits[str(row["name"])] = Fit(weights[k], float(biases[k]), quality)
    correction = None
    given = plain["correction"]
    if given is not None:
        types = tuple(map(str, given["types"]))
        correction = Correction(
            types,
            _checked(arrays["correction_weights"], len(types), 2),
            _checked(arrays["correction_biases"], len(types), 1),
        )
    return Stored(str(plain["encoder"]), fits, correction, 0 if given is None else int(given["feedback"]))


def _checked(array: Any, rows: int, dimensions: int) -> Any:
    import numpy as np  # noqa: PLC0415

    if array.ndim != dimensions or len(array) != rows or (dimensions == 2 and array.shape[1] <= BUCKETS):
        raise ValueError("the arrays do not fit the types")
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise ValueError("the arrays hold something other than numbers")
    return array


def _put(path: Path, data: bytes) -> None:
    """The whole file or none of it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp makes it private; it goes with a project's configuration
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


# ------------------------------------------------------------------ use


def load_taught(folders: Iterable[Path], taxonomy: Taxonomy, artifact: Artifact) -> Taught | None:
    """What was taught in these folders, the last one going first; None where nothing was.

    Types that are not declared (any more) are left out.

    Raises:
        ConfigError: a folder is damaged, newer, or was learned with another encoder; says what to do.
    """
    lessons: dict[str, Lesson] = {}
    correction: Correction | None = None
    for path in folders:
        stored = TypesFolder(path).read()
        if stored is None:
            continue
        if stored.encoder != artifact.digests.get("encoder.onnx"):
            raise ConfigError(f"{path} was learned with another version of the classifier; {_AGAIN}")
        for name, fit in stored.fits.items():
            if name in taxonomy and name not in artifact.types:
                lessons[name] = Lesson(taxonomy[name], fit.weights, fit.bias)
        correction = stored.correction or correction
    if not lessons and correction is None:
        return None
    return Taught([taxonomy[name] for name in artifact.types], tuple(lessons.values()), correction)


# ------------------------------------------------------------------ learning


@cache
def untaught_classifier() -> TrainedClassifier:
    """The shipped classifier as it is, to learn on top of; loaded once.

    Raises:
        ConfigError: it cannot run here, or its files are missing or damaged.
    """
    if not importlib.util.find_spec("onnxruntime"):
        raise ConfigError("only the trained classifier can be taught, and it cannot run here: pip install onnxruntime")
    return TrainedClassifier(load_taxonomy(), shipped_artifact())


@lru_cache(maxsize=1)
def encoded_background(classifier: TrainedClassifier) -> Mapping[str, Scored]:
    """What the classifier says of each text of the background, in its order; takes seconds, and is kept."""
    return {text: classifier.encode(text) for text, _ in background()}


@cache
def background() -> tuple[tuple[str, str], ...]:
    """Texts of the corpus, as the classifier sees them, with their types: what an own type is told from."""
    path = files("tierwise") / "data" / "classifier" / "background.jsonl.gz"
    try:
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        return tuple((row["text"], row["type"]) for row in rows)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is missing or damaged ({error}); reinstall tierwise") from None


def learn_types(classifier: TrainedClassifier, examples: Mapping[str, Sequence[str]]) -> dict[str, Fit]:
    """Learns own types from their examples, against the background and against each other."""
    import numpy as np  # noqa: PLC0415

    if not examples:
        return {}

    labels = [name for _, name in background()]
    rest = np.array([lesson_features(text, scored.vector) for text, scored in encoded_background(classifier).items()])
    scored = {name: {text: classifier.encode(text) for text in given} for name, given in examples.items()}
    own = {
        name: np.array([lesson_features(text, said.vector) for text, said in given.items()])
        for name, given in scored.items()
    }
    fits = {
        name: fit_type(
            given,
            np.concatenate([rest, *(others for other, others in own.items() if other != name)]),
            [*labels, *(other for other, others in own.items() if other != name for _ in others)],
        )
        for name, given in own.items()
    }
    return {
        name: replace(fit, quality=_resembling(fit.quality, scored[name], classifier)) for name, fit in fits.items()
    }


def _resembling(quality: Quality, scored: Mapping[str, Scored], classifier: TrainedClassifier) -> Quality:
    """The same, with what the shipped classifier would take the examples for where it is sure."""
    said = (classifier.conclude(one) for one in scored.values())
    counts = Counter(one.task_type.name for one in said if one.confidence >= _SURE and not one.abstained)
    return replace(quality, resembles=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def relearn(
    folder: TypesFolder, names: Iterable[str], classifier: TrainedClassifier, new: Mapping[str, Examples] | None = None
) -> Stored:
    """What a folder's examples of these types teach; a correction that still fits is kept. Writes nothing.

    Args:
        folder: where the examples are.
        names: the types that are declared; those without examples stay untaught.
        classifier: the shipped one, untaught.
        new: examples in place of the folder's.
    """
    declared = frozenset(names)
    examples = {
        name: folder.examples(name).texts for name in folder.names() if name in declared and name not in (new or {})
    }
    examples |= {name: given.texts for name, given in (new or {}).items()}
    encoder = classifier.artifact.digests["encoder.onnx"]
    try:
        before = folder.read()
    except ConfigError:
        before = None  # damaged: that is what it is learned anew for
    fits = learn_types(classifier, dict(sorted(examples.items())))
    if before is None or before.encoder != encoder:
        return Stored(encoder, fits)
    return replace(before, fits=fits)


def parse_examples(data: bytes, where: str) -> Examples:
    """The examples of a file: one text a line, or JSON Lines with `text`.

    Raises:
        InvalidTask: it is too long, no text, holds something else than examples, or fewer than five.
    """
    if len(data) > _MOST_BYTES:
        raise InvalidTask(f"{where} has more than {_MOST_BYTES // 2**20} MB; a few dozen examples are enough")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidTask(f"{where} is not UTF-8 (byte {error.start}); give one text a line, or JSON Lines") from None
    if "\x00" in content:
        raise InvalidTask(f"{where} is not a text file; give one text a line, or JSON Lines")
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    as_json = bool(lines) and lines[0][1].lstrip().startswith("{")
    found: dict[str, None] = {}
    for number, line in lines:
        text = shown(_json_text(line, f"{where}, line {number}") if as_json else line)
        if text:
            found[text] = None
    if len(found) < FEWEST_EXAMPLES:
        raise InvalidTask(
            f"{where} has {len(found)} different example{'' if len(found) == 1 else 's'}; a type needs at least "
            f"{FEWEST_EXAMPLES}, and a dozen that differ from each other are much better"
        )
    if len(found) > _MOST_EXAMPLES:
        raise InvalidTask(f"{where} has {len(found):,} examples; give at most {_MOST_EXAMPLES:,}, as varied as you can")
    return Examples(tuple(found), len(lines) - len(found))


def _json_text(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidTask(
            f'{where} is not JSON, as the first line is; each line is an object such as {{"text": "…"}}'
        ) from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise InvalidTask(f'{where} has no text; each line is an object such as {{"text": "…"}}')
    return text
