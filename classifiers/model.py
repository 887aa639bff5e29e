"""The adapter to fastText: a text becomes a raw score, the log-odds of the positive label.

All other code stays clear of fastText. `model.f.predict` is called directly: it works with every build and with
NumPy 2, where the Python wrapper of some builds raises. fastText is imported when a model is loaded, not before.
Price: about 60 µs for a window of 4,000 characters, after lexing.
"""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..strict import ConfigError
from .lexing import tokens
from .training import MODEL_FILE, NEGATIVE, POSITIVE

MAXIMUM_RAW = 12.0
"""Log-odds are clipped here. fastText adds 1e-5 to its probabilities, so nothing beyond ±11.6 comes out anyway."""

DISTRIBUTIONS = ("fasttext-numpy2", "fasttext-numpy2-wheel", "fasttext-wheel", "fasttext", "fasttext-predict")
"""All install the module `fasttext`; the first is what codesieve depends on."""


@dataclass(frozen=True)
class Scorer:
    """A loaded model and how much of a document it looks at."""

    model: Any
    max_characters: int

    def raw(self, text: str, language: str) -> float:
        """Log-odds of the positive label, within ±12; 0 says that the model does not know."""
        return self.raw_of_line(tokens(text, language, self.max_characters))

    def raw_of_line(self, line: str) -> float:
        """The same for a document that is lexed already."""
        # Both labels, whatever their probability; "strict" is about UTF-8.
        answer = {found: probability for probability, found in self.model.f.predict(f"{line}\n", 2, -1.0, "strict")}
        raw = math.log(answer[POSITIVE]) - math.log(answer[NEGATIVE])
        return max(-MAXIMUM_RAW, min(MAXIMUM_RAW, raw))


def load_scorer(folder: Path, max_characters: int) -> Scorer:
    """The model in `<folder>/model.bin`.

    Raises:
        ConfigError: if there is none, or it is not one of ours.
    """
    import fasttext.FastText

    path = folder / MODEL_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no classifier here; `codesieve classifier train` makes one")
    try:
        model = fasttext.FastText._FastText(model_path=str(path))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: not a fastText model: {error}") from error
    labels = set(model.get_labels())
    if labels != {POSITIVE, NEGATIVE}:
        raise ConfigError(f"{path}: its labels are {sorted(labels)}, expected {[NEGATIVE, POSITIVE]}")
    return Scorer(model, max_characters)


def fasttext_version() -> str:
    """Distribution and version of the installed fastText."""
    for name in DISTRIBUTIONS:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
