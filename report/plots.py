"""Four kinds of plots: rows of bars, small histograms, curves with bands, and a forest of intervals.

They know lengths, labels and roles of colours, and nothing about runs; `charts` says what is drawn. Each is laid out
twice, because a phone has room for other things than a desk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .svg import AGAINST, GRID, INK, KEPT, MUTED, NEUTRAL, SERIES, Chart, chart

ROW, HEADING, GAP = 26, 34, 22
"""Pixels of a row of bars, of the heading above a panel, and between panels."""

CHARACTER = 6.9
"""Pixels of a mean character at the charts' font size, in the widest font that pages commonly get (DejaVu Sans)."""


@dataclass(frozen=True)
class Bar:
    """A row: coloured pieces as (start, length, colour), and its value as text."""

    label: str
    pieces: Sequence[tuple[float, float, str]]
    value: str


@dataclass(frozen=True)
class Panel:
    """Rows with one scale."""

    heading: str
    bars: Sequence[Bar]
    limit: float


def bars(key: str, title: str, panels: Sequence[Panel], *, label_width: float, value_width: float) -> Chart:
    """Panels of the same rows: side by side where there is room, one below the other where not."""
    rows = len(panels[0].bars)
    panel_height = HEADING + ROW * rows

    def draw(figure: Figure, narrow: bool) -> None:
        width, height = figure.get_size_inches() * 72
        each = width / (1 if narrow else len(panels))
        # Side by side, the rows' labels stand once, at the left.
        for index, panel in enumerate(panels):
            labelled = narrow or index == 0
            room = (width - label_width - len(panels) * value_width - (len(panels) - 1) * GAP) / len(panels)
            left = label_width if labelled else label_width + index * (room + value_width + GAP)
            length = each - label_width - value_width if narrow else room
            top = height - HEADING - (index * (panel_height + GAP) if narrow else 0)
            axes = figure.add_axes((left / width, (top - ROW * rows) / height, length / width, ROW * rows / height))
            _bars(axes, panel, length, label_width if labelled else 0, value_width, -left if narrow else 0)

    return chart(key, title, draw, panel_height, panel_height * len(panels) + GAP * (len(panels) - 1))


def histograms(key: str, title: str, groups: Sequence[tuple[str, Sequence[float]]], label: str) -> Chart:
    """Shares by bin over 0..1, one small panel a group, all with one scale."""
    most = max(max(shares) for _, shares in groups)
    panel = 124

    def draw(figure: Figure, narrow: bool) -> None:
        columns = min(2 if narrow else 3, len(groups))
        rows = -(-len(groups) // columns)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        width, height = figure.get_size_inches() * 72
        figure.subplots_adjust(8 / width, 50 / height, 1 - 8 / width, 1 - 26 / height, 0.12 if narrow else 0.08, 0.95)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, shares) in zip(grid.flat, groups, strict=False):
            axes.set_axis_on()
            edges = [index / len(shares) for index in range(len(shares))]
            axes.bar(edges, shares, width=0.86 / len(shares), align="edge", color=KEPT, linewidth=0)
            axes.set_title(name, loc="left", fontsize=11.5, color=INK, pad=5)
            axes.set(xlim=(0, 1), ylim=(0, most * 1.05), yticks=[], xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
            axes.spines["left"].set_visible(False)
            axes.tick_params(length=3, labelsize=11)
            axes.tick_params(labelbottom=True)
        figure.text(0.5, 6 / height, label, ha="center", color=MUTED, fontsize=11.5)

    wide, narrow_rows = -(-len(groups) // 3), -(-len(groups) // 2)
    return chart(key, title, draw, wide * panel + 44, narrow_rows * panel + 44)


def curves(
    key: str,
    title: str,
    series: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[float], Sequence[float]]],
) -> Chart:
    """Mean and band by tokens: (name, tokens, mean, lowest, highest) each."""

    def draw(figure: Figure, narrow: bool) -> None:
        width, height = figure.get_size_inches() * 72
        legend = 24 * (-(-len(series) // 2) if narrow else 1)
        axes = figure.add_axes((46 / width, 44 / height, 1 - 60 / width, 1 - (44 + 30 + legend) / height))
        for (name, tokens, mean, low, high), colour in zip(series, _cycle(len(series)), strict=True):
            axes.fill_between(tokens, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(tokens, mean, color=colour, label=name)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8))
        axes.set_xlabel("training tokens", labelpad=6)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=3, labelsize=11)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(tokens[-1] for _, tokens, *_ in series))
        axes.set_title("training loss, nats per token", loc="left", fontsize=11.5, color=MUTED, pad=8 + legend)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2 if narrow else len(series), borderaxespad=0.2,
            handlelength=1.4, columnspacing=1.4, fontsize=11.5, labelcolor=INK,
        )  # fmt: skip

    return chart(key, title, draw, 340, 320)


