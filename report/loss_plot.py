"""A PNG of one run: loss by source against tokens, stage by stage, and the learning rate below.

In: `metrics.jsonl` and the run's stages. A point is the mean of some steps, as on the report's page, and no point mixes
two stages. With more than one objective the loss of each is a dashed line. The scale leaves out the fall from the
random start. Colours are those of the page in its light form; the bytes depend on the metrics and matplotlib alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..files import replacing
from ..train.metrics import read_metrics
from .svg import GRID, INK, MUTED, POINTS_PER_INCH, ROLES, SERIES, SETTINGS
from .training import POINTS, SKIPPED_FRACTION

WIDTH, HEIGHT = 880, 520
PIXELS_PER_UNIT = 2
LEGEND_ROW, NAMES_ROW = 17, 24

DASHES = ((5, 2), (2, 1.5), (7, 2, 1.5, 2), (1, 1.2))
"""Patterns of objectives, which share the colours that sources left over."""

Lines = dict[str, tuple[list[float], list[float]]]
"""Name → tokens and loss of its points; NaN where the line has a gap."""


def plot_losses(metrics_path: Path, out_png: Path, stages: Sequence[Mapping[str, Any]]) -> None:
    """Draw the run into `out_png`.

    Args:
        stages: each with `name` and `tokens`, in order, as in `training.json`.

    Raises:
        ValueError: if the run has no steps yet.
    """
    table = read_metrics(metrics_path)
    if table.is_empty():
        raise ValueError(f"{metrics_path}: no steps in it, nothing to draw")
    borders = [0, *np.cumsum([stage["tokens"] for stage in stages]).tolist()]
    sources, objectives = _lines(table, "losses", borders), _lines(table, "losses_by_objective", borders)
    if len(objectives) < 2:
        objectives = {}
    colours = _colours()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({key: colours.get(str(value), value) for key, value in SETTINGS.items()})
        figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, HEIGHT / POINTS_PER_INCH), facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure, table, sources, objectives, [str(stage["name"]) for stage in stages], borders, colours)
        with replacing(out_png) as temporary:
            figure.savefig(temporary, format="png", dpi=POINTS_PER_INCH * PIXELS_PER_UNIT, metadata={"Software": None})


def _draw(
    figure: Figure, table: pl.DataFrame, sources: Lines, objectives: Lines, stages: list[str], borders: list[int],
    colours: Mapping[str, str],
) -> None:  # fmt: skip
    rows = -(-len(sources) // 5) + (-(-len(objectives) // 5) if objectives else 0)
    names_row = NAMES_ROW if len(stages) > 1 else 8
    above, left, right = LEGEND_ROW * rows + names_row, 52, 20
    loss_bottom, rate_bottom, rate_height = 150, 46, 70
    width, top = 1 - (left + right) / WIDTH, 1 - (36 + above) / HEIGHT
    upper = figure.add_axes((left / WIDTH, loss_bottom / HEIGHT, width, top - loss_bottom / HEIGHT))
    lower = figure.add_axes((left / WIDTH, rate_bottom / HEIGHT, width, rate_height / HEIGHT), sharex=upper)
    series = [colours[role] for role in SERIES]
    drawn = []
    for number, (name, (tokens, losses)) in enumerate(sources.items()):
        drawn += upper.plot(tokens, losses, color=series[number % len(series)], label=name, zorder=3)
    for number, (name, (tokens, losses)) in enumerate(objectives.items()):
        colour = series[(len(sources) + number) % len(series)]
        dashes = DASHES[number % len(DASHES)]
        drawn += upper.plot(tokens, losses, color=colour, label=name, dashes=dashes, linewidth=1.5, zorder=2)
    lower.plot(table["tokens_seen"], table["learning_rate"], color=colours[INK], linewidth=1.4)

    peak = float(table["learning_rate"].max())  # type: ignore[arg-type]
    heading = "training loss, nats per token" + ("; solid: by source, dashed: by objective" if objectives else "")
    upper.set_ylim(*_limits([*sources.values(), *objectives.values()], borders[-1]))
    lower.set_ylim(0, 1.1 * peak or 1.0)
    lower.set_xlim(0, borders[-1])
    _stages(upper, lower, stages, borders, colours)
    for axes, text, pad in ((upper, heading, 10 + above), (lower, "learning rate", 6)):
        axes.set_title(text, loc="left", fontsize=11.5, color=colours[MUTED], pad=pad)
        axes.grid(axis="y", color=colours[GRID], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=3, labelsize=11)
        axes.tick_params(axis="y", length=0)
    upper.tick_params(labelbottom=False)
    lower.set_yticks([0, peak] if peak else [0])
    lower.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    lower.xaxis.set_major_locator(MaxNLocator(8))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tokens(x)))
    lower.set_xlabel("training tokens", labelpad=6)
    _legends(upper, names_row, drawn[: len(sources)], drawn[len(sources) :], colours[INK])


def _legends(axes: Axes, names_row: float, sources: Sequence[Any], objectives: Sequence[Any], ink: str) -> None:
    """Sources, and below them objectives, between the heading and the names of the stages."""
    style: dict[str, Any] = {
        "loc": "lower left", "borderaxespad": 0.1, "columnspacing": 1.6, "fontsize": 11, "labelcolor": ink,
        "labelspacing": 0.35,
    }  # fmt: skip
    height = axes.get_position().height * HEIGHT
    above = names_row / height
    if objectives:
        rows = -(-len(objectives) // 5)
        axes.add_artist(
            axes.legend(handles=objectives, bbox_to_anchor=(-0.01, 1 + above), ncols=5, handlelength=2.6, **style)
        )
        above += LEGEND_ROW * rows / height
    axes.legend(handles=sources, bbox_to_anchor=(-0.01, 1 + above), ncols=5, handlelength=1.6, **style)


def _stages(upper: Axes, lower: Axes, names: list[str], borders: list[int], colours: Mapping[str, str]) -> None:
    """A line where a stage begins, and the names above, cut where they have no room."""
    if len(names) < 2:
        return
    room = upper.get_position().width * WIDTH / borders[-1]
    for name, begin, end in zip(names, borders[:-1], borders[1:], strict=True):
        most = max(1, int(room * (end - begin) / 6.6))
        text = name if len(name) <= most else name[: most - 1] + "…"
        upper.annotate(
            text, ((begin + end) / 2, 1), (0, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", fontsize=10.5, color=colours[MUTED], annotation_clip=False,
        )  # fmt: skip
        if begin:
            upper.axvline(begin, ymax=1.06, clip_on=False, color=colours[MUTED], linewidth=0.9, zorder=1)
            lower.axvline(begin, color=colours[MUTED], linewidth=0.9, zorder=1)


def _lines(table: pl.DataFrame, column: str, borders: list[int]) -> Lines:
    """Thinned means of every field of a struct column, with a gap at the end of every stage."""
    if column not in table.columns:
        return {}
    # A skipped step changed nothing, and its loss would be all that one sees.
    used = table.filter(~pl.col("skipped") & pl.col("loss").is_not_null())
    tokens = used["tokens_seen"].to_numpy().astype(np.float64)
    points = 2 * POINTS  # over the whole run: twice a report's curve, on paper that is twice as large
    lines: Lines = {}
    for field in used[column].struct.fields:
        values = used[column].struct.field(field).cast(pl.Float64).fill_null(float("nan")).to_numpy()
        xs: list[float] = []
        ys: list[float] = []
        for begin, end in itertools.pairwise(borders):
            steps = np.flatnonzero((tokens > begin) & (tokens <= end))
            parts = np.array_split(steps, max(1, min(len(steps), round(points * (end - begin) / borders[-1]))))
            found = [part[np.isfinite(values[part])] for part in parts]
            for part in found:
                if len(part):
                    xs.append(float(tokens[part].mean()))
                    ys.append(float(values[part].mean()))
            # A gap, so that a jump at a join is a jump.
            xs.append(float(end))
            ys.append(float("nan"))
        if np.isfinite(ys).any():
            lines[field] = (xs, ys)
    return lines


def _limits(lines: Sequence[tuple[list[float], list[float]]], total: float) -> tuple[float, float]:
    """From the lowest point to the highest that is not part of the first fall."""
    late = [y for xs, ys in lines for x, y in zip(xs, ys, strict=True) if x >= SKIPPED_FRACTION * total]
    shown = np.array(late or [y for _, ys in lines for y in ys])
    low, high = (float(np.nanmin(shown)), float(np.nanmax(shown))) if np.isfinite(shown).any() else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _colours() -> dict[str, str]:
    """Sentinel colours of the charts → colours of the page's light form."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--([\w-]+):\s*(#\w+);", style[: style.index("@media")]))
    names = {sentinel: role.removeprefix("var(--").removesuffix(")") for sentinel, role in ROLES.items()}
    return {sentinel: light["ink" if name == "currentColor" else name] for sentinel, name in names.items()}


def _tokens(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
