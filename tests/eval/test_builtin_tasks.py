"""Every task that comes with codesieve loads, says whose it is, and fits the published file where that is at hand."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
from benchmark_data import FOLDER, benchmark
from codesieve.eval.tasks.data import find
from codesieve.eval.tasks.load import file_names, known_tasks, load_task
from codesieve.eval.tasks.prompts import context, continuation
from codesieve.eval.tasks.schema import ChoiceTask, CodeTask, DataConfig, InfillTask, MatchTask, TaskConfig
from codesieve.eval.tasks.show import show
from codesieve.eval.tasks.task import Task
from codesieve.strict import CONFIGS

NAMES = sorted(path.stem for path in (CONFIGS / "tasks").glob("*.yaml"))

PUBLISHED = {
    "HumanEval.jsonl.gz": {"humaneval": 164, "humaneval-bpb": 164},
    "mbpp_test.jsonl.gz": {"mbpp": 500, "mbpp-bpb": 500},
    "HumanEval-SingleLineInfilling.jsonl.gz": {"humaneval-infill-single-line": 1033},
    "HumanEval-MultiLineInfilling.jsonl.gz": {"humaneval-infill-multi-line": 5815},
    "HumanEval-RandomSpanInfilling.jsonl.gz": {"humaneval-infill-random-span": 1640},
    "HumanEval-RandomSpanInfillingLight.jsonl.gz": {"humaneval-infill-light": 164},
    "arc_easy.jsonl": {"arc-easy": 2376},
    "arc_challenge.jsonl": {"arc-challenge": 1172},
    "hellaswag_val_sample.jsonl": {"hellaswag": 1000},
    "piqa.jsonl": {"piqa": 1838},
    "winogrande.jsonl": {"winogrande": 1267},
    "openbookqa.jsonl": {"openbookqa": 500},
    "boolq.jsonl": {"boolq": 3270},
    "commonsense_qa.jsonl": {"commonsense-qa": 1221},
    "copa.jsonl": {"copa": 100},
    "winograd_wsc273.jsonl": {"winograd": 273},
    "bigbench_strategy_qa.jsonl": {"strategy-qa": 2289},
    "svamp.jsonl": {"svamp": 300},
    "gsm8k_test.jsonl": {"gsm8k": 1319, "gsm8k-bpb": 1319},
    "nq_open_dev.jsonl": {"nq-open": 3610, "nq-open-bpb": 3610},
}
"""File → task → items, as the list of the published files counts them."""

CASES = [(file, task, count) for file, tasks in PUBLISHED.items() for task, count in tasks.items()]


@lru_cache
def loaded(name: str, file: Path) -> Task:
    return load_task(name, [file])


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_described_and_named_like_its_file(name: str) -> None:
    config = known_tasks()[name]
    assert config.name == name
    assert config.description.endswith((".", "?"))
    if isinstance(config, TaskConfig):
        assert config.license
        assert len(config.data.sha256.keys() - set(config.data.files)) == 0


@pytest.mark.parametrize(("file", "name", "count"), CASES)
def test_the_published_file_is_taken_whole(file: str, name: str, count: int) -> None:
    task = loaded(name, benchmark(file))
    assert len(task.items) == count
    assert task.facts["verified"] is True
    assert task.facts["of"] == (10042 if name == "hellaswag" else count)
    for item in task.items:
        choices = item.fields["choices"] if isinstance(task.config, ChoiceTask) else [None]
        for choice in choices:
            assert context(task, item, choice) or name == "winograd"
            assert continuation(task, item, choice).strip() or isinstance(task.config, InfillTask)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no benchmark data")
def test_a_folder_of_many_files_gives_each_task_its_own() -> None:
    for file, name, _ in CASES:
        benchmark(file)
        config = known_tasks()[name]
        assert isinstance(config, TaskConfig)
        assert find(config.data, file_names(config), CONFIGS / "tasks", [FOLDER], frozenset).name == file


def shown(name: str, file: str, item: int | str) -> dict[str, object]:
    return show(loaded(name, benchmark(file)), item)


def test_winogrande_puts_the_option_into_the_blank() -> None:
    found = shown("winogrande", "winogrande.jsonl", 0)
    assert found["prompts"] == [
        "Sarah was a much better surgeon than Maria so Sarah",
        "Sarah was a much better surgeon than Maria so Maria",
    ]
    assert found["continuations"] == [" always got the easier cases."] * 2
    assert found["right"] == [1]


def test_copa_joins_premise_and_alternative() -> None:
    found = shown("copa", "copa.jsonl", 0)
    assert found["prompt"] == "The man turned on the faucet, therefore"
    assert found["continuations"] == [" the toilet filled with water.", " water flowed from the spout."]


def test_gsm8k_takes_the_number_after_the_marks() -> None:
    found = shown("gsm8k", "gsm8k_test.jsonl", 0)
    assert found["answers"] == ["18"]
    assert str(found["prompt"]).startswith("Question: Janet")


def test_boolq_asks_after_the_passage() -> None:
    found = shown("boolq", "boolq.jsonl", 0)
    assert str(found["prompt"]).startswith("Ethanol fuel -- All biomass")
    assert str(found["prompt"]).endswith("\nQuestion: does ethanol take more energy make that produces?\nAnswer:")
    assert (found["continuations"], found["unconditional"]) == ([" yes", " no"], "Answer:")


def test_mbpp_shows_task_and_tests_in_a_docstring() -> None:
    found = shown("mbpp", "mbpp_test.jsonl.gz", 0)
    assert found["prompt"] == (
        '"""\nWrite a python function to remove first and last occurrence of a given character from the string.\n'
        'assert remove_Occ("hello","l") == "heo"\nassert remove_Occ("abcda","a") == "bcd"\n'
        'assert remove_Occ("PHP","P") == "H"\n"""'
    )
    assert "\r" not in str(found["reference_program"])


