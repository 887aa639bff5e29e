"""Matplotlib figures as inline SVG that takes its colours and fonts from the page.

A chart is drawn with sentinel colours, one a role; in the SVG they become `currentColor` and CSS variables, so the
same drawing is right in light and dark. Text stays text. The bytes are reproducible: fixed hash salt, no date, and no
settings from the user's matplotlibrc. Every chart is drawn twice, for wide and for narrow screens, because scaling one
drawing to a phone makes its labels unreadable. Units are CSS pixels at the drawing's natural width.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDE, NARROW = 880, 340
POINTS_PER_INCH = 72

INK, MUTED, GRID, KEPT, AGAINST, AGAINST_LIGHT, NEUTRAL = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707",
)  # fmt: skip
SERIES = ("#110101", "#120101", "#130101", "#140101", "#150101", "#160101")
ROLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    KEPT: "var(--kept)",
    AGAINST: "var(--against)",
    AGAINST_LIGHT: "var(--against-light)",
    NEUTRAL: "var(--neutral)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
"""Sentinel → what the page's style sheet decides."""

SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 1.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "codesieve",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
}


@dataclass(frozen=True)
class Chart:
    """One drawing in two widths."""

    wide: Markup
    narrow: Markup


Draw = Callable[[Figure, bool], None]
"""Draws on a figure whose size is set; the flag says whether it is the narrow one."""


def chart(key: str, title: str, draw: Draw, height: float, narrow_height: float) -> Chart:
    """Both drawings; `key` makes ids unique on the page, `title` is what a screen reader says."""
    return Chart(
        wide=_render(f"{key}-wide", title, lambda figure: draw(figure, False), WIDE, height),
        narrow=_render(f"{key}-narrow", title, lambda figure: draw(figure, True), NARROW, narrow_height),
    )


def _render(key: str, title: str, draw: Callable[[Figure], None], width: float, height: float) -> Markup:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_inline(file.getvalue(), key, title, width, height))


def _inline(svg: str, key: str, title: str, width: float, height: float) -> str:
    """The SVG element for a page: no prolog, no metadata, no name spaces, own ids, roles in place of colours."""
    inner = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    # Its style sheet would hold for the whole page; the page has the two lines.
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", inner).replace("xlink:href", "href")
    # The family is the page's; matplotlib writes it as `font-family:` or within `font:`, depending on its version.
    inner = re.sub(r"font-family: [^;\"]*(;\s*)?", "", inner)
    inner = re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;\"]*", _font, inner)
    for sentinel, role in ROLES.items():
        inner = inner.replace(sentinel, role)
    inner = re.sub(r"\n\s*", "\n", inner).strip()
    label = Markup.escape(title)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{key}-title">'
        f'<title id="{key}-title">{label}</title>\n{inner}\n</svg>'
    )


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}"
