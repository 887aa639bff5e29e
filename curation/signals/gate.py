"""The gate: cheap rules tried before the parse, so that junk is never parsed.

Comes in: what the text and origin steps measured. Goes out: `gate`, the name of the first rule that holds, or null. A
gated document keeps its row and all other signals; its syntax signals are null. The gate is about cost only: whether a
document is selected is up to the rules, which see the same numbers.

No gate says that a language has no grammar: that speaks against nothing. There `gate` and `parsed_as` are both null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from .signal import Signal, dtypes

GATES: Mapping[str, str] = {
    "empty": "nothing but white space",
    "too_large": "over max_parse_bytes",
    "binary_like": "a NUL, or over 1 % control or replacement characters",
    "minified": "is_minified",
    "generated": "is_generated",
    "long_lines": "mean line over 100 characters (not in markup), or a line over 100,000",
    "encoded": "over half of it is encoded data",
}
"""Name → when, in the order in which they are tried."""

GATE_SIGNALS: tuple[Signal, ...] = (
    Signal(
        "gate",
        pl.String(),
        "name",
        " | ".join(GATES) + ", or null",
        "why the document was not parsed",
        "StarCoder and Stack v2 section 3.3 (thresholds)",
        "gate",
    ),
)


@dataclass(frozen=True)
class Gate:
    """Step: adds `gate`.

    Args:
        enabled: if not, `gate` is null everywhere and every document of a known language is parsed.
        max_parse_bytes: 14 % of the bytes of 150 packages lie in files over 1 MB, nearly all tables and bundles.
        max_binary_fraction: share of control and of replacement characters; OpenCoder's limit for the latter.
        max_mean_line: StarCoder and Stack v2; markup and text keep their paragraphs on one line.
        max_line: Stack v2's limit for the languages excepted from the limit on mean lines.
        max_encoded_fraction: Stack v2.
    """

    enabled: bool = True
    max_parse_bytes: int = 1_000_000
    max_binary_fraction: float = 0.01
    max_mean_line: float = 100.0
    max_line: int = 100_000
    max_encoded_fraction: float = 0.5

    name: ClassVar[str] = "gate"
    requires: ClassVar[tuple[str, ...]] = (
        "kind",
        "size_bytes",
        "character_count",
        "word_count",
        "nul_count",
        "control_character_count",
        "replacement_fraction",
        "is_minified",
        "is_generated",
        "mean_line_length",
        "max_line_length",
        "encoded_fraction",
    )
    provides: ClassVar[Mapping[str, pl.DataType]] = dtypes(GATE_SIGNALS)

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with `gate`."""
        if not self.enabled:
            return batch.with_columns(pl.lit(None, dtype=pl.String).alias("gate"))
        named = (pl.when(when).then(pl.lit(name)) for name, when in self._rules().items())
        return batch.with_columns(pl.coalesce(*named).alias("gate"))

    def _rules(self) -> dict[str, pl.Expr]:
        controls = pl.col("control_character_count") > self.max_binary_fraction * pl.col("character_count")
        return {
            "empty": pl.col("word_count") == 0,
            "too_large": pl.col("size_bytes") > self.max_parse_bytes,
            "binary_like": (pl.col("nul_count") > 0)
            | controls
            | (pl.col("replacement_fraction") > self.max_binary_fraction),
            "minified": pl.col("is_minified"),
            "generated": pl.col("is_generated"),
            "long_lines": (pl.col("max_line_length") > self.max_line)
            | ((pl.col("mean_line_length") > self.max_mean_line) & pl.col("kind").is_in(["code", "synthetic"])),
            "encoded": pl.col("encoded_fraction") > self.max_encoded_fraction,
        }
