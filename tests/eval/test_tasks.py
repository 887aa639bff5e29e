"""Task files: strict, fingerprinted by what they ask, and loud about mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from codesieve.eval.tasks.load import MissingData, known_tasks, load_task, task_config
from codesieve.eval.tasks.schema import ChoiceTask, GoldTask, HeldoutPairsTask, HeldoutTask
from codesieve.eval.tasks.task import Task
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st

CHOICE: dict[str, Any] = {
    "kind": "choice",
    "name": "mine",
    "data": {"files": ["mine.jsonl"]},
    "layouts": [{"id": "{name}", "question": "{question}", "choices": "{choices}", "gold": "{gold}"}],
    "prompt": "Q: {question}\nA:",
}
ROWS: list[dict[str, Any]] = [
    {"name": "sky", "question": "Colour of the sky?", "choices": ["blue", "red"], "gold": 0},
    {"name": "grass", "question": "Colour of grass?", "choices": ["blue", "green"], "gold": 1},
]


def write(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]] | None = None) -> str:
    """The task's YAML, and its data beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    if rows is not None:
        (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "mine.yaml")


def load(folder: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Task:
    return load_task(write(folder, {**CHOICE, **changes}, rows))


def test_items_are_read_from_beside_the_task(tmp_path: Path) -> None:
    task = load(tmp_path)
    assert isinstance(task.config, ChoiceTask)
    assert [item.id for item in task.items] == ["sky", "grass"]
    assert task.items[1].fields == {"question": "Colour of grass?", "choices": ["blue", "green"], "gold": 1}
    assert task.items[1].cluster == "grass"
    assert task.facts["items"] == 2


def test_the_kind_of_likelihood_task_is_told_by_its_keys(tmp_path: Path) -> None:
    assert isinstance(task_config("heldout"), HeldoutTask)
    gold = {"kind": "bits_per_byte", "name": "g", "data": {"files": ["mine.jsonl"]}, "prompt": "", "continuation": "x"}
    assert isinstance(task_config(write(tmp_path, gold)), GoldTask)
    pairs = {"kind": "choice", "name": "p", "pairs": "heldout"}
    assert isinstance(task_config(write(tmp_path, pairs)), HeldoutPairsTask)
    assert load_task(write(tmp_path, pairs)).items == ()


def test_the_fingerprint_covers_what_is_asked(tmp_path: Path) -> None:
    first = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == first
    assert load(tmp_path, version=2).fingerprint != first
    assert load(tmp_path, prompt="{question}").fingerprint != first
    assert load(tmp_path, ROWS[:1]).fingerprint != first
    assert load(tmp_path, [ROWS[0], {**ROWS[1], "gold": 0}]).fingerprint != first
    shown = {"count": 1, "rows": [{"name": "snow", "question": "Snow?", "choices": ["white", "-"], "gold": 0}]}
    assert load(tmp_path, shots=shown).fingerprint != first


def test_the_fingerprint_leaves_out_prose_place_and_order(tmp_path: Path) -> None:
    first = load(tmp_path).fingerprint
    assert load(tmp_path, ROWS[::-1]).fingerprint == first
    assert load(tmp_path / "elsewhere", description="Colours.", license="MIT").fingerprint == first
    renamed = [{"id" if key == "name" else key: value for key, value in row.items()} for row in ROWS]
    layouts = [*CHOICE["layouts"], {**CHOICE["layouts"][0], "id": "{id}"}]
    assert load(tmp_path, renamed, layouts=layouts).fingerprint == first


def test_data_is_looked_for_in_the_folders_that_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks", CHOICE)
    with pytest.raises(
        MissingData, match=r'task "mine": data not found: no file named mine.jsonl or mine.hub.jsonl in .*tasks'
    ):
        load_task(path)
    write(tmp_path / "data" / "a" / "b", CHOICE, ROWS)
    with pytest.raises(MissingData, match=r"in .*tasks, .*elsewhere"):
        load_task(path, [_folder(tmp_path / "elsewhere")])
    assert len(load_task(path, [tmp_path / "data"]).items) == 2


def test_a_file_given_by_itself_may_have_any_name(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks", CHOICE)
    rows = tmp_path / "other-name.jsonl"
    rows.write_text(json.dumps(ROWS[0]))
    assert len(load_task(path, [rows]).items) == 1


def test_a_file_of_another_known_task_is_not_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks", CHOICE)
    (tmp_path / "boolq.jsonl").write_text(json.dumps(ROWS[0]))
    with pytest.raises(MissingData):
        load_task(path, [tmp_path / "boolq.jsonl"])


def test_missing_data_says_its_licence_and_how_to_fetch_it(tmp_path: Path) -> None:
    hub = {"files": ["mine.jsonl"], "hub": {"repository": "a/b", "split": "test"}}
    path = write(tmp_path, {**CHOICE, "license": "CC-BY-4.0", "data": hub})
    with pytest.raises(
        MissingData, match=r"licence: CC-BY-4.0; .* --data, or download it with `codesieve eval fetch mine`"
    ):
        load_task(path)


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'mine.yaml: unknown key "promt" \(did you mean "prompt"\?\)'):
        load(tmp_path, promt="")
    layouts = [{"gold": {"value": "{gold}", "indexin": [1]}}]
    with pytest.raises(ConfigError, match=r'unknown key "layouts.0.gold.indexin" \(did you mean "index_in"\?\)'):
        load(tmp_path, layouts=layouts)


def test_an_unknown_kind_or_task_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown task kind "choise" \(did you mean "choice"\?\)'):
        load(tmp_path, kind="choise")
    with pytest.raises(ConfigError, match=r'unknown task "hellaswog" \(did you mean "hellaswag"\?\)'):
        load_task("hellaswog")
    with pytest.raises(ConfigError, match=r'unknown task "to-code-or-no" \(did you mean "to-code-or-not"\?\)'):
        load_task("to-code-or-no")


def test_a_wrong_field_in_a_template_is_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown field "questoin" \(did you mean "question"\?\)'):
        load(tmp_path, prompt="{questoin}")
    with pytest.raises(ConfigError, match="is no field; a brace itself is"):
        load(tmp_path, prompt="{question} {")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": 2}, r"line 2: field gold: the position of one of 2 choices is needed \(got 2\)"),
        ({"gold": -1}, r"line 2: field gold: .*got -1"),
        ({"gold": None}, r"line 2: field gold: .*got None"),
        ({"gold": True}, r"line 2: field gold: .*got True"),
        ({"gold": []}, r"line 2: field gold: .*got \[\]"),
        ({"choices": ["blue"]}, r"line 2: field choices: a list of at least two is needed \(got \['blue'\]\)"),
        ({"choices": "blue"}, r"line 2: field choices: a list of at least two"),
        ({"choices": ["blue", " "]}, r"line 2: field choices: choice 1 is no text or empty \(got ' '\)"),
        ({"choices": ["blue", 3]}, r"line 2: field choices: choice 1 is no text"),
        ({"name": "sky"}, r'line 2: an item with the id "sky" came before: .*line 1'),
    ],
)
def test_an_item_that_cannot_be_scored_is_named_with_its_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, [ROWS[0], {**ROWS[1], **change}])


