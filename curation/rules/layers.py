"""Rule sets applied to a run: one layer a set, beside the run's own.

The run's own set is the layer `rules` with `reasons` and `reason_count`. Any other set is the layer `rules-<set>` with
`reasons_<set>` and `reason_count_<set>`, so that a selection can name several sets. Each shard's footer carries name
and hash of the set.

Price: that of `RulesStep`; no text is read unless a rule looks at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...strict import ConfigError
from ..layers import stage_layer
from ..shards import column_names, shard_paths
from ..stage import read_plan
from .load import load_rules
from .ruleset import RuleSet, RulesStep

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
    return other_layer(rules)


def other_layer(rules: RuleSet) -> RulesLayer:
    """The layer of a set that is not the run's own."""
    suffix = "_" + re.sub(r"\W", "_", rules.name)
    return RulesLayer(f"{OWN}-{rules.name}", f"reasons{suffix}", f"reason_count{suffix}")


def apply_rules(
    run: Path, rules: RuleSet, progress: Callable[[float], None] | None = None, *, own: bool = False
) -> RulesLayer:
    """Make the layer of a set where it is missing or of other rules; `own` makes it the run's own."""
    layer = RulesLayer(OWN, "reasons", "reason_count") if own else layer_of(run, rules)
    if layer.name == OWN and not own:
        return layer  # the run made it, and knows best when to make it anew
    step = RulesStep(rules, layer.reasons.removeprefix("reasons"))
    facts = {"rule_set": rules.name, "rule_set_hash": rules.hash}
    stage_layer(run, layer.name, [step], {"rule_set": rules.hash}, facts=facts, progress=progress)
    return layer
