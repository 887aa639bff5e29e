"""Exported tasks ask what codesieve asks: the rows are the rendered prompts, and what differs is refused or said."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from codesieve.eval.export import export_lm_eval
from codesieve.eval.tasks.items import Item
from codesieve.eval.tasks.load import load_task
from codesieve.eval.tasks.schema import AnyTask, ChoiceTask, CodeTask, GoldTask, MatchTask
from codesieve.eval.tasks.task import Task
from codesieve.strict import ConfigError

BASE: dict[str, Any] = {"name": "mine", "version": 3, "license": "MIT", "data": {"files": ["-"]}}


def exported(config: AnyTask, folder: Path, *fields: dict[str, Any]) -> tuple[dict[str, Any], list[Any], str]:
    items = tuple(Item(f"item-{number}", "", "", each) for number, each in enumerate(fields))
    paths = export_lm_eval(Task(config, items, (), "abc", {}), folder)
    assert [path.name for path in paths] == ["codesieve-mine.yaml", "codesieve-mine.jsonl"]
    text = paths[0].read_text()
    rows = [json.loads(line) for line in paths[1].read_text().splitlines()]
    found = yaml.safe_load(text)
    assert found["dataset_kwargs"] == {"data_files": {"test": str(paths[1].resolve())}}
    assert found["metadata"] == {"version": 3.0, "codesieve_fingerprint": "abc", "items": len(rows)}
    return found, rows, text


def choice(**changes: Any) -> ChoiceTask:
    return ChoiceTask.model_validate({"kind": "choice", "prompt": "Q: {question}\nA:", **BASE, **changes})


SKY = {"question": "Sky {{x}}?", "choices": ["blue", "grün"], "gold": 0}


def test_choices_are_columns_that_need_no_template(tmp_path: Path) -> None:
    found, rows, text = exported(choice(metric="characters"), tmp_path, SKY)
    assert rows == [{"id": "item-0", "query": "Q: Sky {{x}}?\nA:", "choices": ["blue", "grün"], "gold": 0}]
    assert found["output_type"] == "multiple_choice"
    assert [found[key] for key in ("doc_to_text", "doc_to_choice", "doc_to_target")] == ["query", "choices", "gold"]
    assert found["target_delimiter"] == " "
    assert [each["metric"] for each in found["metric_list"]] == ["acc", "acc_norm", "acc_bytes"]
    assert "codesieve's accuracy of this task is acc_norm." in text


def test_what_does_not_start_with_a_space_has_no_delimiter(tmp_path: Path) -> None:
    found, rows, _ = exported(choice(continuation="{choice}!"), tmp_path, SKY)
    assert found["target_delimiter"] == ""
    assert rows[0]["choices"] == ["blue!", "grün!"]
    # Its lengths would be others than ours, so only the raw sums are compared.
    assert [each["metric"] for each in found["metric_list"]] == ["acc"]


def test_several_right_choices_are_a_list_in_every_row(tmp_path: Path) -> None:
    _, rows, _ = exported(choice(), tmp_path, SKY, {**SKY, "gold": [0, 1]})
    assert [row["gold"] for row in rows] == [[0], [0, 1]]


def test_a_choice_in_the_prompt_has_the_harness_form_for_it(tmp_path: Path) -> None:
    config = choice(prompt="{before}{choice}", continuation=" {after}")
    found, rows, _ = exported(
        config, tmp_path, {"before": "The cup and ", "after": "fell.", "choices": ["a", "b"], "gold": 1}
    )
    assert rows == [{"id": "item-0", "gold": 1, "contexts": ["The cup and a", "The cup and b"], "target": " fell."}]
    assert [found[key] for key in ("doc_to_text", "doc_to_choice", "doc_to_target")] == ["gold", "contexts", "target"]
    assert found["target_delimiter"] == ""
    assert [each["metric"] for each in found["metric_list"]] == ["acc"]
    with pytest.raises(ConfigError, match="the choice is in the prompt and in what is scored"):
        exported(choice(prompt="{choice}", continuation="{choice}"), tmp_path, SKY)


def test_generated_answers_are_compared_by_exact_match(tmp_path: Path) -> None:
    config = MatchTask.model_validate({"kind": "generate_match", "prompt": "{question}", "max_new_tokens": 9, **BASE})
    found, rows, text = exported(config, tmp_path, {"question": "1+1?", "answers": ["2", "two"]})
    assert rows == [{"id": "item-0", "query": "1+1?", "answers": ["2", "two"]}]
    assert found["generation_kwargs"] == {"until": ["\n"], "max_gen_toks": 9, "do_sample": False, "temperature": 0.0}
    assert found["filter_list"] == [{"name": "whole", "filter": [{"function": "take_first"}]}]
    metric = found["metric_list"][0]
    assert (metric["metric"], metric["ignore_case"], metric["ignore_punctuation"]) == ("exact_match", True, True)
    assert "White space is taken out" in text


def test_several_patterns_are_several_filters(tmp_path: Path) -> None:
    settings = {"extract": ["#### (.*)", "(\\d+)"], "normalise": ["number"]}
    config = MatchTask.model_validate({"kind": "generate_match", "prompt": "?", **settings, **BASE})
    found, _, text = exported(config, tmp_path, {"answers": ["2"]})
    assert [each["name"] for each in found["filter_list"]] == ["regex-1", "regex-2"]
    assert found["filter_list"][1]["filter"][0]["regex_pattern"] == "(\\d+)"
    assert "takes the first of these filters that hits" in text


def test_reference_answers_are_likelihoods_with_the_bytes_to_convert_them(tmp_path: Path) -> None:
    config = GoldTask.model_validate({"kind": "bits_per_byte", "prompt": "{p}", "continuation": " {r}", **BASE})
    found, rows, text = exported(config, tmp_path, {"p": "a", "r": "ü"}, {"p": "b", "r": "x"})
    assert rows[0] == {"id": "item-0", "query": "a", "target": " ü"}
    assert found["output_type"] == "loglikelihood"
    assert "ln(perplexity) x 2 items / (ln 2 x 5 bytes)" in text


def test_what_the_harness_cannot_compute_is_refused_with_the_reason(tmp_path: Path) -> None:
    code = CodeTask.model_validate({"kind": "code", **BASE})
    with pytest.raises(ConfigError, match="without a sandbox; judge them with `codesieve eval replay`"):
        exported(code, tmp_path)
    f1 = MatchTask.model_validate({"kind": "generate_match", "prompt": "", "metric": "f1", **BASE})
    with pytest.raises(ConfigError, match="no f1 of generated words"):
        exported(f1, tmp_path, {"answers": ["2"]})
    with pytest.raises(ConfigError, match="held-out documents"):
        export_lm_eval(load_task("heldout"), tmp_path)
    assert list(tmp_path.iterdir()) == []