def test_a_column_that_is_missing_later_is_named_with_its_line(tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS[1].items() if key != "question"} | {"qestion": "?"}
    with pytest.raises(ConfigError, match=r'line 2: field question: unknown field "question" \(did you mean "qestion"'):
        load(tmp_path, [ROWS[0], row])


def test_columns_that_fit_no_layout_are_named_with_the_nearest(tmp_path: Path) -> None:
    row = {**ROWS[0], "qestion": ROWS[0]["question"]}
    del row["question"]
    with pytest.raises(ConfigError, match=r'(?s)no layout .* fits; .*layout 1 misses "question" \(did you mean "qest'):
        load(tmp_path, [row])


def test_several_right_choices_are_a_list(tmp_path: Path) -> None:
    assert load(tmp_path, [{**ROWS[0], "gold": [0, 1]}]).items[0].fields["gold"] == [0, 1]


def test_more_items_than_were_published_are_another_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='2 items, but the published data of task "mine" has 1; is it another split'):
        load(tmp_path, data={"files": ["mine.jsonl"], "items": 1})


def test_a_code_item_without_tests_is_refused(tmp_path: Path) -> None:
    config = {"kind": "code", "name": "mine", "data": {"files": ["mine.jsonl"]}}
    row = {"prompt": "def f():", "reference": " pass", "entry_point": "f", "tests": [{"args": [], "expected": None}]}
    assert load_task(write(tmp_path, config, [row])).items[0].language == "python"
    with pytest.raises(ConfigError, match=r"line 1: field tests: a list is needed, and not empty \(got \[\]\)"):
        load_task(write(tmp_path, config, [{**row, "tests": []}]))
    with pytest.raises(ConfigError, match=r'line 1: no field "entry_point" \(did you mean "entrypoint"'):
        load_task(write(tmp_path, config, [{"entrypoint" if k == "entry_point" else k: v for k, v in row.items()}]))


