"""Balance: which labelled documents are trained on, so that neither language, length nor family gives the label away.

Families are dealt to training or calibration, never to both. In training, each cell (language × a doubling of length)
holds as many negatives as positives; a fixed share of a cell's negatives are corrupted copies of its positives, and a
cell without natural negatives is left out. Everything follows an order given by a hash of seed and id, so the same
documents in any order give the same choice.
"""

from __future__ import annotations

import polars as pl
import xxhash

from ..strict import ConfigError

CELL = ("language", "length_bin")

FAMILY_SHARE = 0.25
"""Of one class, at most, from one family, so that a class is never one project's style. On 90 MB of installed packages
(mean of 4 seeds, held-out families capped as well) the AUC was 0.82 with 0.15, 0.81 with 0.25, 0.76 with 0.35, 0.70
with 0.5 and 0.54 without a cap, although that trains on more; 0.15 leaves a quarter fewer documents than 0.25."""

MINIMUM_PER_CLASS = 20
"""Fewer documents of a class in training or calibration are an error: fewer than this gives an AUC of ± 0.15."""


def with_order(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """`table` sorted by a seeded hash of its ids, with its `length_bin`: the power of two of the size."""
    keys = [xxhash.xxh3_64_intdigest(identity.encode(), seed=seed) for identity in table["id"]]
    return table.with_columns(pl.Series("order", keys, dtype=pl.UInt64), length_bin()).sort("order", "id").drop("order")


def length_bin(size: str = "size_bytes") -> pl.Expr:
    """⌊log2(bytes)⌋, as `length_bin`."""
    return pl.col(size).clip(lower_bound=1).log(2).floor().cast(pl.Int32).alias("length_bin")


def cap_families(table: pl.DataFrame) -> pl.DataFrame:
    """`table` (ordered) with at most `FAMILY_SHARE` of what is left of each class from one family.

    With few families that would leave too little, so each may keep `MINIMUM_PER_CLASS` in any case.
    """
    sizes = table.group_by("positive", "family").len().select("positive", "len")
    caps = {side: _family_cap(sizes.filter(pl.col("positive") == side)["len"].to_list()) for side in (True, False)}
    cap = pl.when("positive").then(caps[True]).otherwise(caps[False])
    return table.filter(pl.int_range(pl.len()).over("family", "positive") < cap)


def calibration_families(table: pl.DataFrame, fraction: float, seed: int) -> frozenset[str]:
    """Families whose documents calibrate and audit, about `fraction` of each class; the others train.

    Families are walked in hash order and taken while a class has less than its fraction: first small ones (up to half
    of the fraction of each class), so that the audit sees many families; then those up to the fraction. No class
    gets over 1.5 times its fraction, because training needs the rest. Only if a class is left with too few documents
    does a third walk take families up to half of a class.
    """
    by_family = table.group_by("family").agg(
        pl.col("positive").sum().alias("positives"), (~pl.col("positive")).sum().alias("negatives")
    )
    counts = {family: (positives, negatives) for family, positives, negatives in by_family.iter_rows()}
    order = sorted(counts, key=lambda family: (xxhash.xxh3_64_intdigest(family.encode(), seed=seed), family))
    total = [sum(count[side] for count in counts.values()) for side in (0, 1)]
    have = [0, 0]
    taken: set[str] = set()
    share = [fraction * n for n in total]
    few = [float(MINIMUM_PER_CLASS)] * 2
    # What one family may hold, what all may hold together, and what is wanted.
    walks = ((0.5 * fraction, 1.5 * fraction, share), (fraction, 1.5 * fraction, share), (0.5, 0.5, few))
    for largest, all_together, wanted in walks:
        for family in order:
            count = counts[family]
            helps = any(have[side] < wanted[side] and count[side] for side in (0, 1))
            fits = all(
                count[side] <= largest * total[side] and have[side] + count[side] <= all_together * total[side]
                for side in (0, 1)
            )
            if family not in taken and helps and fits:
                taken.add(family)
                have = [have[side] + count[side] for side in (0, 1)]
    return frozenset(taken)


def draw(table: pl.DataFrame, max_documents: int, corrupted_share: float) -> pl.DataFrame:
    """The training documents among `table` (ordered, with `length_bin`), and which of them are also corrupted.

    Returns the chosen rows with `corrupted` (a positive whose damaged copy is a further negative). In each cell:
    positives = natural negatives + corrupted, and corrupted ≤ `corrupted_share` of the negatives.
    """
    cells = (
        table.group_by(CELL)
        .agg(pl.col("positive").sum().alias("positives"), (~pl.col("positive")).sum().alias("negatives"))
        .with_columns(
            pl.min_horizontal(
                pl.col("positives"), (pl.col("negatives") / (1 - corrupted_share)).floor().cast(pl.Int64)
            ).alias("room")
        )
        .sort(CELL)
    )
    limit = _water_level(cells["room"].to_list(), max_documents // 2)
    cells = cells.with_columns(pl.col("room").clip(upper_bound=limit).alias("per_class")).with_columns(
        (pl.col("per_class") * corrupted_share).floor().cast(pl.Int64).alias("corrupted_count")
    )
    rank = pl.int_range(pl.len()).over(*CELL, "positive")
    natural = pl.col("per_class") - pl.col("corrupted_count")
    return (
        table.join(cells.select(*CELL, "per_class", "corrupted_count"), on=CELL, how="left", maintain_order="left")
        .with_columns(rank.alias("rank"))
        .filter(pl.col("rank") < pl.when("positive").then(pl.col("per_class")).otherwise(natural))
        .with_columns((pl.col("positive") & (pl.col("rank") < pl.col("corrupted_count"))).alias("corrupted"))
        .drop("rank", "per_class", "corrupted_count")
    )


def even_out(table: pl.DataFrame, corrupted_share: float) -> pl.DataFrame:
    """Rows of `table` such that every cell is balanced again, now by the sizes that corruption has changed.

    `table` has `positive`, `corrupted` (of the damaged copies only) and `length_bin` of the text as trained on.
    """
    is_natural = ~pl.col("positive") & ~pl.col("corrupted")
    cells = table.group_by(CELL).agg(
        pl.col("positive").sum().cast(pl.Int64).alias("positives"),
        is_natural.sum().cast(pl.Int64).alias("naturals"),
        pl.col("corrupted").sum().cast(pl.Int64).alias("copies"),
    )
    allowed = (pl.col("naturals") * corrupted_share / (1 - corrupted_share)).floor().cast(pl.Int64)
    cells = (
        cells.with_columns(pl.min_horizontal("copies", allowed).alias("copies"))
        .with_columns(pl.min_horizontal("positives", pl.col("naturals") + pl.col("copies")).alias("per_class"))
        # Where positives are short, copies go in proportion, so that their share stays below the limit.
        .with_columns(
            pl.min_horizontal("copies", (pl.col("per_class") * corrupted_share).floor().cast(pl.Int64)).alias("copies")
        )
        .with_columns(pl.min_horizontal("naturals", pl.col("per_class") - pl.col("copies")).alias("naturals"))
        .with_columns((pl.col("naturals") + pl.col("copies")).alias("per_class"))
    )
    quota = pl.when("positive").then("per_class").when("corrupted").then("copies").otherwise("naturals")
    rank = pl.int_range(pl.len()).over(*CELL, "positive", "corrupted")
    return table.join(cells, on=CELL, how="left", maintain_order="left").filter(rank < quota).select(table.columns)


def check_enough(table: pl.DataFrame, side: str, place: str, rules: dict[str, int]) -> None:
    """An error that counts documents and predicates if `table` has too few of a class."""
    positives = int(table["positive"].sum())
    negatives = table.height - positives
    if min(positives, negatives) >= MINIMUM_PER_CLASS:
        return
    lacking = "positives" if positives < negatives else "negatives"
    counted = ", ".join(f"{name} {count}" for name, count in rules.items())
    raise ConfigError(
        f"{place}: too few {lacking} for {side}: {positives} positives and {negatives} negatives in "
        f"{table['family'].n_unique()} families, at least {MINIMUM_PER_CLASS} of each are needed; "
        f"documents that each predicate names: {counted}; loosen a predicate, or add code of more repositories"
    )


def _family_cap(sizes: list[int]) -> int:
    """The largest cap that is at most `FAMILY_SHARE` of all sizes capped by it."""
    cap = max(sizes, default=0)
    while cap > MINIMUM_PER_CLASS and cap > FAMILY_SHARE * sum(min(size, cap) for size in sizes):
        cap -= 1
    return cap


def _water_level(rooms: list[int], wanted: int) -> int:
    """The largest limit on each cell with which all cells together stay within `wanted`; small cells stay whole."""
    level = 0
    remaining = wanted
    ordered = sorted(rooms)
    for index, room in enumerate(ordered):
        share = remaining // (len(ordered) - index)
        if room > share:
            return share
        remaining -= room
        level = room
    return level
