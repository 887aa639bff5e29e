"""Two rule sets on the same documents: what each removes, alone and jointly, and where they disagree.

Comes in: a run and the layers of two sets (`layers`). Goes out: plain data, written to
`comparisons/<A>-vs-<B>.json`: totals, languages, rules, the 2×2 table of verdicts with Cohen's kappa and the Jaccard
index of what is removed, and a sample of the documents on which the sets disagree, with the reasons of each side. A set
removes a document when one of its rules fires.

Method: shard by shard, a few columns, counts added up; the sample is the documents with the smallest ids, which are
hashes, half of it removed by either set. Memory is one shard's columns; 1 million documents take some 2 seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ...files import write_json
from ...strict import ConfigError
from ..corpus import scan_shards
from .layers import RulesLayer, apply_rules
from .ruleset import RuleSet

SIZE = pl.col("size_bytes")
SIDES = ("a", "b")
VERDICTS = ("both_keep", "only_a_removes", "only_b_removes", "both_remove")


def compare_rules(
    run: Path, a: RuleSet, b: RuleSet, documents: int = 20, progress: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Compare two sets, making their layers where they are missing; returns what is written.

    Raises:
        ConfigError: if both have one name.
    """
    if a.name == b.name:
        raise ConfigError(f'both rule sets are named "{a.name}"; give one of them another `name:`')
    layers = [apply_rules(run, rules) for rules in (a, b)]
    found = _Counts()
    shards = scan_shards(run)
    for number, frame in enumerate(shards.values(), start=1):
        found.add(frame.select(_columns(layers)).collect(), documents)
        if progress:
            progress(number / len(shards))
    result = found.result((a, b), layers, documents)
    write_json(comparison_path(run, a.name, b.name), result)
    return result


def comparison_path(run: Path, a: str, b: str) -> Path:
    """Where the comparison of two sets is written."""
    return run / "comparisons" / f"{a}-vs-{b}.json"


def _columns(layers: Sequence[RulesLayer]) -> list[pl.Expr]:
    reasons = [pl.col(layer.reasons).alias(f"reasons_{side}") for side, layer in zip(SIDES, layers, strict=True)]
    counts = [pl.col(layer.count).alias(f"count_{side}") for side, layer in zip(SIDES, layers, strict=True)]
    removed = [(pl.col(layer.count) > 0).alias(f"{side}_removes") for side, layer in zip(SIDES, layers, strict=True)]
    return [pl.col("id", "path", "language", "size_bytes"), *reasons, *counts, *removed]


