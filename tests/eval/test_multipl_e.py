"""MultiPL-E: each language's own problem passes here, and a set-up that cannot pass gives no score."""

import json
from pathlib import Path

import pytest
from benchmark_data import benchmark
from codesieve.eval.kinds.execution import ReferencesFail
from codesieve.eval.kinds.programs import calibrated
from codesieve.eval.kinds.replay import replay
from codesieve.eval.samples import Sample
from codesieve.eval.tasks.load import known_tasks, load_task
from codesieve.eval.tasks.schema import CodeTask
from codesieve.eval.tasks.task import Task
from codesieve.sandbox.languages import toolchain
from codesieve.strict import ConfigError

LANGUAGES = sorted(name.removeprefix("multipl-e-") for name in known_tasks() if name.startswith("multipl-e-"))
TRANSLATED = [name for name in LANGUAGES if name != "py"]


def with_data(language: str, folder: Path) -> Task:
    """The task with its own problem as all its data."""
    config = known_tasks()[f"multipl-e-{language}"]
    assert isinstance(config, CodeTask)
    try:
        toolchain(config.language)
    except ConfigError as error:
        pytest.skip(str(error))
    (folder / config.data.files[0]).write_text(json.dumps(config.calibration[0].row) + "\n")
    return load_task(config.name, [folder])


def test_every_language_has_a_problem_of_its_own_or_references() -> None:
    assert {"cpp", "go", "java", "js", "py", "rs", "sh"} <= set(LANGUAGES)
    for name in LANGUAGES:
        config = known_tasks()[f"multipl-e-{name}"]
        assert isinstance(config, CodeTask)
        assert config.calibration or config.min_reference_pass_rate == 1.0


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_own_problem_passes_and_a_wrong_answer_to_it_does_not(language: str, tmp_path: Path) -> None:
    task = with_data(language, tmp_path)
    (item,) = task.items
    right = task.calibration[0].fields["reference"]
    wrong = right.replace("2", "3").replace("Collections.max", "Collections.min")
    found = replay(task, [Sample(item.id, text) for text in (right, wrong, "    nonsense(")])
    assert (found["passed"], found["reference_pass_rate"]) == (1, None)
    assert found["judge"]["weak"] == 3


def test_java_needs_no_library_that_its_prompts_import(tmp_path: Path) -> None:
    task = with_data("java", tmp_path)
    assert "org.javatuples" in task.items[0].fields["prompt"]
    answers = {
        "        return new Pair<>(Collections.min(numbers), Collections.max(numbers));\n": "passed",
        "        return Triplet.with(1L, 0, 3L).removeFrom1().setAt0(Collections.min(numbers))"
        ".setAt1(Collections.max(numbers));\n": "passed",
        "        return Pair.with(Collections.max(numbers), Collections.min(numbers));\n": "exception",
    }
    for answer, outcome in answers.items():
        assert replay(task, [Sample(task.items[0].id, answer)])["outcomes"] == {outcome: 1}, answer


def test_a_language_whose_own_problem_fails_gets_no_score(tmp_path: Path) -> None:
    task = with_data("sh", tmp_path)
    broken = Task(
        task.config.model_copy(update={"program": "exit 3\n{prompt}{answer}", "reference_program": "exit 3"}),
        task.items, (), task.fingerprint, task.facts, task.calibration,
    )  # fmt: skip
    with pytest.raises(ReferencesFail, match=r"0\.0% of the references pass, 100\.0% are required"):
        replay(broken, [Sample(task.items[0].id, "    :\n")])


def test_python_is_humaneval_in_the_form_of_the_others() -> None:
    task = load_task("multipl-e-py", [benchmark("HumanEval.jsonl.gz")])
    assert (len(task.items), task.facts["verified"], task.items[0].cluster) == (164, True, "HumanEval_0")
    assert calibrated(task, task.items[::8]).rate == 1.0
    wrong = replay(task, [Sample(task.items[0].id, "    return 0\n")])
    assert (wrong["passed"], wrong["judge"]) == (0, {"weak": 1})
