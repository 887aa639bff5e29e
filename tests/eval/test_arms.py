"""What defines an arm, and what the record says about it."""

import polars as pl
import pytest
from codesieve.config import EvalConfig, SelectionConfig
from codesieve.eval.decisions.arms import Arm, describe
from codesieve.train.config import TrainConfig

RULES = SelectionConfig(name="rules", where="reason_count = 0")
DROP = SelectionConfig(name="random-drop", control_of="rules")
POOL = pl.DataFrame({"language": ["python", "python", "c", "c"], "size_bytes": [100, 300, 200, 400]})


def arm(
    selection: SelectionConfig = RULES,
    rules: SelectionConfig = RULES,
    kept: pl.DataFrame = POOL[:3],
    input_fingerprint: str = "abc",
    learning_rate: float = 0.004,
    tasks: tuple[str, ...] = ("heldout",),
) -> Arm:
    return describe(
        selection,
        [rules, DROP],
        kept,
        POOL,
        input_fingerprint=input_fingerprint,
        train=TrainConfig(learning_rate=learning_rate),
        evaluation=EvalConfig(tasks=tasks),
        epochs=1.5,
    )


def test_an_arm_says_what_it_keeps() -> None:
    found = arm()
    assert (found.documents, found.bytes, found.keep_rate, found.keep_rate_documents) == (3, 600, 0.6, 0.75)
    assert found.composition == {"c": pytest.approx(1 / 3), "python": pytest.approx(2 / 3)}
    assert (found.where, found.control_of, found.is_control, found.epochs) == ("reason_count = 0", None, False, 1.5)


def test_the_hash_changes_with_everything_that_defines_the_arm_and_with_nothing_else() -> None:
    first = arm().hash
    assert arm().hash == first
    assert arm(SelectionConfig(name="rules", where="reason_count < 2")).hash != first
    assert arm(input_fingerprint="def").hash != first
    assert arm(learning_rate=0.002).hash != first
    assert arm(tasks=("problems",)).hash != first


def test_settings_of_training_that_are_an_arms_own_are_told() -> None:
    infill = SelectionConfig(name="infill", where="reason_count = 0", train={"objectives": "fim"})
    assert arm(infill).train == {"objectives": "fim"}
    assert arm(infill).hash != arm().hash
    assert arm().train == {}


def test_a_control_is_defined_by_the_selection_that_it_is_matched_to() -> None:
    assert arm(DROP).hash != arm(DROP, rules=SelectionConfig(name="rules", where="TRUE")).hash
    assert (arm(DROP).control_of, arm(DROP).where) == ("rules", "reason_count = 0")
    with pytest.raises(ValueError, match=r'the control of "rule", which does not exist \(did you mean "rules"\?\)'):
        arm(SelectionConfig(name="drop", control_of="rule"))


def test_a_selection_that_keeps_nothing_is_no_arm() -> None:
    with pytest.raises(ValueError, match='"rules" keeps no training document: reason_count = 0'):
        arm(kept=POOL[:0])
