"""From items to metrics: pure functions, so that another metric needs no model.

Every share carries an interval: Wilson's where items stand on their own, a bootstrap over clusters where they do not.
Of several answers to an item, pass@k is the mean over items of the unbiased estimate. Chance is given where there is
one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from .normalisation import NORMALISATIONS, choice_correct
from .paired import single
from .statistics import bits_per_byte, pass_at_k
from .store import WHOLE_STREAMS
from .winrate import win_rate

Metrics = dict[str, Any]


def metrics(
    items: pl.DataFrame, facts: Mapping[str, Mapping[str, Any]] | None = None, pass_at: Sequence[int] = (1,)
) -> dict[str, dict[str, Metrics]]:
    """Task → stream → metric, of one model's items.

    Args:
        items: as `store.ITEMS` says.
        facts: of each task, as `evaluation.json` has them; names the metric that stands for a task of choices.
        pass_at: k of pass@k.
    """
    facts = facts or {}
    found: dict[str, dict[str, Metrics]] = {}
    for (task, stream), part in sorted(items.partition_by("task", "stream", as_dict=True).items()):
        kind = KINDS.get(str(stream), _heldout)
        found.setdefault(str(task), {})[str(stream)] = kind(part, facts.get(str(task), {}), pass_at)
    return found


def _heldout(items: pl.DataFrame, facts: Mapping[str, Any], pass_at: Sequence[int]) -> Metrics:
    languages = {
        str(key[0]): _bits_per_byte(part) for key, part in sorted(items.partition_by("language", as_dict=True).items())
    }
    mean = sum(each["bits_per_byte"] for each in languages.values()) / len(languages)
    whole = items["stream"][0] in WHOLE_STREAMS
    micro = _bits_per_byte(items)
    # What decides: languages count the same in code, a stream of text is one.
    return {**micro, "micro": micro["bits_per_byte"], "mean_of_languages": mean, "languages": languages} | {
        "bits_per_byte": micro["bits_per_byte"] if whole else mean
    }


def _bits_per_byte(items: pl.DataFrame) -> Metrics:
    size_bytes = int(items["bytes"].sum())
    return {
        "bits_per_byte": bits_per_byte(float(items["nats"].sum()), size_bytes),
        "documents": items.height,
        "families": items["cluster"].n_unique(),
        "bytes": size_bytes,
    }


def _gold(items: pl.DataFrame, facts: Mapping[str, Any], pass_at: Sequence[int]) -> Metrics:
    size_bytes = int(items["bytes"].sum())
    each = items.select(pl.col("nats") / pl.col("bytes").cast(pl.Float64)).to_series()
    return {
        "bits_per_byte": bits_per_byte(float(items["nats"].sum()), size_bytes),
        "mean_of_items": bits_per_byte(float(each.mean() or 0.0), 1.0),  # type: ignore[arg-type]
        "items": items.height,
        "bytes": size_bytes,
    }


def _choice(items: pl.DataFrame, facts: Mapping[str, Any], pass_at: Sequence[int]) -> Metrics:
    details = [json.loads(text) for text in items["detail"]]
    chance = sum(len(set(each["gold"])) / len(each["nats"]) for each in details) / len(details)
    accuracies = {
        f"accuracy_{name}": sum(choice_correct(each, name) for each in details) / len(details)
        for name in NORMALISATIONS
        if name != "pmi" or details[0]["unconditional"] is not None
    }
    return {
        **_proportion("accuracy", items),
        "chance": chance,
        "metric": facts.get("metric", "raw"),
        **accuracies,
        "bits_per_byte": bits_per_byte(float(items["nats"].sum()), int(items["bytes"].sum())),
        **_parts(items, "accuracy"),
    }


def _match(items: pl.DataFrame, facts: Mapping[str, Any], pass_at: Sequence[int]) -> Metrics:
    if facts.get("metric", "exact_match") == "exact_match":
        return _proportion("exact_match", items)
    return {
        "f1": items["score"].mean(),
        **_interval("f1", items),
        "exact_match": items["score"].eq(1).mean(),
        "items": items.height,
    }


def _execution(items: pl.DataFrame, facts: Mapping[str, Any], pass_at: Sequence[int]) -> Metrics:
    counts = items.group_by("item", maintain_order=True).agg(pl.len().alias("n"), (pl.col("score") == 1).sum())
    pairs = list(zip(counts["n"].to_list(), counts["score"].to_list(), strict=True))
    rates = {f"pass_at_{k}": sum(pass_at_k(n, c, k) for n, c in pairs) / len(pairs) for k in pass_at}
    rates.setdefault("pass_at_1", sum(c / n for n, c in pairs) / len(pairs))
    outcomes = items.group_by("outcome").len().sort("outcome")
    return {
        **rates,
        **_interval("pass_at_1", items),
        "passed": int(items["score"].eq(1).sum()),
        "problems": len(pairs),
        "samples": items.height,
        "outcomes": dict(outcomes.iter_rows()),
        "sandbox_level": items["sandbox_level"].min(),
        "judged_weakly": items.filter(pl.col("judge") == "weak")["item"].n_unique(),
        **_parts(items, "pass_at_1"),
    }


def _judged(items: pl.DataFrame, facts: Mapping[str, Any], pass_at: Sequence[int]) -> Metrics:
    if items["detail"].null_count() == items.height:
        return {"answered": items.height, "items": items.height}  # without a judge
    rows = []
    for item, text in items.select("item", "detail").iter_rows():
        detail = json.loads(text)
        for order in ("ab", "ba"):
            lengths = {"length_a": detail["length"], "length_b": detail["other_length"]}
            rows.append({"item": item, "order": order, "choice": detail[order], **lengths})
    found = win_rate(pl.DataFrame(rows, schema_overrides={"choice": pl.String}))
    return {**found, "win_rate_low": found.pop("low"), "win_rate_high": found.pop("high")}


def _proportion(name: str, items: pl.DataFrame) -> Metrics:
    return {name: items["score"].mean(), **_interval(name, items), "items": items.height}


def _interval(name: str, items: pl.DataFrame) -> Metrics:
    """Of the mean score of items; several answers to an item are one mean, items of a cluster are drawn together."""
    means = items.group_by("item", "cluster", maintain_order=True).agg(pl.col("score").mean())
    found = single(means["score"].to_numpy(), means["cluster"].to_list())
    return {f"{name}_low": found.low, f"{name}_high": found.high}


def _parts(items: pl.DataFrame, name: str) -> Metrics:
    """The same by language (or difficulty), where there are several."""
    parts = items.partition_by("language", as_dict=True)
    if len(parts) < 2:
        return {}
    found = {
        str(key[0]): {name: part["score"].mean(), "items": part["item"].n_unique()}
        for key, part in sorted(parts.items())
    }
    return {"languages": found}


KINDS: dict[str, Callable[[pl.DataFrame, Mapping[str, Any], Sequence[int]], Metrics]] = {
    "gold": _gold,
    "choice": _choice,
    "match": _match,
    "problems": _execution,
    "infill": _execution,
    "judge": _judged,
}
"""By the stream of an item; all other streams are of held-out documents."""