class _Counts:
    """Sums over shards: small tables, one row a language and verdict, one row a rule."""

    def __init__(self) -> None:
        self.verdicts: list[pl.DataFrame] = []
        self.rules: dict[str, list[pl.DataFrame]] = {side: [] for side in SIDES}
        self.samples: dict[str, pl.DataFrame | None] = dict.fromkeys(SIDES)

    def add(self, frame: pl.DataFrame, documents: int) -> None:
        """One shard."""
        self.verdicts.append(frame.group_by("language", "a_removes", "b_removes").agg(_totals("")))
        for side, other in (SIDES, SIDES[::-1]):
            fired = frame.filter(f"{side}_removes").explode(f"reasons_{side}")
            alone = pl.col(f"count_{side}") == 1
            also = pl.col(f"{other}_removes")
            sums = [*_totals(""), *_totals("_alone", alone), *_totals("_also_other_set", also)]
            self.rules[side].append(fired.group_by(pl.col(f"reasons_{side}").alias("rule")).agg(sums))
            apart = frame.filter(pl.col(f"{side}_removes") & ~pl.col(f"{other}_removes"))
            before = self.samples[side]
            self.samples[side] = (apart if before is None else pl.concat([before, apart])).bottom_k(documents, by="id")

    def result(self, sets: Sequence[RuleSet], layers: Sequence[RulesLayer], documents: int) -> dict[str, Any]:
        """Everything as plain data."""
        cells = pl.concat(self.verdicts).group_by("language", "a_removes", "b_removes").agg(_summed())
        table = {unit: _two_by_two(cells, unit) for unit in ("documents", "bytes")}
        return {
            "sets": [
                {
                    "side": side,
                    "name": rules.name,
                    "hash": rules.hash,
                    "layer": layer.name,
                    "rules": len(rules.rules),
                    **_verdict_totals(cells, side),
                }
                for side, rules, layer in zip(SIDES, sets, layers, strict=True)
            ],
            "documents": int(cells["documents"].sum()),
            "bytes": int(cells["bytes"].sum()),
            "agreement": {**table, **_agreement(table)},
            "languages": _languages(cells),
            "rules": [row for side, rules in zip(SIDES, sets, strict=True) for row in self._rules(side, rules)],
            "disagreements": self._sample(documents),
        }

    def _rules(self, side: str, rules: RuleSet) -> list[dict[str, Any]]:
        """A row a rule, those that fired on nothing too, in the order of bytes."""
        counted = pl.concat(self.rules[side]).group_by("rule").agg(_summed())
        by_name = {row["rule"]: row for row in counted.to_dicts()}
        numbers = [column for column in counted.columns if column != "rule"]
        rows = [
            {"set": rules.name, "rule": rule.name, **(by_name.get(rule.name) or dict.fromkeys(numbers, 0))}
            for rule in rules.rules
        ]
        return sorted(rows, key=lambda row: (-row["bytes"], row["rule"]))

    def _sample(self, documents: int) -> list[dict[str, Any]]:
        found = {side: (frame.to_dicts() if frame is not None else []) for side, frame in self.samples.items()}
        share = {"a": max(documents - documents // 2, documents - len(found["b"]))}
        share["b"] = documents - min(share["a"], len(found["a"]))
        keep = ("id", "path", "language", "size_bytes", "reasons_a", "reasons_b")
        return [
            {"removed_by": side, **{key: row[key] for key in keep}}
            for side in SIDES
            for row in found[side][: share[side]]
        ]


def _totals(suffix: str, where: pl.Expr | None = None) -> list[pl.Expr]:
    if where is None:
        return [pl.len().cast(pl.Int64).alias(f"documents{suffix}"), SIZE.sum().alias(f"bytes{suffix}")]
    return [where.sum().cast(pl.Int64).alias(f"documents{suffix}"), SIZE.filter(where).sum().alias(f"bytes{suffix}")]


def _summed() -> pl.Expr:
    return pl.col("^(documents|bytes).*$").sum()


def _two_by_two(cells: pl.DataFrame, unit: str) -> dict[str, int]:
    a, b = pl.col("a_removes"), pl.col("b_removes")
    where = (~a & ~b, a & ~b, ~a & b, a & b)
    sums = cells.select(pl.col(unit).filter(w).sum().alias(name) for name, w in zip(VERDICTS, where, strict=True))
    return {name: int(value) for name, value in sums.row(0, named=True).items()}


def _agreement(table: Mapping[str, Mapping[str, int]]) -> dict[str, float | None]:
    """Cohen's kappa of the verdicts, and Jaccard: removed by both, of what one of them removes."""
    return {
        **{f"kappa_{unit}": _kappa(cells) for unit, cells in table.items()},
        **{f"jaccard_{unit}": _jaccard(cells) for unit, cells in table.items()},
    }


def _kappa(cells: Mapping[str, int]) -> float | None:
    keep, only_a, only_b, remove = (cells[name] for name in VERDICTS)
    total = keep + only_a + only_b + remove
    if not total:
        return None
    a, b = (only_a + remove) / total, (only_b + remove) / total
    by_chance = a * b + (1 - a) * (1 - b)
    return None if by_chance == 1 else ((keep + remove) / total - by_chance) / (1 - by_chance)


def _jaccard(cells: Mapping[str, int]) -> float | None:
    _, only_a, only_b, remove = (cells[name] for name in VERDICTS)
    union = only_a + only_b + remove
    return remove / union if union else None


def _verdict_totals(cells: pl.DataFrame, side: str) -> dict[str, int]:
    removed = pl.col(f"{side}_removes")
    return {
        f"{unit}_{word}": int(cells.filter(where)[unit].sum())
        for word, where in (("kept", ~removed), ("removed", removed))
        for unit in ("documents", "bytes")
    }


def _languages(cells: pl.DataFrame) -> list[dict[str, Any]]:
    sums = [pl.col("documents").sum(), pl.col("bytes").sum()]
    for side in SIDES:
        removed = pl.col(f"{side}_removes")
        sums += [pl.col(unit).filter(removed).sum().alias(f"{unit}_removed_{side}") for unit in ("documents", "bytes")]
    return cells.group_by("language").agg(sums).sort(["bytes", "language"], descending=[True, False]).to_dicts()
