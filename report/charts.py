"""The charts of the page, from the values of `data`. What a chart says in text is what the table beside it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..eval.decisions.markdown import interval
from .counts import NOT_SAMPLED, Step
from .formats import count, percent, share, size
from .plots import Bar, Panel, bars, curves, forest, histograms
from .scores import Distribution
from .svg import AGAINST, AGAINST_LIGHT, KEPT, MUTED, NEUTRAL, Chart
from .training import Curve

MAX_SKIPS = 4
MAX_RULES = 16
MAX_LANGUAGES = 10


def funnel_chart(steps: Sequence[Step]) -> Chart:
    """Documents and bytes from files to the selection; what is lost hangs where it is lost."""
    shown = _with_few_skips(steps)
    title = "Funnel: " + "; ".join(f"{s.label} {count(s.documents)} documents, {size(s.bytes)}" for s in shown)
    documents = _waterfall([(s, s.documents, count(s.documents)) for s in shown], with_skips=True)
    # Bytes in are those of the files that were read; libraries and images beside them would dwarf everything.
    sizes = _waterfall([(s, s.bytes, size(s.bytes)) for s in shown], with_skips=False)
    panels = [Panel("documents", *documents), Panel("bytes", *sizes)]
    return bars("funnel", title, panels, label_width=172, value_width=76)


def rules_chart(reasons: Sequence[Mapping[str, Any]]) -> Chart:
    """Bytes that each rule stands against: alone, and together with other rules."""
    shown = reasons[:MAX_RULES]
    rows = [
        Bar(
            row["reason"],
            [
                (0, row["bytes_alone"], AGAINST),
                (row["bytes_alone"], row["bytes"] - row["bytes_alone"], AGAINST_LIGHT),
            ],
            size(row["bytes"]),
        )
        for row in shown
    ]
    title = "Bytes by rule: " + "; ".join(f"{row['reason']} {size(row['bytes'])}" for row in shown)
    panel = Panel("bytes: alone (strong), with other rules (faint)", rows, max(row["bytes"] for row in shown) or 1)
    return bars("rules", title, [panel], label_width=172, value_width=76)


def languages_chart(languages: Sequence[Mapping[str, Any]]) -> Chart:
    """Bytes in and selected, for the largest languages."""
    shown = languages[:MAX_LANGUAGES]
    rows = [
        Bar(
            row["language"],
            [(0, row["bytes"], NEUTRAL), (0, row["bytes_selected"], KEPT)],
            f"{size(row['bytes_selected'])} · {percent(share(row['bytes_selected'], row['bytes']))}",
        )
        for row in shown
    ]
    title = "Bytes by language, selected of all: " + "; ".join(
        f"{row['language']} {size(row['bytes_selected'])} of {size(row['bytes'])}" for row in shown
    )
    panel = Panel("bytes: selected, of all (grey)", rows, max(row["bytes"] for row in shown) or 1)
    return bars("languages", title, [panel], label_width=122, value_width=128)


def scores_chart(key: str, distributions: Sequence[Distribution]) -> Chart:
    """How the quality probability is distributed, a panel a group."""
    groups = [(f"{each.name} ({count(each.documents)})", each.shares) for each in distributions]
    title = "Quality probability of documents: " + ", ".join(name for name, _ in groups)
    return histograms(key, title, groups, "quality probability")


def training_chart(found: Sequence[Curve]) -> Chart:
    """Loss by tokens, an arm a colour, with the range over seeds."""
    ends = "; ".join(f"{curve.arm} ends at {curve.mean[-1]:.3f}" for curve in found)
    return curves(
        "training", f"Training loss by tokens: {ends}", [(c.arm, c.tokens, c.mean, c.lowest, c.highest) for c in found]
    )


def decision_chart(key: str, record: Mapping[str, Any]) -> Chart:
    """Differences to the baseline and to the random drops, with their simultaneous intervals."""
    panels = []
    for field in ("against_baseline", "against_control"):
        by_other: dict[str, list[dict[str, Any]]] = {}
        for arm in record["arms"]:
            if arm[field]:
                row = {
                    "name": arm["name"],
                    "text": interval(arm[field]),
                    "word": arm["verdict"]["word"],
                    **{end: arm[field][end] for end in ("difference", "low", "high")},
                }
                by_other.setdefault(arm[field]["baseline"], []).append(row)
        panels += [(f"difference to {other}", rows) for other, rows in by_other.items()]
    title = f"Differences in {record['metric']['unit']}. " + "; ".join(
        f"{row['name']}, {heading}: {row['text']}" for heading, rows in panels for row in rows
    )
    return forest(key, title, panels, record["margin"]["value"], record["metric"]["unit"])


def _with_few_skips(steps: Sequence[Step]) -> list[Step]:
    """Files that were left out of a sample on purpose are not part of the picture; rare skips are one row."""
    left_out = sum(step.documents for step in steps if step.label == NOT_SAMPLED)
    skips = [step for step in steps if step.part == "skipped" and step.label != NOT_SAMPLED]
    if len(skips) > MAX_SKIPS:
        rest = skips[MAX_SKIPS - 1 :]
        more = Step("skipped", "other skips", sum(s.documents for s in rest), sum(s.bytes for s in rest))
        skips = [*skips[: MAX_SKIPS - 1], more]
    first, *others = [step for step in steps if step.part != "skipped"]
    if left_out:
        first = Step("in", "files in the sample", first.documents - left_out, first.bytes)
    return [first, *skips, *others]


def _waterfall(rows: Sequence[tuple[Step, int, str]], with_skips: bool) -> tuple[list[Bar], float]:
    """Bars and their scale: skips hang beyond what was annotated, rejections run down from it to the selection."""
    annotated = next(amount for step, amount, _ in rows if step.part == "annotated")
    skips = [amount for step, amount, _ in rows if step.part == "skipped" and with_skips]
    above, below = annotated + sum(skips), annotated
    limit = max(above, *(amount for step, amount, _ in rows if step.part != "skipped"), 1)
    drawn = []
    for step, amount, text in rows:
        pieces = [(0, amount, KEPT if step.part == "selected" else MUTED)]
        if step.part == "skipped":
            above -= amount
            pieces = [(above, amount, NEUTRAL)] if with_skips else []
        elif step.part == "rejected":
            below -= amount
            pieces = [(below, amount, AGAINST)]
        label = f"− {step.label}" if step.part in {"skipped", "rejected"} else step.label
        drawn.append(Bar(label, pieces, text))
    return drawn, limit
