"""Training a classifier from an annotated run: label, balance, train, calibrate, audit, write.

In goes the scan of a run; out comes a folder with `model.bin`, `calibration.json`, `card.json` and `README.md` that
appears when it is complete. Light columns are read first and documents are chosen by them; then the texts of the
chosen ones only. Price: 6,000 documents take about half a minute; all their texts are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .. import __version__
from ..config import ClassifierConfig
from ..files import replacing_folder
from ..strict import ConfigError
from . import calibration, lexing
from .audit import Pair, audit
from .balance import calibration_families, cap_families, check_enough, draw, even_out, length_bin, with_order
from .card import caveats, write_card
from .corruption import MAXIMUM_BYTES, corrupt
from .labels import LabelSet, label, load_labels, rule_counts
from .lexing import EMPTY, tokens
from .model import Scorer, fasttext_version, load_scorer
from .training import MODEL_FILE, labelled, train_model

AUDITED_PAIRS = 200
"""Held-out positives whose corrupted copies are scored: 3.5 % standard error at most, and 1,200 texts to lex."""


@dataclass(frozen=True)
class _Chosen:
    """Labelled documents by use; all with `id`, `language`, `family`, `size_bytes`, `positive`, `rules`."""

    training: pl.DataFrame  # and `corrupted`
    heldout: pl.DataFrame
    labelled: pl.DataFrame


def train_classifier(
    config: ClassifierConfig,
    frame: pl.LazyFrame,
    folder: Path,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train on `frame` (the scan of a run) and write the classifier to `folder`, which is replaced.

    Args:
        config: labels, sizes and fastText's parameters.
        frame: annotated columns and layers. With a column `split` only its training side is read.
        folder: where the classifier goes.
        progress: called with the fraction done.

    Returns:
        The card.

    Raises:
        ConfigError: an unknown label set or column, or too few documents of a class.
        TrainingError: fastText failed or was not reproducible.
    """
    report = progress or (lambda fraction: None)
    labels, path = load_labels(config.labels)
    chosen = choose(config, frame, labels, str(path))
    report(0.1)
    texts = read_texts(frame, [*chosen.training["id"], *chosen.heldout["id"]])
    report(0.2)
    examples = training_examples(config, chosen.training, texts, labels)
    report(0.4)
    with replacing_folder(folder) as temporary:
        checksum = train_model(
            [labelled(line, good) for line, good in zip(examples["line"], examples["positive"], strict=True)],
            config,
            temporary,
        )
        report(0.7)
        scorer = load_scorer(temporary, config.max_characters)
        heldout = chosen.heldout.with_columns(
            pl.Series(
                "raw", [scorer.raw(texts[i], lang) for i, lang in chosen.heldout.select("id", "language").iter_rows()]
            )
        )
        report(0.85)
        calibration.save(_calibrate(heldout), temporary)
        pairs = corrupted_pairs(scorer, heldout, texts, labels, config.seed)
        report(0.95)
        card = _card(config, labels, chosen, examples, checksum, (temporary / MODEL_FILE).stat().st_size)
        card["audit"] = audit(heldout, pairs, labels.corruptions.trained, config.seed)
        card["caveats"] = caveats(card)
        write_card(card, temporary)
    report(1.0)
    return card


def choose(config: ClassifierConfig, frame: pl.LazyFrame, labels: LabelSet, place: str) -> _Chosen:
    """Labelled documents, dealt by family, balanced for training, capped for the audit.

    Raises:
        ConfigError: as `label`, or too few documents of a class on a side.
    """
    everything = with_order(label(frame, labels, config.where, place), config.seed)
    counts = rule_counts(everything, labels)
    table = cap_families(everything)
    where = f'classifier "{config.name}": {place}'
    check_enough(table, "training and calibration", where, counts)
    apart = calibration_families(table, config.calibration_fraction, config.seed)
    is_apart = pl.col("family").is_in(sorted(apart))
    per_class = pl.int_range(pl.len()).over("positive") < config.max_documents // 2
    heldout = table.filter(is_apart).filter(per_class)
    training = draw(table.filter(~is_apart), config.max_documents, labels.corruptions.share)
    check_enough(heldout, "calibration", where, counts)
    if (heldout.group_by("language").agg(pl.col("positive").n_unique())["positive"] < 2).all():
        raise ConfigError(
            f"{where}: no language has positives and negatives among the {heldout['family'].n_unique()} families held "
            f"out for calibration; another `seed` or a larger `calibration_fraction` than "
            f"{config.calibration_fraction} deals them differently"
        )
    check_enough(training, "training, once balanced by language and length", where, counts)
    return _Chosen(training, heldout, everything)


def read_texts(frame: pl.LazyFrame, ids: Sequence[str]) -> dict[str, str]:
    """Id → text of the wanted documents, and of no others."""
    table = frame.select("id", "text").filter(pl.col("id").is_in(list(ids))).collect(engine="streaming")
    return dict(zip(table["id"], table["text"], strict=True))


