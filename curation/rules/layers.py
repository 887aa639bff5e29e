"""Rule sets applied to a run: one layer a set, beside the run's own.

The run's own set is the layer `rules` with `reasons` and `reason_count`. Any other set is the layer `rules-<set>` with
`reasons_<set>` and `reason_count_<set>`, so that a selection can name several sets. Shards are made one at a time and
left alone when they are there with the same fingerprint; each footer carries name and hash of the set.

Price: that of `RulesStep`; no text is read unless a rule looks at it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...config import ConfigError, fingerprint
from ...files import remove_temporary
from ..corpus import scan_shards
from ..shards import BrokenShardError, column_names, footer, shard_paths, write_shard
from ..stage import plan_fingerprint, read_plan
from .ruleset import RuleSet, RulesStep, load_rules

OWN = "rules"


@dataclass(frozen=True)
class RulesLayer:
    """Where the reasons of a set are."""

    name: str
    reasons: str
    count: str


def load_rules_for(run: Path, name_or_path: str) -> RuleSet:
    """A rule set, checked against the columns that the run has.

    Raises:
        ConfigError: as `load_rules`; or if the run is not annotated, or with fewer signals than the rules need.
    """
    shards = shard_paths(run / "annotated")
    if not shards:
        raise ConfigError(f"{run}: no annotated shards here; `codesieve curate` or `codesieve run` makes them")
    return load_rules(name_or_path, column_names(shards[0]))


def layer_of(run: Path, rules: RuleSet) -> RulesLayer:
    """The layer of a set in a run, whether it is made yet or not."""
    own = run / "plan" / OWN
    if (own / "plan.json").exists() and read_plan(own)["made_from"].get("rule_set") == rules.hash:
        return RulesLayer(OWN, "reasons", "reason_count")
    suffix = "_" + re.sub(r"\W", "_", rules.name)
    return RulesLayer(f"{OWN}-{rules.name}", f"reasons{suffix}", f"reason_count{suffix}")


def apply_rules(run: Path, rules: RuleSet, progress: Callable[[float], None] | None = None) -> RulesLayer:
    """Make the layer of a set where it is missing or of other rules."""
    layer = layer_of(run, rules)
    if layer.name == OWN:
        return layer
    mark = fingerprint(plan_fingerprint(run / "plan" / "annotated"), rules.hash)
    folder = run / "layers" / layer.name
    remove_temporary(folder)
    step = RulesStep(rules, layer.reasons.removeprefix("reasons"))
    marks = {"fingerprint": mark, "stage": layer.name, "rule_set": rules.name, "rule_set_hash": rules.hash}
    if any(not _is_made(path, mark) for path in shard_paths(folder)):
        shutil.rmtree(folder)  # half of the layer must not stand there with the reasons of other rules
    annotated = scan_shards(run)
    for number, (name, frame) in enumerate(annotated.items(), start=1):
        if not (folder / name).exists():
            batch = step(frame.select("id", *step.requires).collect())
            write_shard(folder / name, [batch.select("id", layer.reasons, layer.count)], marks)
        if progress:
            progress(number / len(annotated))
    return layer


def _is_made(path: Path, mark: str) -> bool:
    try:
        return footer(path).get("fingerprint") == mark
    except BrokenShardError:
        return False
