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
        *_corruptions(audit["corruptions"]),
        *_rejects("", audit["false_reject"]),
        *(line for language, row in audit["languages"].items() for line in _rejects(f" in {language}", row)),
        *_calibration(audit["calibration"]),
        "The labels are weak: the figures measure agreement with them, not quality as a reviewer would see it.",
        "A probability is for a mix of as many positives as negatives of the language; select by percentile.",
    ]


def readme(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    audit, config, training = card["audit"], card["config"], card["training"]
    rows = [("all, within language", audit["within_language"]), *audit["languages"].items()]
    table = [
        [name, str(row["documents"]), str(row["families"]), _auc(row), _figure(row["length_auc"]), _lead(row)]
        for name, row in rows
    ]
    sides = [
        [
            side,
            f"`{rule['name']}`",
            f"`{' '.join(rule['where'].split())}`",
            str(card["labels"]["documents"][rule["name"]]),
        ]
        for side in ("positive", "negative")
        for rule in card["labels"]["set"][side]
    ]
    trained = [
        [language, str(row["positives"]), str(row["negatives"]), str(row["corrupted"])]
        for language, row in training["languages"].items()
    ]
    pairs = [
        [name, str(row["pairs"]), _percent(row["accuracy"]), "yes" if row["in_training"] else "no"]
        for name, row in audit["corruptions"].items()
    ]
    reject, fit = audit["false_reject"], audit["calibration"]
    return f"""---
library_name: fasttext
tags:
- code
- quality
---

# {card["name"]}

A fastText classifier that ranks source files by quality, trained by codesieve {card["codesieve"]} on the weak labels
`{card["labels"]["set"]["name"]}` (version {card["labels"]["set"]["version"]}). It gives log-odds (`{card["name"]}_raw`) and a calibrated
probability (`{card["name"]}_probability`).

## Does it work?

{audit["documents"]} labelled documents of {audit["families"]} families that were not trained on. AUC: the probability that a positive
scores above a negative of the same language. Length alone: the same for the file size, in its better direction.
Intervals: 95 %, bootstrap over families.

{_table(["language", "documents", "families", "AUC", "length alone", "lead"], table)}

Over all pairs, whatever the language: {_figure(audit["pooled_auc"])} (length alone {_figure(audit["pooled_length_auc"])}).
A cut at probability one half rejects {_percent(reject["rejected_share"])} of the positives (at most {_percent(reject["rejected_upper_bound"])},
Wilson 95 %). Brier score {_figure(fit["brier_before"])} before calibration, {_figure(fit["brier_after"])} after; expected calibration error
{_figure(fit["ece_before"])} before, {_figure(fit["ece_after"])} after (calibration fitted on the other half of the families).

Pairs of a document and its damaged copy, share in which the original scores higher:

{_table(["corruption", "pairs", "right", "seen in training"], pairs)}

## Beware

{chr(10).join(f"- {line}" for line in card["caveats"])}

## What it was trained on

{training["documents"]} documents of {training["families"]} families, as many positives as negatives in every language and length bin.

{_table(["language", "positives", "negatives", "of those corrupted"], trained)}

{_table(["side", "label", "predicate", "documents"], sides)}

Seen of each document: {config["max_characters"]} characters (beginning, middle and end of longer ones), as tokens with explicit
newlines and indentation; markers that served as label sources are masked. Lexer version {card["lexer_version"]}.

## Made with

{card["fasttext"]}, dim {config["dim"]}, {config["epoch"]} epochs, learning rate {config["lr"]}, {config["word_ngrams"]}-grams, {config["bucket"]} buckets, seed {config["seed"]}; trained
twice with the same result. `model.bin`: SHA-256 `{card["model"]["sha256"]}`.
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
    if row["ece_after"] is None or row["ece_after"] <= LARGE_ECE:
        return []
    return [f"Probabilities are off by {row['ece_after']:.2f} on average in families that calibration has not seen."]


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
