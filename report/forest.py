"""Forest plot of models against a baseline: a row a task and model, its interval, and its verdict as shape and colour.

Points (more is better) and bits per byte (less is better) have a panel each, since one scale would hide one of them;
each says under its axis which side is the better one. The grey bar around 0 is what could not have been seen: the
smallest detectable difference. A verdict is told by shape first (triangle up, triangle down, circle), then by colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..eval.comparison import difference_text, task_label
from .plots import CHARACTER
from .svg import AGAINST, INK, KEPT, MUTED, NEUTRAL, Chart, chart

ROW, NARROW_ROW, ABOVE, AXIS = 30, 62, 12, 62
"""Pixels of a row, of a row on a phone, of the room above a panel, and of the axis below it."""

SHAPES = {"better": ("^", KEPT), "worse": ("v", AGAINST), "no decision": ("o", INK)}

SIDES = {
    "points": "Δ points: worse ← 0 → better",
    "bits/byte": "Δ bits per byte: better ← 0 → worse",
}


@dataclass(frozen=True)
class Row:
    """A difference as it is drawn; ends and `detectable` are in the unit of the axis, None where there is none."""

    label: str
    difference: float
    low: float | None
    high: float | None
    detectable: float | None
    word: str
    text: str


def forest_rows(comparison: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Unit → rows, in the order of the comparison; the model is named where there are several."""
    found: dict[str, list[Row]] = {}
    are_several = len(comparison["models"]) > 2
    for task in comparison["tasks"]:
        scale = 100 if task["unit"] == "points" else 1
        for each in task["differences"]:
            label = f"{task_label(task)} · {each['model']}" if are_several else task_label(task)
            ends = [
                None if each[name] is None else scale * each[name] for name in ("low", "high", "smallest_detectable")
            ]
            word = each["verdict"]["word"]
            text = difference_text(each, task["unit"])
            row = Row(label, scale * each["difference"], ends[0], ends[1], ends[2], word, text)
            found.setdefault(task["unit"], []).append(row)
    return found


def forest_chart(key: str, comparison: Mapping[str, Any]) -> Chart:
    """All differences to the baseline.

    Raises:
        ValueError: if nothing was compared.
    """
    panels = forest_rows(comparison)
    if not panels:
        raise ValueError("a forest plot needs at least two models")
    title = f"Differences to {comparison['baseline']}. " + "; ".join(
        f"{row.label}: {row.text} {unit}, {row.word}" for unit, rows in panels.items() for row in rows
    )

    def height(narrow: bool) -> float:
        return sum(ABOVE + AXIS + (NARROW_ROW if narrow else ROW) * len(rows) for rows in panels.values())

    def draw(figure: Figure, narrow: bool) -> None:
        width, total = figure.get_size_inches() * 72
        left, right = (10, 12) if narrow else (210, 260)
        top = total
        for unit, rows in panels.items():
            length = (NARROW_ROW if narrow else ROW) * len(rows)
            bottom = top - ABOVE - length
            axes = figure.add_axes((left / width, bottom / total, 1 - (left + right) / width, length / total))
            _panel(axes, unit, rows, narrow, left, right)
            top = bottom - AXIS

    return chart(key, title, draw, height(False), height(True))


def _panel(axes: Axes, unit: str, rows: Sequence[Row], narrow: bool, left: float, right: float) -> None:
    # What could not have been seen may be wider than the plot: it must not squeeze the intervals.
    ends = [abs(end) for row in rows for end in (row.low, row.high, row.difference) if end is not None]
    reach = 1.12 * max(ends) or 1.0
    for index, row in enumerate(rows):
        y = len(rows) - index - 1
        shape, colour = SHAPES[row.word]
        if row.detectable is not None:
            bar = min(row.detectable, reach)
            axes.barh(y, 2 * bar, left=-bar, height=0.2 if narrow else 0.5, color=NEUTRAL, alpha=0.45, linewidth=0)
        # On a phone the texts stand above the intervals: no line may run through them.
        half = 0.13 if narrow else 0.5
        axes.plot([0, 0], [y - half, y + half], color=MUTED, linewidth=1)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([row.difference], [y], marker=shape, markersize=9, color=colour, linestyle="none")
        if narrow:
            _note(axes, _fit(row.label, 316), (0, y), (0, 25))
            _note(axes, f"{row.text}  {row.word}", (1, y), (0, 10), ha="right", color=colour, fontsize=11)
        else:
            _note(axes, _fit(row.label, left - 14), (0, y), (-14, 0), ha="right", va="center")
            _note(axes, row.text, (1, y), (14, 0), va="center", color=MUTED)
            _note(axes, row.word, (1, y), (right - 2, 0), ha="right", va="center", color=colour)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(rows) - 0.4), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if abs(x) < 1e-12 else f"{x:+.3g}"))
    axes.tick_params(length=3, labelsize=11)
    axes.set_xlabel(SIDES[unit], labelpad=6)


def _note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Text at (share of the width, data row), moved by pixels."""
    axes.annotate(text, at, offset, xycoords=("axes fraction", "data"), textcoords="offset points", **style)


def _fit(label: str, width: float) -> str:
    """`label`, cut so that it stays inside `width`; the table beside the chart has it in full."""
    most = int(width / CHARACTER)
    return label if len(label) <= most else label[: most - 1] + "…"