def forest(
    key: str, title: str, panels: Sequence[tuple[str, Sequence[dict[str, Any]]]], margin: float, unit: str
) -> Chart:
    """Differences with intervals, the margin shaded; all panels have one scale. Rows: name, estimate, text, word."""
    drawn = [row for _, rows in panels for row in rows]
    ends = [abs(value) for row in drawn for value in (row["low"], row["high"], row["difference"]) if value is not None]
    reach = 1.12 * max([*ends, 1.5 * margin]) or 1.0
    row_height, axis = 44, 52

    def panel_height(rows: Sequence[Any]) -> float:
        return HEADING + row_height * len(rows) + axis

    def draw(figure: Figure, narrow: bool) -> None:
        width, height = figure.get_size_inches() * 72
        top = height
        for index, (heading, rows) in enumerate(panels):
            last = index == len(panels) - 1
            length = row_height * len(rows)
            left, right = (10, 10) if narrow else (180, 250)
            bottom = top - HEADING - length
            axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, length / height))
            _forest(axes, heading, rows, reach, margin, narrow, left, right)
            if last:
                axes.set_xlabel(f"Δ {unit}: better ← 0 → worse", labelpad=6)
            top = bottom - axis + (0 if last else 14)

    total = sum(panel_height(rows) for _, rows in panels) - 14 * (len(panels) - 1)
    return chart(key, title, draw, total, total)


def _bars(axes: Axes, panel: Panel, width: float, label_width: float, value_width: float, heading_x: float) -> None:
    rows = len(panel.bars)
    for index, bar in enumerate(panel.bars):
        y = rows - index - 1
        for start, length, colour in bar.pieces:
            # A sliver is drawn: something must not look like nothing.
            least = 1.5 * panel.limit / width if length > 0 else 0
            axes.barh(y, max(length, least), left=start, height=0.66, color=colour, linewidth=0)
        if label_width:
            _note(axes, _fit(bar.label, label_width - 10), (0, y), (-10, 0), ha="right", va="center")
        _note(axes, bar.value, (1, y), (value_width - 2, 0), ha="right", va="center", color=MUTED)
    axes.set(xlim=(0, panel.limit), ylim=(-0.5, rows - 0.5))
    _note(axes, panel.heading, (0, rows - 0.5), (heading_x, 12), color=MUTED, fontsize=11.5)
    axes.set_axis_off()
    axes.axvline(0, color=GRID, linewidth=1)


def _forest(
    axes: Axes, heading: str, rows: Sequence[dict[str, Any]], reach: float, margin: float, narrow: bool,
    left: float, right: float,
) -> None:  # fmt: skip
    if not narrow:
        _margin(axes, margin, -0.6, len(rows) - 0.4)
    for index, row in enumerate(rows):
        y = len(rows) - index - 1
        if narrow:  # the texts stand above the intervals: the band must not run through them
            _margin(axes, margin, y - 0.32, y + 0.14)
        colour = {"adopt": KEPT, "reject": AGAINST}.get(row["word"], INK)
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([row["difference"]], [y], marker="o", markersize=8, color=colour, linestyle="none")
        if narrow:
            _note(axes, _fit(row["name"], 140), (0, y), (0, 9))
            _note(axes, row["text"], (1, y), (0, 9), ha="right", color=MUTED, fontsize=11)
        else:
            _note(axes, _fit(row["name"], left - 14), (0, y), (-14, 0), ha="right", va="center")
            _note(axes, row["text"], (1, y), (right, 0), ha="right", va="center", color=MUTED)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(rows) - 0.4), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if abs(x) < 1e-12 else f"{x:+.3g}"))
    axes.tick_params(length=3, labelsize=11)
    _note(axes, heading, (0, len(rows) - 0.4), (-left, 10), color=MUTED, fontsize=11.5)


def _note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Text at (share of the width, data row), moved by pixels."""
    axes.annotate(text, at, offset, xycoords=("axes fraction", "data"), textcoords="offset points", **style)


def _fit(label: str, width: float) -> str:
    """`label`, cut so that it stays inside `width`; the table beside the chart has it in full."""
    most = int(width / CHARACTER)
    return label if len(label) <= most else label[: most - 1] + "…"


def _margin(axes: Axes, margin: float, low: float, high: float) -> None:
    axes.fill_between([-margin, margin], low, high, color=NEUTRAL, alpha=0.35, linewidth=0)
    axes.plot([0, 0], [low, high], color=MUTED, linewidth=1)


def _cycle(number: int) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(number)]


def _short(tokens: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(tokens) >= size:
            return f"{tokens / size:g} {unit}"
    return f"{tokens:g}"
