"""Rules: sets of named predicates (`ruleset`), checked before they run (`check`), applied and compared on runs.

A predicate is read as a tree (`sql`, `tree`), its types (`dtypes`) and what its columns can hold (`ranges`) are looked
at, and whether it can ever be true is worked out (`reason`). `layers` applies a set to a run, `compare` two of them.
"""

from .ruleset import LANGUAGE, Rule, RuleSet, RulesStep, explain, fires, load_rules, read_rules, rule_sets

__all__ = ["LANGUAGE", "Rule", "RuleSet", "RulesStep", "explain", "fires", "load_rules", "read_rules", "rule_sets"]
