"""Held-out families: whole repositories, never single files, so that no sibling of a test file is trained on.

A family is held out when the hash of its name falls below the fraction. The hash does not depend on the other
families, so a corpus that grows never moves a document from one side to the other.
"""

from __future__ import annotations

import polars as pl
import xxhash

from ..config import SplitConfig
from ..strict import ConfigError

TRAIN, HELDOUT = "train", "heldout"


def split_families(frame: pl.LazyFrame, config: SplitConfig) -> pl.DataFrame:
    """`id`, `family`, `split` for every document of `frame` in its order.

    Raises:
        ConfigError: if one side would be empty; with few families another seed or a larger fraction helps.
    """
    table = frame.select("id", pl.col(config.family).alias("family")).collect()
    families = table["family"].unique().sort().to_list()
    sides = {family: HELDOUT if share(family, config.seed) < config.heldout_fraction else TRAIN for family in families}
    if len(set(sides.values())) < 2:
        raise ConfigError(
            f"split: all {len(families)} families are on the {next(iter(sides.values()), '')} side with "
            f"heldout_fraction {config.heldout_fraction} and seed {config.seed}; change one of them"
        )
    return table.with_columns(pl.col("family").replace_strict(sides, return_dtype=pl.String).alias("split"))


def share(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the name and the seed."""
    return xxhash.xxh3_64_intdigest(name.encode(), seed=seed) / 2**64
