"""Prompts to the byte, with and without examples, and what `show` says of an item."""

from typing import Any

import pytest
from codesieve.eval.tasks.items import Item
from codesieve.eval.tasks.prompts import context, continuation, unconditional
from codesieve.eval.tasks.schema import (
    AnyTask,
    ChoiceTask,
    CodeTask,
    GoldTask,
    HeldoutTask,
    InfillTask,
    JudgeTask,
    MatchTask,
)
from codesieve.eval.tasks.show import choose, show
from codesieve.eval.tasks.task import Task
from codesieve.eval.tasks.templates import fill, names
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st

BASE: dict[str, Any] = {"name": "mine", "data": {"files": ["-"]}}


def item(name: str, **fields: Any) -> Item:
    return Item(name, name, "", fields)


def task(config: AnyTask, *items: Item, shots: tuple[Item, ...] = ()) -> Task:
    return Task(config, items, shots, "0")


def choice_task(*shots: Item, **changes: Any) -> Task:
    config = {"kind": "choice", "prompt": "Q: {question}\nA:", "unconditional": "A:", **BASE, **changes}
    config["shots"] = {"count": len(shots), **config.get("shots", {})}
    return task(ChoiceTask.model_validate(config), SKY, GRASS, shots=shots)


SKY = item("sky", question="Sky?", choices=["blue", "red"], gold=0)
GRASS = item("grass", question="Grass?", choices=["blue", "green"], gold=[1])
SNOW = item("snow", question="Snow?", choices=["black", "white"], gold=1)
COAL = item("coal", question="Coal?", choices=["black", "white"], gold=0)


def test_a_choice_is_asked_and_each_choice_scored() -> None:
    asked = choice_task()
    assert context(asked, SKY, "red") == "Q: Sky?\nA:"
    assert continuation(asked, SKY, "red") == " red"
    assert unconditional(asked, SKY, "red") == "A:"


def test_without_a_choice_the_right_one_is_meant() -> None:
    assert continuation(choice_task(), GRASS) == " green"
    assert context(choice_task(prompt="{question} {choice}", continuation="."), GRASS) == "Grass? green"


def test_examples_stand_before_the_question_with_their_right_answers() -> None:
    asked = choice_task(SNOW, COAL)
    assert context(asked, SKY, "red") == "Q: Snow?\nA: white\n\nQ: Coal?\nA: black\n\nQ: Sky?\nA:"


def test_an_example_may_have_another_form_than_the_question() -> None:
    asked = choice_task(SNOW, shots={"template": "{prompt}[{continuation} ] {question}", "separator": "--"})
    assert context(asked, SKY) == "Q: Snow?\nA:[ white ] Snow?--Q: Sky?\nA:"


def test_an_item_is_never_its_own_example() -> None:
    asked = choice_task(SKY, SNOW, COAL, shots={"count": 2})
    assert context(asked, GRASS).count("Q:") == 3
    assert context(asked, GRASS).startswith("Q: Sky?\nA: blue\n\nQ: Snow?")
    # Under another id, too: what counts is the question.
    same = item("other", **SKY.fields)
    assert context(asked, same) == "Q: Snow?\nA: white\n\nQ: Coal?\nA: black\n\nQ: Sky?\nA:"


def test_the_choice_in_the_prompt_is_that_which_is_scored() -> None:
    asked = choice_task(SNOW, prompt="{question} {choice}", continuation=" is right.")
    assert context(asked, SKY, "red") == "Snow? white is right.\n\nSky? red"


def test_the_first_right_answer_is_that_of_an_example() -> None:
    config = {"kind": "generate_match", "prompt": "{question}", "shots": {"count": 1}, **BASE}
    first, second = item("a", question="1+1?", answers=["2", "two"]), item("b", question="2+2?", answers=["4"])
    asked = task(MatchTask.model_validate(config), second, shots=(first,))
    assert context(asked, second) == "1+1? 2\n\n2+2?"
    assert show(asked, 0)["answers"] == ["4"]


CODE = item("f", prompt="def f():\n    ", reference="return 1\n", tests=[{"args": [], "expected": 1}], entry_point="f")


def code_task(**changes: Any) -> Task:
    return task(CodeTask.model_validate({"kind": "code", **BASE, **changes}), CODE)


def test_white_space_at_the_end_of_a_code_prompt_is_left_to_the_model() -> None:
    assert context(code_task(), CODE) == "def f():"
    assert context(code_task(strip_prompt=False), CODE) == "def f():\n    "


