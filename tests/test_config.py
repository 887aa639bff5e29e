"""Configs are strict, and errors name the nearest key."""

from pathlib import Path

import pytest
import yaml
from codesieve.config import RunConfig, load_run
from codesieve.differences import changes
from codesieve.strict import CONFIGS, TABLES, ConfigError, fingerprint, override, parse

MINIMAL = {"name": "x", "sources": [{"name": "here", "type": "directory", "path": "."}]}


def test_every_shipped_recipe_is_valid() -> None:
    for path in CONFIGS.glob("*.yaml"):
        if path.stem in TABLES:
            continue
        data = yaml.safe_load(path.read_text())
        if path.stem == "curate":  # its sources come from the command line
            data["sources"] = MINIMAL["sources"]
        parse(RunConfig, data, where=str(path))


def test_an_unknown_key_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'file\.yaml: unknown key "sources\.0\.pth" \(did you mean "path"\?\)'):
        parse(RunConfig, {**MINIMAL, "sources": [{"name": "a", "type": "directory", "pth": "."}]}, where="file.yaml")


def test_an_unknown_recipe_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'"quikstart" \(did you mean "quickstart"\?\)'):
        load_run("quikstart")


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1, 2")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML"):
        load_run(str(path))


def test_overrides_reach_into_lists_by_name_and_by_index() -> None:
    data = override(MINIMAL, ["sources.here.path=/elsewhere", "sources.0.kind=code", "annotate.gates=false"])
    assert data["sources"][0] == {"name": "here", "type": "directory", "path": "/elsewhere", "kind": "code"}
    assert data["annotate"] == {"gates": False}


@pytest.mark.parametrize("item", ["nothing", "sources.there.path=1", "name.x=1", "=1"])
def test_a_bad_override_is_an_error(item: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override(MINIMAL, [item])


def test_an_override_does_not_change_its_argument() -> None:
    before = yaml.safe_dump(MINIMAL)
    override(MINIMAL, ["name=y"])
    assert yaml.safe_dump(MINIMAL) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": []}, "at least 1 item"),
        ({"selections": [{"name": "a"}, {"name": "a"}]}, "selection names must differ"),
        ({"selections": [{"name": "a", "control_of": "b"}]}, 'unknown selection "b"'),
        ({"selections": [{"name": "a", "where": "x", "control_of": "a"}]}, "not both"),
        ({"decide": {}}, "needs `train` and `eval`"),
        ({"train": {"step_tokens": 1000}}, "multiple of sequence_length"),
        ({"seed": "many"}, "seed"),
    ],
)
def test_a_config_that_does_not_hold_together_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RunConfig, {**MINIMAL, **change}, where="file.yaml")


def test_fingerprints_depend_on_values_not_on_key_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def test_changes_are_listed_by_key() -> None:
    assert changes({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]
    assert changes({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1, "c": 3}]}) == ["a.0.c: 2 -> 3"]
    assert changes({"a": [{"b": 1}]}, {"a": []}) == ['a: [{"b": 1}] -> []']
    assert changes({"a": [1, 2]}, {"a": [1, 3]}) == ["a: [1, 2] -> [1, 3]"]


ARMS = {**MINIMAL, "train": {"tokens": 4096}, "eval": {}}


def test_an_arm_may_be_trained_in_its_own_way() -> None:
    selections = [{"name": "plain"}, {"name": "infill", "train": {"objectives": "fim", "learning_rate": 0.001}}]
    config = parse(RunConfig, {**ARMS, "selections": selections}, where="file.yaml")
    plain, infill = (config.train_of(selection) for selection in config.selections)
    assert plain == config.train
    assert [each.type for each in infill.objectives] == ["causal", "infill", "infill"]
    assert infill.model_copy(update={"objectives": plain.objectives, "learning_rate": plain.learning_rate}) == plain


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"seeds": [7]}, r'selection "a": train.seeds: all arms share it'),
        ({"objective": "fim"}, r'selection "a": train: unknown key "objective" \(did you mean "objectives"\?\)'),
        ({"objectives": "fimm"}, 'did you mean "fim"'),
    ],
)
def test_settings_that_an_arm_cannot_have_are_an_error(train: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RunConfig, {**ARMS, "selections": [{"name": "a", "train": train}]}, where="file.yaml")
