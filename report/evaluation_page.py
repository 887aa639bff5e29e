"""The page of one or more evaluations: scores with intervals, differences with verdicts, and the items behind them.

In: folders of evaluations. Out: one HTML file with its styles and charts inside. It holds no script, and a content
security policy forbids the page to run or to load anything, because what it shows was written by models: the filters
over the items are radio buttons that style rules look at, so they work from the keyboard and offline. The same
evaluations give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..eval.comparison import compare, difference_text, estimate_text, task_label
from ..eval.evaluations import SETTINGS, Model, read_models
from ..eval.notes import cut_notes, data_notes
from ..eval.verdicts import p_text
from ..files import write_atomic
from . import formats
from .evaluation_items import CHANGES, MAX_ITEMS, TaskItems, task_items
from .excerpts import visible
from .forest import forest_chart

HERE = Path(__file__).parent

SHAPES = {"better": "▲", "worse": "▼", "no decision": "●", "baseline": ""}


def write_evaluation_page(
    folders: Sequence[Path],
    out: Path,
    baseline: Path | str | None = None,
    *,
    max_items: int = MAX_ITEMS,
    **options: Any,
) -> Path:
    """Write the page; returns its path.

    Args:
        folders: evaluations, as for `compare`; one is enough.
        out: the HTML file.
        baseline: folder or name of the model that the others are compared with; default: the first.
        max_items: items a task that are shown in full.
        options: of `compare`.

    Raises:
        ConfigError: if a folder holds no evaluation.
        ValueError: if the models were not asked the same.
    """
    comparison = compare(folders, baseline, **options)
    models = read_models(folders, bool(options.get("by_seed")))
    write_atomic(out, render(comparison, models, max_items))
    return out


def render(comparison: Mapping[str, Any], models: Sequence[Model], max_items: int = MAX_ITEMS) -> str:
    """The page as text."""
    names = [model["name"] for model in comparison["models"]]
    ordered = sorted(models, key=lambda model: names.index(model.name))
    sections = [task_items(ordered, task, max_items) for task in comparison["tasks"]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": formats.count,
        "percent": formats.percent,
        "value": formats.value,
        "visible": visible,
        "p": p_text,
        "estimate": estimate_text,
        "difference": difference_text,
        "label": task_label,
    }
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "evaluation.css"))
    words = _outcomes(sections)
    return environment.get_template("evaluation.html").render(
        title=" · ".join(names),
        comparison=comparison,
        models=[(model, _settings(model)) for model in ordered],
        tasks=[(task, _facts(ordered, task), _chance(ordered[0], task)) for task in comparison["tasks"]],
        suites=_suites(ordered),
        executed=[task for task in comparison["tasks"] if task["kind"] != "bits_per_byte"],
        habits=_habits(ordered, comparison),
        sections=sections,
        words=words,
        changes=CHANGES if len(ordered) > 1 else {},
        filters=Markup(_filters(sections, words)),
        empty=[_empty(section, words) for section in sections],
        chart=forest_chart("forest", comparison) if any(task["differences"] for task in comparison["tasks"]) else None,
        shapes=SHAPES,
        style=Markup(style),
    )


def _settings(model: Model) -> dict[str, Any]:
    """What the model was measured with, as far as it is set."""
    facts = model.evaluations[0].facts
    config = {name: facts.get("config", {}).get(name) for name in SETTINGS}
    backend = {name: value for name, value in facts.get("backend", {}).items() if isinstance(value, str | int | float)}
    found = {**{name: value for name, value in config.items() if value is not None}, **backend}
    return {name: visible(str(value)) for name, value in found.items()}


def _facts(models: Sequence[Model], task: Mapping[str, Any]) -> list[str]:
    """What a reader must know of a task before its score: how much of it, how it was run and judged."""
    facts = models[0].evaluations[0].facts["tasks"][task["task"]]
    found = data_notes(facts, task["items"])
    if task["clusters"] != task["items"]:
        found.append(f"{task['clusters']:,} clusters")
    samples = max(estimate["samples"] for estimate in task["estimates"])
    if samples > 1:
        found.append(f"{samples} answers an item")
    if facts.get("reference_pass_rate") is not None:
        found.append(f"references pass {100 * facts['reference_pass_rate']:.4g} %")
    executed = {model.name: text for model in models if (text := _executed(model, task["task"]))}
    agreed = len(set(executed.values())) == 1 and len(executed) == len(models)
    found += list(executed.values())[:1] if agreed else [f"{name}: {text}" for name, text in executed.items()]
    cut = {model.name: ", ".join(cut_notes(_task_facts(model, task))) for model in models}
    agreed = len(set(cut.values())) == 1
    shown = [next(iter(cut.values()))] if agreed else [f"{name}: {text}" for name, text in cut.items() if text]
    return [*found, *filter(None, shown)]


def _task_facts(model: Model, task: Mapping[str, Any]) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = model.evaluations[0].facts["tasks"][task["task"]]
    return facts


def _executed(model: Model, task: str) -> str:
    """How programs were run and judged; "" if none were."""
    items = model.evaluations[0].items
    of_task = items.filter(items["task"] == task)
    levels = of_task["sandbox_level"].drop_nulls().unique().sort().to_list()
    if not levels:
        return ""
    weak = of_task.filter(of_task["judge"] == "weak")["item"].n_unique()
    judge = f"{weak:,} item{'s' if weak > 1 else ''} judged weakly" if weak else "judge apart from the program"
    return f"sandbox level {', '.join(map(str, levels))}, {judge}"


def _chance(model: Model, task: Mapping[str, Any]) -> float | None:
    found: float | None = _metrics(model, task).get("chance")
    return found if task["metric"].startswith("accuracy") else None


def _metrics(model: Model, task: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model.evaluations[0].facts.get("metrics", {}).get(task["task"], {})
    stream: Mapping[str, Any] = found.get(task["stream"], {})
    return stream


def _suites(models: Sequence[Model]) -> list[dict[str, Any]]:
    """A row a group and average, with a mean a model; a group that is not complete says so in each model's cell."""
    found = []
    for suite, summary in models[0].evaluations[0].facts.get("suites", {}).items():
        rows = []
        every = [model.evaluations[0].facts.get("suites", {}).get(suite, {}) for model in models]
        for name, group in summary.get("groups", {}).items():
            groups = [each.get("groups", {}).get(name, {}) for each in every]
            rows.append((name, group.get("title", name), [_mean(each) for each in groups], _why(groups)))
        for name in summary.get("averages", {}):
            values = [each.get("averages", {}).get(name) for each in every]
            rows.append((name, f"average: {name}", ["–" if each is None else f"{each:.4f}" for each in values], []))
        found.append({"title": summary.get("title", suite), "rows": rows, "name": suite})
    return found