def test_show_gives_the_program_that_is_run_and_its_tests() -> None:
    shown = show(code_task(), "f")
    assert shown["program"] == "def f():\n    ⟨answer⟩"
    assert shown["reference_program"] == "def f():\n    return 1\n"
    assert (shown["form"], shown["judge"], shown["entry_point"]) == ("calls", "apart", "f")
    assert show(code_task(tests={"weak": ["f"]}), 0)["judge"] == "weak"


def test_show_gives_every_choice_and_where_it_stands() -> None:
    shown = show(choice_task(), 1)
    assert shown["prompt"] == "Q: Grass?\nA:"
    assert shown["prompts"] is None
    assert (shown["continuations"], shown["right"], shown["metric"]) == ([" blue", " green"], [1], "raw")
    inside = show(choice_task(prompt="{question} {choice}", continuation=" it is"), 0)
    assert inside["prompts"] == ["Sky? blue", "Sky? red"]


def test_show_gives_a_hole_and_a_comparison() -> None:
    hole = item("h", prefix="a = ", suffix="\n", reference="1", tests="assert a", entry_point="f")
    shown = show(task(InfillTask.model_validate({"kind": "infill", **BASE}), hole), infill="codegen2")
    assert (shown["right"], shown["suffix"], shown["stop_tokens"]) == ("1", "\n", ("<eom>",))
    assert shown["prompt"] == "a = <mask_1>\n<|endoftext|><sep><mask_1>"
    judge = {"kind": "judge", "question": "{instruction}: {first} or {second}?", **BASE}
    asked = task(JudgeTask.model_validate(judge), item("j", instruction="Greet"))
    assert show(asked)["question"] == "Greet: ⟨first answer⟩ or ⟨second answer⟩?"


def test_an_item_is_found_by_number_or_id() -> None:
    asked = choice_task()
    assert choose(asked, 1) is GRASS
    assert choose(asked, "1") is GRASS
    assert choose(asked, "grass") is GRASS
    with pytest.raises(ConfigError, match=r'no item "gras" \(did you mean "grass"\?\); it has 2, from sky to grass'):
        choose(asked, "gras")
    with pytest.raises(ConfigError, match='no item "2"'):
        choose(asked, 2)


def test_where_ids_are_numbers_a_number_is_an_id_first() -> None:
    numbered = [item(str(number), question="?", choices=["a", "b"], gold=0) for number in (11, 12, 1)]
    asked = task(choice_task().config, *numbered)
    assert [choose(asked, each).id for each in ("11", 12, "1", "0", 2)] == ["11", "12", "1", "11", "1"]


def test_a_task_over_held_out_documents_has_no_items_to_show() -> None:
    held = task(HeldoutTask.model_validate({"kind": "bits_per_byte", "name": "x", "max_tokens": 9}))
    with pytest.raises(ConfigError, match="has no items of its own"):
        show(held, 0)


# Templates.


def test_braces_are_doubled_and_structures_entered() -> None:
    fields = {"a": "x", "b": {"c": ["y", "z"]}, "a.b": "dotted"}
    assert fill("{{{a}}} {b.c.1} {a.b}", fields) == "{x} z dotted"
    assert names(["{a}{b.c.1}", ["{d}"]]) == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{}", "'{}' is no field"),
        ("{a", "'{' is no field"),
        ("a}", "'}' is no field"),
        ("{aa}", r'unknown field "aa" \(did you mean "a"\?\); known: a, b'),
        ("{b.0.x}", '"b.0.x" leads nowhere in'),
        ("{b}", 'field "b" is no text'),
    ],
)
def test_a_wrong_template_is_an_error(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fill(template, {"a": "x", "b": [1]})


@given(st.text(), st.text(), st.text())
def test_what_a_field_holds_is_never_a_template_itself(before: str, value: str, after: str) -> None:
    template = (before + "\0" + after).replace("{", "{{").replace("}", "}}").replace("\0", "{value}", 1)
    if "\0" not in before + after:
        assert fill(template, {"value": value}) == before + value + after


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=5, unique=True), st.data())
def test_context_and_continuation_of_the_right_choice_are_the_example(choices: list[str], data: st.DataObject) -> None:
    right = data.draw(st.integers(0, len(choices) - 1))
    shot = item("shot", question="shot", choices=choices, gold=right)
    asked = choice_task(shot)
    alone = choice_task()
    assert context(asked, SKY).startswith(context(alone, shot) + continuation(alone, shot) + "\n\n")


def test_a_gold_task_scores_its_reference() -> None:
    config = GoldTask.model_validate({"kind": "bits_per_byte", "prompt": "{p}", "continuation": "{r}\n", **BASE})
    asked = task(config, item("x", p="1 + 1 =", r=" 2"))
    assert (context(asked, asked.items[0]), continuation(asked, asked.items[0])) == ("1 + 1 =", " 2\n")
