"""A paper's mean is given only where all of it was measured; everything else says how much there is."""

from pathlib import Path
from typing import Any

import pytest
from codesieve.eval.tasks.load import known_suites, known_tasks, load_suite
from codesieve.eval.tasks.schema import ChoiceTask, CodeTask, MatchTask, SuiteConfig, TaskConfig
from codesieve.eval.tasks.suites import available, summary
from codesieve.strict import ConfigError

SUITE = SuiteConfig.model_validate(
    {
        "name": "paper",
        "groups": [
            {"name": "talk", "tasks": ["a", "b"], "metric": "accuracy", "metrics": {"b": "f1"}},
            {"name": "code", "tasks": ["c"], "metric": "pass_at_1"},
        ],
        "averages": {"total": ["talk", "code"]},
    }
)
FACTS = {"a": {"items": 10, "of": 10}, "b": {"items": 4, "of": 4}, "c": {"items": 2, "of": None}}


def measured(**changes: Any) -> dict[str, dict[str, dict[str, Any]]]:
    whole = {
        "a": {"choice": {"accuracy": 0.5, "items": 10}},
        "b": {"match": {"f1": 0.1, "exact_match": 0.0, "items": 4}},
        "c": {"problems": {"pass_at_1": 0.2, "problems": 2}},
    }
    return {task: value for task, value in {**whole, **changes}.items() if value is not None}


def test_a_whole_suite_has_its_means() -> None:
    found = summary(SUITE, measured(), FACTS)
    assert (found["title"], found["complete"]) == ("paper", True)
    assert found["groups"]["talk"]["mean"] == pytest.approx(0.3)
    assert found["groups"]["talk"]["tasks"]["b"]["metric"] == "f1"
    assert found["averages"]["total"] == pytest.approx(0.25)


def test_a_missing_task_takes_the_mean_away_and_says_so() -> None:
    found = summary(SUITE, measured(b=None), FACTS)
    talk = found["groups"]["talk"]
    assert found["title"] == "paper (2 of 3 tasks)"
    assert (talk["title"], talk["mean"], talk["missing"]) == ("talk (1 of 2)", None, ["b"])
    assert talk["mean_of_available"] == 0.5
    assert found["averages"]["total"] is None
    assert found["groups"]["code"]["mean"] == 0.2


def test_a_part_of_a_tasks_items_is_not_the_task() -> None:
    sample = {"choice": {"accuracy": 0.5, "items": 9}}
    found = summary(SUITE, measured(a=sample), FACTS)
    assert found["groups"]["talk"]["title"] == "talk (1 of 2)"
    assert found["groups"]["talk"]["mean"] is None
    assert found["groups"]["talk"]["missing"] == []
    # Of a task of which no published number is known, those of the file count.
    assert summary(SUITE, measured(c={"problems": {"pass_at_1": 0.2, "problems": 1}}), FACTS)["complete"] is False


def test_a_file_known_to_be_another_is_not_the_task() -> None:
    facts = {**FACTS, "c": {"items": 2, "of": 2, "verified": False}}
    found = summary(SUITE, measured(), facts)
    assert found["complete"] is False and found["averages"]["total"] is None
    assert found["groups"]["code"]["title"] == "code (0 of 1)"
    assert found["groups"]["code"]["tasks"]["c"]["why"] == ["not the published file"]
    for known in (True, None):  # None: no hash is published, so nothing is known against it
        assert summary(SUITE, measured(), {**facts, "c": {**facts["c"], "verified": known}})["complete"] is True