def test_no_answer_to_natural_questions_is_cut_by_the_stop_text() -> None:
    # With "." and "," as stops, 312 of them could not be reached.
    task = loaded("nq-open", benchmark("nq_open_dev.jsonl"))
    assert isinstance(task.config, MatchTask)
    for item in task.items:
        assert any(not any(stop in answer for stop in task.config.stop) for answer in item.fields["answers"])


@pytest.mark.parametrize("name", ["humaneval-infill-single-line", "humaneval-infill-light"])
def test_infilling_items_are_clustered_by_problem(name: str) -> None:
    config = known_tasks()[name]
    assert isinstance(config, TaskConfig)
    task = loaded(name, benchmark(config.data.files[0]))
    assert {item.cluster for item in task.items} == {f"HumanEval/{number}" for number in range(164)}


# The hub's columns, in rows written for this test.

HUB = {
    "arc-easy": {
        "id": "x",
        "question": "Which is hot?",
        "choices": {"text": ["sun", "ice", "snow"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    "hellaswag": {
        "ind": 3,
        "activity_label": "Baking",
        "ctx_a": "A cook [header] stirs. [title] He",
        "ctx_b": "the Dough",
        "ctx": "-",
        "endings": [" rises [step] fast.", "sinks  in.", "sings.", "ends."],
        "source_id": "wikihow~1",
        "label": "2",
    },
    "piqa": {"goal": "open a jar", "sol1": "twist it", "sol2": "burn it", "label": 1},
    "winogrande": {"sentence": "Ann met Eve, and _ left.", "option1": "Ann", "option2": "Eve", "answer": "2"},
    "openbookqa": {
        "id": "y",
        "question_stem": "Fog is near",
        "choices": {"text": ["a marsh", "a desert"], "label": ["A", "B"]},
        "answerKey": "A",
    },
    "boolq": {"idx": 1, "passage": "Ice is cold.", "question": "is ice cold", "label": 1},
    "commonsense-qa": {
        "id": "z",
        "question": "Where is a door?",
        "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["wall", "sea", "sky", "lake", "fire"]},
        "answerKey": "A",
    },
    "copa": {
        "premise": "I fell.",
        "choice1": "The ice broke.",
        "choice2": "It rained.",
        "question": "cause",
        "label": 0,
    },
    "sciq": {
        "question": "What falls?",
        "distractor1": "up",
        "distractor2": "air",
        "distractor3": "fire",
        "correct_answer": "rain",
        "support": " Rain falls.",
    },
    "social-iqa": {
        "context": "Al helped Bo.",
        "question": "Why?",
        "answerA": "a",
        "answerB": "b",
        "answerC": "c",
        "label": "3",
    },
    "cb": {"premise": "It rains.", "hypothesis": "it is wet", "label": 2, "idx": 0},
    "storycloze": {
        "story_id": "s",
        **{f"input_sentence_{number}": f"S{number}." for number in range(1, 5)},
        "sentence_quiz1": "End.",
        "sentence_quiz2": "No.",
        "answer_right_ending": 2,
    },
    "triviaqa": {"question_id": "t", "question": "Who?", "answer": {"aliases": ["Me", "I"], "value": "Me"}},
    "nq-open": {"question": "who", "answer": ["me"]},
    "svamp": {"ID": "v", "Body": "I have 2 apples.", "Question": "How many?", "Answer": "2.0"},
    "quac": {
        "dialogue_id": "d",
        "wikipedia_page_title": "Ada",
        "section_title": "Life",
        "background": "-",
        "context": "Ada wrote. CANNOTANSWER",
        "turn_ids": ["d_q#0", "d_q#1"],
        "questions": ["What did she do?", "When?"],
        "answers": {"texts": [["wrote", "Ada wrote"], ["CANNOTANSWER"]]},
        "orig_answers": {"texts": ["wrote", "CANNOTANSWER"]},
    },
    "multipl-e-js": {
        "name": "HumanEval_7_add",
        "language": "js",
        "prompt": "//Add.\nfunction add(a, b){\n",
        "tests": "add(1, 2);",
        "stop_tokens": ["\nfunction "],
    },
}

EXPECTED = {
    "arc-easy": ("Question: Which is hot?\nAnswer:", " ice"),
    "hellaswag": ("Baking: A cook stirs.. He The dough", " sings."),
    "piqa": ("Question: open a jar\nAnswer:", " burn it"),
    "winogrande": ("Ann met Eve, and Eve", " left."),
    "openbookqa": ("Question: Fog is near\nAnswer:", " a marsh"),
    "boolq": ("Ice is cold.\nQuestion: is ice cold?\nAnswer:", " yes"),
    "commonsense-qa": ("Question: Where is a door?\nAnswer:", " wall"),
    "copa": ("I fell, because", " the ice broke."),
    "sciq": ("Rain falls.\nQuestion: What falls?\nAnswer:", " rain"),
    "social-iqa": ("Q: Al helped Bo. Why?\nA:", " c"),
    "cb": ("It rains.\nQuestion: it is wet. True, False, or Neither?\nAnswer:", " Neither"),
    "storycloze": ("S1. S2. S3. S4.", " No."),
    "triviaqa": ("Question: Who?\nAnswer:", " Me"),
    "nq-open": ("Question: who\nAnswer:", " me"),
    "svamp": ("Question: I have 2 apples. How many?\nAnswer:", " 2.0"),
    "quac": (
        "TITLE: Ada - Life\nPARAGRAPH: Ada wrote. CANNOTANSWER\n\nQ: What did she do?\n\nA: wrote\n\nQ: When?\n\nA:",
        " CANNOTANSWER",
    ),
    "multipl-e-js": ("//Add.\nfunction add(a, b){", ""),
}


def from_hub(name: str, folder: Path) -> Task:
    (folder / f"{name}.hub.jsonl").write_text(json.dumps(HUB[name]) + "\n")
    return load_task(name, [folder])


@pytest.mark.parametrize("name", sorted(HUB))
def test_the_hubs_columns_make_the_same_prompts(name: str, tmp_path: Path) -> None:
    task = from_hub(name, tmp_path)
    last = task.items[-1]
    assert (context(task, last), continuation(task, last)) == EXPECTED[name]
    assert task.facts["verified"] is None


def test_every_task_that_can_be_fetched_has_its_hub_columns_tested_or_those_of_the_file() -> None:
    same_columns = {"humaneval", "humaneval-bpb", "mbpp", "mbpp-bpb", "mbpp-3shot", "gsm8k", "gsm8k-bpb", "nq-open-bpb"}
    same_columns |= {name for name in NAMES if name.startswith(("humaneval-infill", "multipl-e-"))}
    same_columns |= {"arc-challenge"}
    on_hub = {
        name
        for name in NAMES
        if isinstance(data := getattr(known_tasks()[name], "data", None), DataConfig) and data.hub is not None
    }
    assert on_hub <= HUB.keys() | same_columns


def test_the_programs_of_multipl_e_are_judged_weakly_and_have_no_reference(tmp_path: Path) -> None:
    task = from_hub("multipl-e-js", tmp_path)
    assert isinstance(task.config, CodeTask)
    found = show(task)
    assert (found["judge"], found["cluster"], task.config.min_reference_pass_rate) == ("weak", "HumanEval_7", 0.0)
    assert task.items[0].language == "javascript"


def test_the_examples_of_mbpp_are_never_from_the_test_set(tmp_path: Path) -> None:
    row = {"text": "Do", "code": "x\r\ny", "test_list": ["a", "b", "c"], "test_setup_code": ""}
    for name, numbers in (("mbpp-3shot", [11, 12]), ("mbpp-3shot-shots", range(1, 11))):
        rows = [{**row, "text": f"Do {number}.", "task_id": number} for number in numbers]
        (tmp_path / f"{name}.hub.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    task = load_task("mbpp-3shot", [tmp_path])
    assert [shot.id for shot in task.shots] == ["2", "3", "4"]
    prompt = context(task, task.items[0])
    assert prompt.startswith("You are an expert Python programmer, and here is your task: Do 2. Your code should pass")
    assert prompt.count("[BEGIN]\nx\ny\n[DONE]\n\nYou are") == 3
    assert prompt.endswith("Do 11. Your code should pass these tests:\n\na\nb\nc\n[BEGIN]\n")
