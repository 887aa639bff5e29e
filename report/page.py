"""The report page: one HTML file with its styles and charts inside, no scripts, and nothing loaded from anywhere.

In: a run directory. Out: `report.html` in it. Everything that comes from documents is escaped, and a content security
policy forbids the page to run or to load anything. The same run directory gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..eval.decisions.markdown import interval
from ..files import write_atomic
from . import formats
from .data import Report, read_run
from .excerpts import visible

HERE = Path(__file__).parent

SANDBOX_LEVELS = {
    1: "limits on time, memory, processes and files only: it protects against accidents, not against intent",
    2: "files out of reach, and limits",
    3: "no network, no other processes, a read-only file tree, and limits",
}
"""As `sandbox.containment` defines them."""


def write_report(run: Path) -> Path:
    """Write `report.html` of a run; returns its path.

    Raises:
        ConfigError: if `run` is not a run directory, or its curation is not finished.
    """
    page = run / "report.html"
    write_atomic(page, render(read_run(run)))
    return page


def render(report: Report) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "percent", "seconds", "share", "size", "value"):
        environment.filters[name] = getattr(formats, name)
    environment.filters["interval"] = interval
    environment.filters["visible"] = visible
    return environment.get_template("page.html").render(
        report=report,
        summary=report.summary,
        charts=_charts(report),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        sandbox_levels=SANDBOX_LEVELS,
    )


def _charts(report: Report) -> dict[str, Any]:
    """Chart by name; a chart without data is not there."""
    from . import charts
    from .comparisons import comparison_chart

    found: dict[str, Any] = {"funnel": charts.funnel_chart(report.steps)}
    if report.summary["reasons"]:
        found["rules"] = charts.rules_chart(report.summary["reasons"])
    for number, comparison in enumerate(report.comparisons):
        found[f"comparison-{number}"] = comparison_chart(f"comparison-{number}", comparison)
    if report.summary["languages"]:
        found["languages"] = charts.languages_chart(report.summary["languages"])
    if report.scores:
        found["scores"] = charts.scores_chart("scores", report.scores.by_language)
    if report.curves:
        found["training"] = charts.training_chart(report.curves)
    for number, record in enumerate(report.records):
        found[f"decision-{number}"] = charts.decision_chart(f"decision-{number}", record)
    return found
