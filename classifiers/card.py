"""The model card: what a classifier was trained on, how well it does, and what to beware of, in words and numbers.

`card.json` holds every figure; `README.md` says the same to a reader. The caveats are computed from the figures. No
time and no path is in them, so that two trainings on the same documents give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomic, write_json

CARD_FILE = "card.json"
README_FILE = "README.md"

SMALL_ACCURACY = 0.75
"""Pairs found below this: the corruption goes mostly unseen. Half-way between guessing and perfect."""

LARGE_REJECT = 0.25
"""Upper bound of wrongly rejected good examples from which we warn; chosen by us."""

LARGE_FAMILY = 0.3
"""Share of a class in training from one family from which we warn; above the cap that balancing aims at."""

LARGE_ECE = 0.1
"""Mean gap between probability and share from which we warn; chosen by us."""


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write `card.json` and `README.md`."""
    write_json(folder / CARD_FILE, card)
    write_atomic(folder / README_FILE, readme(card))


def caveats(card: Mapping[str, Any]) -> list[str]:
    """What the figures say against the classifier, one sentence each."""
    audit = card["audit"]
    return [
        *_against_length("over all languages, within each", audit["within_language"]),
        *(line for language, row in audit["languages"].items() for line in _against_length(f"in {language}", row)),
        *_unmeasured(card),
        *_one_family(card["training"]),
        *_corruptions(audit["corruptions"]),
        *_rejects("", audit["false_reject"]),
        *(line for language, row in audit["languages"].items() for line in _rejects(f" in {language}", row)),
        *_calibration(audit["calibration"]),
        "The labels are weak: the figures measure agreement with them, not quality as a reviewer would see it.",
        "A probability is for a mix of as many positives as negatives of the language; select by percentile.",
    ]