def training_examples(
    config: ClassifierConfig, training: pl.DataFrame, texts: Mapping[str, str], labels: LabelSet
) -> pl.DataFrame:
    """`line`, `language`, `positive`, `corrupted`, … of every training example, in training order.

    Corruption changes lengths, so the cells are evened out again by the lengths that fastText will see.
    """
    mix = labels.corruptions
    originals = training.drop("corrupted").with_columns(
        pl.Series("content", [texts[i] for i in training["id"]], dtype=pl.String), corrupted=pl.lit(False)
    )
    damaged = training.filter(pl.col("corrupted") & (pl.col("size_bytes") <= MAXIMUM_BYTES))
    contents = [
        corrupt(mix.trained[place % len(mix.trained)], texts[i], language, config.seed, i)
        for place, (i, language) in enumerate(damaged.select("id", "language").iter_rows())
    ]
    copies = damaged.with_columns(
        pl.Series("content", contents, dtype=pl.String), positive=pl.lit(False), corrupted=pl.lit(True)
    ).filter(pl.Series([text != texts[i] for text, i in zip(contents, damaged["id"], strict=True)], dtype=pl.Boolean))
    copies = copies.with_columns(pl.col("content").str.len_bytes().cast(copies["size_bytes"].dtype).alias("size_bytes"))
    both = pl.concat([originals, copies.select(originals.columns)]).with_columns(length_bin())
    lines = [
        tokens(text, language, config.max_characters)
        for text, language in both.select("content", "language").iter_rows()
    ]
    # What is empty, or nothing but markers, has nothing to learn from.
    both = both.drop("content").with_columns(pl.Series("line", lines, dtype=pl.String)).filter(pl.col("line") != EMPTY)
    # A copy gets its own place in the order, so that it does not always follow its original.
    keyed = with_order(
        both.with_columns(pl.concat_str("id", pl.col("corrupted").cast(pl.String)).alias("id")), config.seed
    )
    return even_out(keyed, mix.share)


def corrupted_pairs(
    scorer: Scorer, heldout: pl.DataFrame, texts: Mapping[str, str], labels: LabelSet, seed: int
) -> list[Pair]:
    """Scores of held-out positives beside those of their corrupted copies, where the corruption changed anything."""
    names = (*labels.corruptions.trained, *labels.corruptions.audited)
    originals = heldout.filter(pl.col("positive") & (pl.col("size_bytes") <= MAXIMUM_BYTES)).head(AUDITED_PAIRS)
    pairs = []
    for identity, language, raw in originals.select("id", "language", "raw").iter_rows():
        for name in names:
            damaged = corrupt(name, texts[identity], language, seed, identity)
            if damaged != texts[identity]:
                pairs.append(Pair(name, raw, scorer.raw(damaged, language)))
    return pairs


def _calibrate(heldout: pl.DataFrame) -> calibration.Calibration:
    return calibration.fit(
        heldout["raw"].to_numpy(),
        heldout["positive"].to_numpy(),
        np.array(heldout["language"].to_list(), dtype=np.str_),
    )


def _card(
    config: ClassifierConfig,
    labels: LabelSet,
    chosen: _Chosen,
    examples: pl.DataFrame,
    checksum: str,
    size_bytes: int,
) -> dict[str, Any]:
    """Everything but the audit; the label set is told in full, so no path to it is needed."""
    is_natural = ~pl.col("corrupted")
    by_language = (
        examples.group_by("language")
        .agg(
            pl.col("positive").sum().alias("positives"),
            (~pl.col("positive")).sum().alias("negatives"),
            pl.col("corrupted").sum().alias("corrupted"),
        )
        .sort("language")
    )
    largest = {
        side: examples.filter(is_natural & (pl.col("positive") == (side == "positives")))
        .group_by("family")
        .agg((pl.len()).alias("documents"))
        .sort(["documents", "family"], descending=[True, False])
        .head(1)
        .to_dicts()
        for side in ("positives", "negatives")
    }
    return {
        "name": config.name,
        "codesieve": __version__,
        "fasttext": fasttext_version(),
        "lexer_version": lexing.VERSION,
        "config": config.model_dump(mode="json", exclude={"labels"}),
        "labels": {
            "set": labels.model_dump(mode="json"),
            "documents": rule_counts(chosen.labelled, labels),
            "positives": int(chosen.labelled["positive"].sum()),
            "negatives": int((~chosen.labelled["positive"]).sum()),
        },
        "training": {
            "documents": examples.height,
            "families": examples["family"].n_unique(),
            "languages": {row.pop("language"): row for row in by_language.to_dicts()},
            "largest_family": {side: rows[0] for side, rows in largest.items() if rows},
        },
        "model": {"sha256": checksum, "size_bytes": size_bytes},
    }