def test_a_group_is_the_papers_only_with_the_papers_settings() -> None:
    settings = {"temperature": 0.6, "top_p": 0.95, "samples": 200}
    groups = [{"name": "ten", "tasks": ["c"], "metric": "pass_at_1", "settings": settings}]
    suite = SuiteConfig.model_validate({"name": "paper", "groups": groups})
    assert summary(suite, measured(), FACTS, {**settings, "samples": 400})["complete"] is True
    found = summary(suite, measured(), FACTS, {"temperature": 0.8, "top_p": 0.95, "samples": 20})["groups"]["ten"]
    assert (found["title"], found["mean"]) == ("ten (0 of 1)", None)
    assert found["tasks"]["c"]["why"] == ["temperature 0.8, the paper's 0.6", "samples 20, the paper's 200"]
    with pytest.raises(ValueError, match=r'no "temprature" \(did you mean "temperature"\?\)'):
        SuiteConfig.model_validate({"name": "p", "groups": [{**groups[0], "settings": {"temprature": 1}}]})


def test_codegen2_samples_as_its_paper_does() -> None:
    suite = load_suite("codegen2")
    assert suite is not None
    sampled = {group.metric: group.settings for group in suite.groups if group.settings}
    assert {metric: each["temperature"] for metric, each in sampled.items()} == {
        "pass_at_1": 0.2, "pass_at_10": 0.6, "pass_at_100": 0.8
    }  # fmt: skip
    assert all((each["samples"], each["top_p"]) == (200, 0.95) for each in sampled.values())


def test_a_metric_that_was_not_measured_is_missing() -> None:
    found = summary(SUITE, measured(c={"problems": {"pass_at_10": 0.2, "problems": 2}}), FACTS)
    assert found["groups"]["code"] == {
        "title": "code (0 of 1)",
        "complete": False,
        "tasks": {},
        "missing": ["c"],
        "mean": None,
        "mean_of_available": None,
    }


def test_the_first_papers_tasks_are_those_of_the_paper() -> None:
    suite = load_suite("to-code-or-not")
    assert suite is not None
    assert {group.name: len(group.tasks) for group in suite.groups} == {"reasoning": 11, "knowledge": 2, "code": 2}
    assert suite.averages == {"nl": ("reasoning", "knowledge"), "total": ("reasoning", "knowledge", "code")}


def test_what_is_no_suite_is_none(tmp_path: Path) -> None:
    assert load_suite("humaneval") is None
    (tmp_path / "task.yaml").write_text("kind: code\n")
    assert load_suite(str(tmp_path / "task.yaml")) is None


def test_an_unknown_task_or_group_of_a_suite_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ngroups: [{name: g, tasks: [hellaswog], metric: accuracy}]\n")
    with pytest.raises(ConfigError, match=r'mine.yaml: unknown task "hellaswog" \(did you mean "hellaswag"\?\)'):
        load_suite(str(path))
    path.write_text("name: mine\ngroups: [{name: g, tasks: [piqa], metric: accuracy}]\naverages: {all: [h]}\n")
    with pytest.raises(ConfigError, match='average "all": unknown group "h"; known: g'):
        load_suite(str(path))


def test_without_data_every_task_is_missing_with_its_reason(tmp_path: Path) -> None:
    suite = load_suite("to-code-or-not")
    assert suite is not None
    found = available(suite, [tmp_path])
    assert found.tasks == ()
    assert set(found.missing) == set(suite.tasks)
    assert "on request" in found.missing["storycloze"]


KNOWN_METRICS = {
    ChoiceTask: {"accuracy"},
    MatchTask: {"exact_match", "f1"},
    CodeTask: {"pass_at_1", "pass_at_10", "pass_at_100"},
}


@pytest.mark.parametrize("name", known_suites())
def test_a_suites_metrics_are_those_of_its_tasks(name: str) -> None:
    suite = load_suite(name)
    assert suite is not None
    for group in suite.groups:
        for task in group.tasks:
            config = known_tasks()[task]
            metric = group.metrics.get(task, group.metric)
            assert isinstance(config, TaskConfig)
            assert metric in KNOWN_METRICS.get(type(config), {"pass_at_1"})
            if isinstance(config, MatchTask):
                assert metric == config.metric
