"""Rules: sets of named predicates (`ruleset`), found and checked (`load`) before they run, applied and compared.

`check` reads a predicate as a tree (`sql`, `tree`), looks at its types (`dtypes`) and at what its columns can hold
(`ranges`), and works out whether it can ever be true (`reason`). `layers` applies a set to a run, `compare` two.
"""

from .load import load_rules, read_rules, rule_sets
from .ruleset import LANGUAGE, Rule, RuleSet, RulesStep, explain, fires

__all__ = ["LANGUAGE", "Rule", "RuleSet", "RulesStep", "explain", "fires", "load_rules", "read_rules", "rule_sets"]
