"""Comparisons of rule sets for the page: what `codesieve rules compare` wrote, and one chart for each.

In: `comparisons/*.json` of a run directory. Out: the files' values by name; a file that is not of the
present form is left out, so that an old one does not take the page down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import read_json
from .formats import percent, share, size

if TYPE_CHECKING:
    from .svg import Chart

MAX_LANGUAGES = 10
KEYS = frozenset({"sets", "documents", "bytes", "agreement", "languages", "rules", "disagreements"})
CELLS = {"keeps": ("both_keep", "only_b_removes"), "removes": ("only_a_removes", "both_remove")}
"""What A does → the cells of the row: B keeps, B removes."""


@dataclass(frozen=True)
class Comparison:
    """Two rule sets, A and B, on the documents of the run."""

    key: str
    values: dict[str, Any]

    @property
    def names(self) -> tuple[str, str]:
        a, b = (str(each["name"]) for each in self.values["sets"])
        return a, b

    @property
    def fired(self) -> list[dict[str, Any]]:
        """Rules that fired on something."""
        return [row for row in self.values["rules"] if row["documents"]]

    @property
    def quiet(self) -> list[str]:
        """Rules that fired on nothing, with their set."""
        return [f"{row['set']}: {row['rule']}" for row in self.values["rules"] if not row["documents"]]

    def cells(self, unit: str) -> list[tuple[str, list[int]]]:
        """The 2×2 table: a row for what A does, in it B keeps and B removes."""
        counts: Mapping[str, int] = self.values["agreement"][unit]
        return [(f"{self.names[0]} {verb}", [counts[key] for key in keys]) for verb, keys in CELLS.items()]

    def name_of(self, side: str) -> str:
        """The set on that side."""
        return self.names[0 if side == "a" else 1]


def read_comparisons(run: Path) -> list[Comparison]:
    """The comparisons of a run, by file name."""
    found = []
    for path in sorted((run / "comparisons").glob("*.json")):
        values = read_json(path)
        if isinstance(values, dict) and values.keys() >= KEYS:
            found.append(Comparison(path.stem, values))
    return found


def comparison_chart(key: str, comparison: Comparison) -> Chart:
    """Bytes that each set removes, of all, for the largest languages: a panel a set."""
    from .plots import Bar, Panel, bars  # matplotlib takes its time, and only a page with charts needs it
    from .svg import AGAINST, NEUTRAL

    shown = comparison.values["languages"][:MAX_LANGUAGES]
    most = max((row["bytes"] for row in shown), default=0) or 1

    def value(row: Mapping[str, Any], side: str) -> str:
        removed = row[f"bytes_removed_{side}"]
        return f"{size(removed)} · {percent(share(removed, row['bytes']))}"

    panels = [
        Panel(
            f"bytes that {name} removes, of all (grey)",
            [
                Bar(
                    row["language"],
                    [(0, row["bytes"], NEUTRAL), (0, row[f"bytes_removed_{side}"], AGAINST)],
                    value(row, side),
                )
                for row in shown
            ],
            most,
        )
        for side, name in zip("ab", comparison.names, strict=True)
    ]
    told = "; ".join(
        f"{row['language']} {size(row['bytes_removed_a'])} and {size(row['bytes_removed_b'])} of {size(row['bytes'])}"
        for row in shown
    )
    title = f"Bytes removed by {' and by '.join(comparison.names)}: {told}"
    return bars(key, title, panels, label_width=122, value_width=128)
