"""The scoring step: adds a classifier's raw score and its calibrated probability to a batch.

Only documents for which the predicate holds are scored; the others get null. Model, calibration and card are read in
`setup`, in the worker. How a document is lexed comes from the card, so it cannot differ from training.
Price: about 0.1 ms a document, half of it fastText's prediction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from ..curation.corpus import predicate
from ..curation.steps import map_documents
from ..files import read_json
from ..strict import ConfigError
from . import lexing
from .calibration import Calibration, load
from .card import CARD_FILE
from .labels import columns_of
from .model import Scorer, load_scorer
from .training import MODEL_FILE

_WANTED = "__wanted"


class ScoreStep:
    """Adds `<name>_raw` (log-odds, within ±12) and `<name>_probability` (calibrated, 0..1), both Float32."""

    def __init__(self, folder: Path, where: str = "TRUE", name: str = "quality"):
        """
        Args:
            folder: a trained classifier.
            where: SQL predicate: which documents are scored; false and null give null scores.
            name: of the step and in front of its columns.
        """
        self.folder = folder
        self.where = where
        self.name = name
        self.requires = tuple(dict.fromkeys(("text", "language", *columns_of(where, f'step "{name}": where'))))
        self.provides: Mapping[str, pl.DataType] = {
            f"{name}_raw": pl.Float32(),
            f"{name}_probability": pl.Float32(),
        }
        self._loaded: tuple[Scorer, Calibration] | None = None

    def setup(self) -> None:
        """Load the classifier.

        Raises:
            ConfigError: if the folder is not a complete classifier of this version of the lexer.
        """
        self._loaded = load_classifier(self.folder)

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the two columns."""
        assert self._loaded is not None, "setup() was not called"
        scorer, calibration = self._loaded

        def score(text: str | None, language: str | None, wanted: bool) -> tuple[float, None] | None:
            return (scorer.raw(text, language or ""), None) if wanted and text is not None else None

        wanted = predicate(self.where, batch.columns, f'step "{self.name}": where').alias(_WANTED)
        exact = dict.fromkeys(self.provides, pl.Float64())
        scored = map_documents(batch.with_columns(wanted), self.name, score, ("text", "language", _WANTED), exact)
        raw_name, probability_name = self.provides
        raw = scored[raw_name]
        languages = np.array(batch["language"].fill_null("").to_list(), dtype=np.str_)
        # All at once: numpy's interpolation of one document takes half as long as its prediction.
        probability = calibration.probabilities(raw.fill_null(0.0).to_numpy(), languages)
        return scored.drop(_WANTED).with_columns(
            raw.cast(pl.Float32),
            pl.when(raw.is_not_null()).then(pl.Series(probability, dtype=pl.Float32)).alias(probability_name),
        )

    def __getstate__(self) -> dict[str, object]:
        """Without the model: every worker loads its own."""
        return {**self.__dict__, "_loaded": None}


def load_classifier(folder: Path) -> tuple[Scorer, Calibration]:
    """Model and calibration of a trained classifier, checked against its card.

    Raises:
        ConfigError: if a file is missing, is of another training, or was made with another version of the lexer.
    """
    card_file, model_file = folder / CARD_FILE, folder / MODEL_FILE
    if not card_file.is_file():
        raise ConfigError(f"{card_file}: no classifier here; `codesieve classifier train` makes one")
    card = read_json(card_file)
    if card["lexer_version"] != lexing.VERSION:
        raise ConfigError(
            f"{card_file}: trained with version {card['lexer_version']} of the lexer, this is {lexing.VERSION}; "
            f"train it again"
        )
    scorer = load_scorer(folder, card["config"]["max_characters"])
    found = hashlib.sha256(model_file.read_bytes()).hexdigest()
    if found != card["model"]["sha256"]:
        raise ConfigError(f"{model_file}: SHA-256 {found[:12]}…, but its card says {card['model']['sha256'][:12]}…")
    return scorer, load(folder)