def readme(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    beware = "\n".join(f"- {line}" for line in card["caveats"])
    return "\n".join(
        [_head(card), "## Does it work?", _quality(card), f"## Beware\n\n{beware}\n", "## Trained on", _made_from(card)]
    )


def _head(card: Mapping[str, Any]) -> str:
    name, labels, config = card["name"], card["labels"]["set"], card["config"]
    return f"""---
library_name: fasttext
tags:
- code
- quality
---

# {name}

A fastText classifier that ranks source files by quality, trained by codesieve {card["codesieve"]} on the weak labels
`{labels["name"]}` (version {labels["version"]}). It gives log-odds (`{name}_raw`) and a calibrated probability
(`{name}_probability`).

{card["fasttext"]}: {config["dim"]} dimensions, {config["epoch"]} epochs, learning rate {config["lr"]},
{config["word_ngrams"]}-grams in {config["bucket"]} buckets, seed {config["seed"]}; trained twice with the same result.
Of each document it sees {config["max_characters"]} characters (beginning, middle and end of longer ones) as tokens with
explicit newlines and indentation; markers that served as label sources are masked. Lexer version:
{card["lexer_version"]}. SHA-256 of `model.bin`: `{card["model"]["sha256"]}`.
"""


def _quality(card: Mapping[str, Any]) -> str:
    audit = card["audit"]
    reject = audit["false_reject"]
    fit = {name: _figure(value) for name, value in audit["calibration"].items()}
    over_all, by_length = _figure(audit["pooled_auc"]), _figure(audit["pooled_length_auc"])
    ranking = [
        [name, str(row["documents"]), str(row["families"]), _auc(row), _figure(row["length_auc"]), _lead(row)]
        for name, row in [("all, within language", audit["within_language"]), *audit["languages"].items()]
    ]
    rules = [[f"`{name}`", str(row["documents"]), _figure(row["auc"])] for name, row in audit["negatives"].items()]
    pairs = [
        [f"`{name}`", str(row["pairs"]), _percent(row["accuracy"]), "yes" if row["in_training"] else "no"]
        for name, row in audit["corruptions"].items()
    ]
    return f"""
{audit["documents"]} labelled documents of {audit["families"]} families that were not trained on. AUC: the probability
that a positive scores above a negative of the same language. Length alone: the same for the file size, in its better
direction. Intervals: 95 %, bootstrap over families.

{_table(["language", "documents", "families", "AUC", "length alone", "lead"], ranking)}

Over all pairs, whatever the language: {over_all}, length alone {by_length}.

A cut at probability one half rejects {_percent(reject["rejected_share"])} of the positives, with 95 % confidence at
most {_percent(reject["rejected_upper_bound"])} (Wilson). Brier score {fit["brier_before"]} before calibration and
{fit["brier_after"]} after, expected calibration error {fit["ece_before"]} and {fit["ece_after"]}; "after" is measured
on one half of the families with the calibration of the other.

What the negatives are, and how well all positives are told from each sort:

{_table(["negatives", "documents", "AUC"], rules)}

Pairs of a document and its damaged copy, share in which the original scores higher:

{_table(["damage", "pairs", "right", "seen in training"], pairs)}
"""


def _made_from(card: Mapping[str, Any]) -> str:
    training, labels = card["training"], card["labels"]
    languages = [
        [language, str(row["positives"]), str(row["negatives"]), str(row["corrupted"])]
        for language, row in training["languages"].items()
    ]
    rules = [
        [side, f"`{rule['name']}`", f"`{' '.join(rule['where'].split())}`", str(labels["documents"][rule["name"]])]
        for side in ("positive", "negative")
        for rule in labels["set"][side]
    ]
    return f"""
{training["documents"]} examples of {training["families"]} families, as many positives as negatives in every language
and length bin.

{_table(["language", "positives", "negatives", "of those corrupted"], languages)}

{_table(["label", "name", "predicate", "documents"], rules)}
"""


def _against_length(where: str, row: Mapping[str, Any]) -> list[str]:
    interval, lead = row["lead_interval"], row["lead"]
    if row["auc"] is None:
        return [f"Nothing was measured {where}."]
    if lead <= 0:
        return [f"Does not beat the length-only baseline {where}: {row['auc']:.2f} against {row['length_auc']:.2f}."]
    if interval is None:
        return [f"Too few families ({row['families']}) {where} for an interval; the lead over length may be chance."]
    if interval[0] <= 0:
        return [
            f"Does not clearly beat the length-only baseline {where}: lead {lead:.2f}, interval {interval[0]:.2f} to "
            f"{interval[1]:.2f}."
        ]
    return []


def _unmeasured(card: Mapping[str, Any]) -> list[str]:
    measured = set(card["audit"]["languages"])
    trained = sorted(set(card["training"]["languages"]) - measured)
    others = sorted(set(card["audit"]["not_measured"]) - set(card["training"]["languages"]))
    lines = []
    if trained:
        lines.append(f"Trained on, but with too few held-out documents to measure: {', '.join(trained)}.")
    if others:
        lines.append(f"Neither trained on nor measured, scores there are guesses: {', '.join(others)}.")
    return lines


def _one_family(training: Mapping[str, Any]) -> list[str]:
    natural = {
        "positives": sum(row["positives"] for row in training["languages"].values()),
        "negatives": sum(row["negatives"] - row["corrupted"] for row in training["languages"].values()),
    }
    return [
        f"{row['documents'] / natural[side]:.0%} of the {side} it was trained on are of one family, {row['family']}."
        for side, row in training["largest_family"].items()
        if row["documents"] > LARGE_FAMILY * natural[side]
    ]


def _corruptions(rows: Mapping[str, Any]) -> list[str]:
    unseen = [
        f"{name} ({row['accuracy']:.0%} of pairs)" for name, row in rows.items() if row["accuracy"] < SMALL_ACCURACY
    ]
    return [f"Hardly notices these kinds of damage: {', '.join(unseen)}."] if unseen else []


def _rejects(where: str, row: Mapping[str, Any]) -> list[str]:
    bound = row["rejected_upper_bound"]
    if bound is None or bound <= LARGE_REJECT:
        return []
    return [f"A cut at probability one half{where} may reject up to {bound:.0%} of the positives."]


def _calibration(row: Mapping[str, Any]) -> list[str]:
    lines = []
    if row["brier_after"] >= row["brier_before"]:
        lines.append(
            "Calibration does not help in families that it has not seen; take the ranking, not the probability."
        )
    if row["ece_after"] > LARGE_ECE:
        lines.append(f"Probabilities are off by {row['ece_after']:.2f} on average in families not seen in calibration.")
    return lines


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _auc(row: Mapping[str, Any]) -> str:
    interval = row["auc_interval"]
    return _figure(row["auc"]) + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _lead(row: Mapping[str, Any]) -> str:
    interval = row["lead_interval"]
    return _figure(row["lead"]) + (f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else "")


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"