def test_answers_must_be_a_list_of_texts(tmp_path: Path) -> None:
    config = {"kind": "generate_match", "name": "mine", "data": {"files": ["mine.jsonl"]}, "prompt": "{question}"}
    for answers in ([], "blue", [3]):
        with pytest.raises(ConfigError, match="line 1: field answers: a list of texts is needed"):
            load_task(write(tmp_path, config, [{"question": "?", "answers": answers}]))


def test_documents_of_any_length_are_not_allowed_to_decide(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give max_bytes or max_tokens"):
        load_task(write(tmp_path, {"kind": "bits_per_byte", "name": "x"}))
    config = {"kind": "bits_per_byte", "name": "x", "max_tokens": 64, "part": "anywhere"}
    with pytest.raises(ConfigError, match='part "anywhere" needs max_bytes'):
        load_task(write(tmp_path, config))


def test_known_tasks_are_the_files_and_named_like_them() -> None:
    assert {"heldout", "humaneval", "piqa"} <= known_tasks().keys()
    assert all(config.name == name for name, config in known_tasks().items())


@given(st.integers(1, 6), st.integers(-8, 8))
def test_a_gold_position_is_taken_exactly_if_it_is_in_range(count: int, gold: int) -> None:
    from codesieve.eval.tasks.data import Row
    from codesieve.eval.tasks.items import make_items

    config = ChoiceTask.model_validate(CHOICE)
    row = Row("here", {"name": "x", "question": "?", "choices": ["a"] * count, "gold": gold})
    if count >= 2 and 0 <= gold < count:
        assert make_items([row], config, config.data)[0].fields["gold"] == gold
    else:
        with pytest.raises(ConfigError):
            make_items([row], config, config.data)


def test_the_tasks_own_folder_is_searched_first_and_not_below(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks", CHOICE)
    write(tmp_path / "tasks" / "below", CHOICE, ROWS[:1])
    with pytest.raises(MissingData):
        load_task(path)
    write(tmp_path / "data", CHOICE, ROWS[:1])
    write(tmp_path / "tasks", CHOICE, ROWS)
    assert len(load_task(path, [tmp_path / "data"]).items) == 2


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_suite_in_place_of_a_task_is_told_apart_and_names_its_tasks() -> None:
    with pytest.raises(
        ConfigError, match=r'^"codegen2" is a suite; name one of its tasks: humaneval, humaneval-infill'
    ):
        load_task("codegen2")


def test_data_that_comes_with_codesieve_is_the_published_one_and_a_users_own_is_nobodys(tmp_path: Path) -> None:
    assert load_task("problems").facts["verified"] is True
    assert load(tmp_path).facts["verified"] is None


CODE: dict[str, Any] = {
    "kind": "code",
    "name": "mine",
    "data": {"files": ["mine.jsonl"]},
    "layouts": [{"id": "{n}", "prompt": "{p}", "tests": "{t}\n{library}", "reference": ""}],
    "tests": {"form": "program"},
    "texts": {"library": "def helper(): return {1}"},
    "calibration": [{"row": {"n": "own", "p": "def f():\n", "t": "f()"}, "reference": "    return helper()\n"}],
}
CODE_ROWS = [{"n": "a", "p": "def g():\n", "t": "g()"}]


def test_a_tasks_texts_are_in_every_row_and_its_own_items_go_the_way_of_the_datas(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, CODE, CODE_ROWS))
    (own,) = task.calibration
    assert task.items[0].fields["tests"] == "g()\ndef helper(): return {1}"
    assert own.fields == {
        "prompt": "def f():\n", "tests": "f()\ndef helper(): return {1}", "reference": "    return helper()\n"
    }  # fmt: skip
    assert "own" not in {item.id for item in task.items}
    other = load_task(write(tmp_path, {**CODE, "calibration": []}, CODE_ROWS))
    assert other.fingerprint == task.fingerprint  # it asks the same
    changed = load_task(write(tmp_path, {**CODE, "texts": {"library": "x"}}, CODE_ROWS))
    assert changed.fingerprint != task.fingerprint
    with pytest.raises(ConfigError, match=r"mine\.yaml: calibration: 1: no layout"):
        load_task(write(tmp_path, {**CODE, "calibration": [{"row": {"n": "own"}, "reference": ""}]}, CODE_ROWS))