def _mean(group: Mapping[str, Any]) -> str:
    """The mean, in brackets where it is that of a part, with the part."""
    if group.get("mean") is not None:
        return f"{group['mean']:.4f}"
    if group.get("mean_of_available") is None:
        return "–"
    tasks = len(group.get("tasks", {}))
    part = f", {tasks} task{'' if tasks == 1 else 's'}" if tasks else ""
    return f"({group['mean_of_available']:.4f}{part})"


def _why(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps a group from being the paper's, for any of the models."""
    missing = [f"{task} missing" for group in groups for task in group.get("missing", [])]
    tasks = [pair for group in groups for pair in group.get("tasks", {}).items()]
    reasons = [f"{name}: {reason}" for name, task in tasks for reason in task.get("why", [])]
    return list(dict.fromkeys([*missing, *reasons]))


def _habits(models: Sequence[Model], comparison: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Task, model and win-rate facts, of tasks that another model judged."""
    return [
        (task["task"], model.name, facts)
        for task in comparison["tasks"]
        if task["kind"] == "judge"
        for model in models
        if "win_rate" in (facts := _metrics(model, task))
    ]


def _outcomes(sections: Sequence[TaskItems]) -> list[str]:
    return sorted({word for section in sections for item in section.items for word in item.outcomes})


def _filters(sections: Sequence[TaskItems], words: Sequence[str]) -> str:
    """Style rules: a chosen button hides what it does not name. Ids are numbers: no name gets into a rule.

    The buttons are siblings before the items, so `~` finds them; `:has` on the whole page took a browser half a minute.
    """
    options = {"t": len(sections), "o": len(words), "c": len(CHANGES)}
    hidden = {"t": ".task:not(.{0})", "o": ".task .item:not(.{0})", "c": ".task .item:not(.{0})"}
    rules = [
        f"#{letter}{n}:checked ~ {hidden[letter].format(f'{letter}{n}')}"
        for letter, number in options.items()
        for n in range(number)
    ]
    compared = any(section.by_change for section in sections)
    said = [
        f"#{outcome}:checked ~ " + (f"#{change}:checked ~ " if compared else "") + f".task .e-{outcome}-{change}"
        for outcome, change in product(_choices("o", len(words)), _choices("c", len(CHANGES) if compared else 0))
    ]
    return ",\n".join(rules) + " { display: none; }\n" + ",\n".join(said) + " { display: block; }"


def _choices(letter: str, number: int) -> list[str]:
    """Ids of the buttons of one filter; the first leaves all."""
    return [f"{letter}-any", *(f"{letter}{n}" for n in range(number))]


def _empty(section: TaskItems, words: Sequence[str]) -> list[str]:
    """Classes of the choices under which no item of the task is left."""
    there = set()
    for item in section.items:
        changes = ["c-any"] if item.change is None else ["c-any", f"c{list(CHANGES).index(item.change)}"]
        there |= set(product(["o-any", *(f"o{words.index(word)}" for word in item.outcomes)], changes))
    every = product(_choices("o", len(words)), _choices("c", len(CHANGES)))
    return [f"e-{outcome}-{change}" for outcome, change in every if (outcome, change) not in there]
