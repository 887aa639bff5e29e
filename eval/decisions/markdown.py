"""A decision record as a page that a person reads in a minute: question, answer, table, reasons, limits."""

from __future__ import annotations

from typing import Any


def render(record: dict[str, Any]) -> str:
    """Markdown of the record."""
    parts = [
        f"# Decision: {record['name']}",
        record["question"],
        f"**{record['conclusion']}**",
        _table(record),
        _legend(record),
        "## Why",
        _reasons(record),
        "## Elsewhere",
        _guardrails(record),
        "## How sure",
        _evidence(record),
        "## What would undo it",
        "\n".join(f"- {line}" for line in record["invalidated_if"]),
        "## Rule",
        f"{record['rule']['text']} (hash `{record['rule']['hash']}`{_planned(record)})",
    ]
    return "\n\n".join(parts) + "\n"


def interval(estimate: dict[str, Any] | None) -> str:
    """`−0.0280 [−0.0410, −0.0150]`; a dash where there is nothing."""
    if estimate is None:
        return "–"
    if estimate["low"] is None:
        return f"{estimate['difference']:+.4f} [no interval]"
    return f"{estimate['difference']:+.4f} [{estimate['low']:+.4f}, {estimate['high']:+.4f}]"


def _table(record: dict[str, Any]) -> str:
    controls = {arm["against_control"]["baseline"] for arm in record["arms"] if arm["against_control"]}
    against = controls.pop() if len(controls) == 1 else "random drop"
    lines = [
        f"| arm | keep % | {record['metric']['unit']} | Δ vs {record['baseline']} | Δ vs {against} | verdict |",
        "|---|---:|---:|---|---|---|",
    ]
    lines += [
        f"| {arm['name']} | {100 * arm['keep_rate']:.1f} | {arm['mean']:.4f} | "
        f"{interval(arm['against_baseline'])} | {interval(arm['against_control'])} | **{arm['verdict']['word']}** |"
        for arm in record["arms"]
    ]
    return "\n".join(lines)


def _legend(record: dict[str, Any]) -> str:
    margin = record["margin"]
    metric = record["metric"]
    languages = ", ".join(each or "all" for each in metric["languages"])
    return (
        f"Keep % is of the pool's bytes. {metric['unit'].capitalize()} on {metric['stream']} ({languages}); lower is "
        f"better, so a negative Δ is a gain. Intervals: "
        f"{100 * record['confidence']:g} %, simultaneous over {record['comparisons']} comparisons. A difference counts "
        f"from {margin['value']:.4f} ({100 * margin['fraction']:g} % of the baseline).{_training(record)}"
    )


def _training(record: dict[str, Any]) -> str:
    """Which arms are trained in a way of their own."""
    own = {arm["name"]: arm["train"] for arm in record["arms"] if arm.get("train")}
    settings = {name: ", ".join(f"{key}: {value}" for key, value in train.items()) for name, train in own.items()}
    return "".join(f" {name} is trained with {listed}." for name, listed in settings.items())


def _reasons(record: dict[str, Any]) -> str:
    lines = []
    for arm in record["arms"]:
        if arm["role"] != "candidate":
            continue
        lines.append(f"- **{arm['name']}**, {arm['verdict']['word']}: {arm['verdict']['reason']}.")
        lines += [f"    - Mind: {caveat}." for caveat in arm["caveats"]]
    return "\n".join(lines)


def _guardrails(record: dict[str, Any]) -> str:
    """Δ against the baseline on the other streams and on each language, arms side by side."""
    arms = [arm for arm in record["arms"] if arm["guardrails"]]
    if not arms:
        return "Nothing else was measured."
    names = [guardrail["name"] for guardrail in arms[0]["guardrails"]]
    lines = [
        f"| Δ vs {record['baseline']}, intervals one by one | " + " | ".join(arm["name"] for arm in arms) + " |",
        "|---|" + "---|" * len(arms),
    ]
    for position, name in enumerate(names):
        cells = [arm["guardrails"][position] for arm in arms]
        shown = [interval(cell) + (" **worse**" if cell["is_breached"] else "") for cell in cells]
        lines.append(
            f"| {name} ({cells[0]['documents']} documents, {cells[0]['clusters']} families) | "
            + " | ".join(shown)
            + " |"
        )
    return "\n".join(lines) + _problems(record)


def _problems(record: dict[str, Any]) -> str:
    scores = [(arm["name"], arm["pass_at_1"]) for arm in record["arms"] if arm["pass_at_1"]]
    if not scores:
        return ""
    listed = "; ".join(
        f"{name} {score['passed']} of {score['answers']} (95 % {100 * score['low']:.1f}–{100 * score['high']:.1f} %)"
        for name, score in scores
    )
    return f"\n\nProblems solved at the first try, over all seeds (a note, it decides nothing): {listed}."


def _evidence(record: dict[str, Any]) -> str:
    evidence, noise = record["evidence"], record["noise"]
    lines = [
        f"- {len(evidence['seeds'])} paired seeds; {evidence['documents']} held-out documents of "
        f"{evidence['families']} families (worth {evidence['effective_families']:.1f} of equal size)."
    ]
    for name, each in noise["against_baseline"].items():
        if each["smallest_detectable"] is None:
            continue
        correlation = each["pairing_correlation"]
        paired = "" if correlation is None else f", correlation of the pairs {correlation:.2f}"
        lines.append(
            f"- {name}: sd over seeds {each['arm_sd']:.4f} alone, {each['seed_sd']:.4f} paired{paired}; smallest "
            f"difference that this design finds four times in five: {each['smallest_detectable']:.4f}."
        )
    proxy, cost = record["proxy"], record["cost"]
    if proxy:
        size = f"{proxy['parameters']:,} parameters, " if proxy["parameters"] else ""
        lines.append(
            f"- Proxy: {size}{proxy['tokens']:,} tokens a run, learning rate {proxy['learning_rate']:g}; "
            f"{cost['runs']} runs, {cost['training_tokens']:,} tokens in all."
        )
    return "\n".join(lines)


def _planned(record: dict[str, Any]) -> str:
    fixed = record["rule"]["fixed_before_launch"]
    if fixed is None:
        return ""
    return (
        ", the same before launch"
        if fixed
        else f", **changed since launch**, it was `{record['rule']['planned_hash']}`"
    )
