"""Minimal pairs: what is changed, what is balanced, and the file that is shipped."""

import ast
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from codesieve.eval.kinds.heldout_pairs import heldout_items
from codesieve.eval.mutations import (
    Change,
    find_functions,
    is_well_formed,
    known_languages,
    load_mutations,
    mutations_file,
)
from codesieve.eval.pairs import Pair, balance, candidates, length_preference, make_pairs
from codesieve.eval.tasks.load import load_task, task_config
from codesieve.eval.tasks.schema import HeldoutPairsTask
from codesieve.sandbox.judge import CallTests, Trial, judge_all, parse_tests
from codesieve.strict import CONFIGS, ConfigError
from hypothesis import given
from hypothesis import strategies as st

ROWS = [json.loads(line) for line in (CONFIGS / "tasks" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]

SOURCES = {
    "python": "def f(items, least):\n    total = 0\n    for item in items:\n        if item > least and not total:\n"
    "            total += items[least + 1]\n    return min(total, 7)\n",
    "javascript": "function f(items, least) {\n  let total = 0;\n  for (const item of items) {\n"
    "    if (item > least && !total) {\n      total += items[least + 1];\n    }\n  }\n  return Math.min(total, 7);\n}\n",
    "typescript": "class A {\n  private f(items: number[], least: number): number {\n    let total = 0;\n"
    "    if (total < least && !items) {\n      total += items[least];\n    }\n    return g(total, 7);\n  }\n}\n",
    "java": "class A {\n  int f(int[] items, int least) {\n    int total = 0;\n    for (int item : items) {\n"
    "      if (item > least && !done) {\n        total += items[least + 1];\n      }\n    }\n    return Math.min(total, 7);\n  }\n}\n",
    "c": "static int f(const int *items, int least) {\n  int total = 0;\n  if (total < least && !items) {\n"
    "    total += items[least];\n  }\n  return g(total, 7);\n}\n",
    "c++": "int A::f(const X &items, int least) {\n  int total = 0;\n  if (total < least && !items) {\n"
    "    total += items[least];\n  }\n  return std::min(total, 7);\n}\n",
    "go": "package m\n\nfunc (s *T) f(items []int, least int) (int, bool) {\n\ttotal := 0\n\tif total < least && !s.ok {\n"
    "\t\ttotal += items[least]\n\t}\n\treturn g(total, 7), true\n}\n",
    "rust": "impl A {\n    fn f(&self, items: &[i32], least: i32) -> bool {\n        let mut total = 0;\n"
    "        if total < least && !ok {\n            total += items[least];\n        }\n        g(total, 7)\n    }\n}\n",
}


def all_pairs(language: str, text: str) -> list[Pair]:
    return [pair for offer in candidates("t", "c", language, text, 0, 2000, None) for pair in offer]


def wrong_lines(language: str, text: str) -> set[tuple[str, str]]:
    """(mutation, changed line) of every mutant."""
    found = set()
    for pair in all_pairs(language, text):
        for right, wrong in zip(pair.right.splitlines(), pair.wrong.splitlines(), strict=True):
            if right != wrong:
                found.add((pair.mutation, wrong.strip()))
    return found


def test_every_language_of_the_file_is_tried_here():
    assert set(known_languages()) == set(SOURCES)


@pytest.mark.parametrize("language", SOURCES)
def test_a_mutant_differs_by_one_place_and_parses(language: str):
    text = SOURCES[language]
    (function,) = find_functions(language, text.encode(), 2000)
    kinds = {mutant.change.mutation for mutant in function.mutants}
    assert {"comparison", "condition", "boolean", "negation", "integer", "variable", "accumulation"} <= kinds
    for mutant in function.mutants:
        changed = mutant.apply(text.encode())
        assert changed != text.encode()
        assert changed[: mutant.begin] == text.encode()[: mutant.begin]
        assert len(changed) == len(text.encode()) + mutant.change.added_bytes
        assert is_well_formed(language, text.encode(), function, mutant)


@pytest.mark.parametrize("language", SOURCES)
def test_a_prompt_is_what_both_versions_begin_with_and_holds_the_signature(language: str):
    for pair in all_pairs(language, SOURCES[language]):
        assert pair.prompt + pair.right in SOURCES[language]
        assert pair.right != pair.wrong
        assert pair.prompt.splitlines()[0].rstrip(" {:") in SOURCES[language]
        assert "least" in pair.prompt
        assert pair.right.splitlines()[0] != pair.wrong.splitlines()[0] or len(pair.right.splitlines()) == 1


def test_the_mutations_of_python_are_those_that_people_make():
    found = wrong_lines("python", SOURCES["python"])
    for expected in (
        ("comparison", "if item >= least and not total:"),
        ("condition", "if item <= least and not total:"),
        ("boolean", "if item > least or not total:"),
        ("negation", "if item > least and total:"),
        ("index", "total += items[least]"),
        ("accumulation", "total = items[least + 1]"),
        ("arithmetic", "total += items[least - 1]"),
        ("integer", "return min(total, 8)"),
        ("integer", "total = 1"),
        ("extreme", "return max(total, 7)"),
        ("variable", "return min(items, 7)"),
        ("variable", "for item in least:"),
    ):
        assert expected in found


def test_arguments_change_places_where_their_order_matters():
    text = "def f(a, b):\n    g(a.x, b[1])\n    return max(a, b)\n"
    assert {line for kind, line in wrong_lines("python", text) if kind == "arguments"} == {"g(b[1], a.x)"}


def test_a_variable_is_replaced_only_by_one_that_is_known_there():
    text = "def f(a):\n    use(a)\n    late = 1\n    return late\n"
    assert "use(late)" not in {line for _, line in wrong_lines("python", text)}


def test_signatures_strings_and_comments_stay_as_they_are():
    text = 'def f(a=1, b=True):\n    """1 < 2 and True"""\n    # not 1\n    return a < b\n'
    for pair in all_pairs("python", text):
        assert pair.prompt.startswith("def f(a=1, b=True):\n")
        assert '"""1 < 2 and True"""' in pair.prompt + pair.wrong


def test_a_function_on_one_line_has_its_signature_as_the_prompt():
    prompts = {pair.prompt for pair in all_pairs("python", "def f(a): return a < 1\n")}
    assert prompts == {"def f(a):"}


def test_a_function_with_an_error_or_too_large_is_left_out():
    assert find_functions("python", b"def f(a:\n    return 1 +\n", 2000) == []
    assert find_functions("python", SOURCES["python"].encode(), 100) == []
    assert find_functions("python", b"\xff\xfe", 100) == []


def test_an_outer_function_that_is_too_large_gives_its_inner_ones():
    inner = "    def g(a):\n        return a + 1\n"
    text = "def f(a):\n" + "    a = a * 2\n" * 30 + inner
    (function,) = find_functions("python", text.encode(), 100)
    assert text.encode()[function.begin : function.end].decode() == inner.rstrip("\n")


def test_text_that_is_not_ascii_is_cut_at_the_right_places():
    text = 'def größe(ä, ö):\n    "→"\n    return ä < ö\n'
    assert ("comparison", "return ä <= ö") in wrong_lines("python", text)


def test_pairs_depend_on_seed_and_text_alone():
    texts = [
        (str(number), str(number % 3), "python", SOURCES["python"].replace("f(", f"f{number}(")) for number in range(9)
    ]
    made = make_pairs(texts, 0, 20, 1000)
    assert made == make_pairs(reversed(texts), 0, 20, 1000)
    assert made != make_pairs(texts, 1, 20, 1000)


def test_a_copy_of_a_function_counts_once_and_none_gives_too_many():
    text = "def f(a, b):\n    one = a < b\n    g(a, one)\n    return a <= b\n"
    texts = [(str(number), "c", "python", text) for number in range(5)]
    assert 0 < len(make_pairs(texts, 0, 100, 1000, per_function=3)) <= 3


PAIR = Pair("i", "c", "python", "", "r", "w", "m", Change("m", "", "", 0), "f")
CHANGES = st.tuples(st.sampled_from(["<", "<=", "=="]), st.sampled_from(["<", "<=", "=="]), st.integers(-2, 2))


@given(st.lists(st.lists(CHANGES, max_size=5), max_size=30), st.integers(1, 3), st.integers(1, 40))
def test_every_change_is_taken_as_often_as_its_opposite(offers: list, per_function: int, most: int):
    made = [
        [replace(PAIR, id=f"{f}.{n}", function=str(f), change=Change("m", *change)) for n, change in enumerate(changes)]
        for f, changes in enumerate(offers)
    ]
    taken = balance(made, most, per_function)
    counts = Counter(pair.change for pair in taken)
    assert all(counts[change] == counts[change.opposite()] for change in counts)
    assert len(taken) <= most
    assert max(Counter(pair.function for pair in taken).values(), default=0) <= per_function
    assert len({pair.id for pair in taken}) == len(taken)


def test_a_wrong_pattern_and_a_rule_that_does_two_things_are_errors(tmp_path: Path):
    entry = mutations_file().model_dump(mode="json")
    entry["languages"]["python"]["rules"][0]["integer"] = True
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps(entry))
    with pytest.raises(ConfigError, match="give one of swap, integer, wrap, exchange, variable"):
        load_mutations(path)
    with pytest.raises(ConfigError, match='no language "cobol"'):
        find_functions("cobol", b"", 10)


# Held-out documents.


def documents(count: int = 12) -> pl.DataFrame:
    rows = [
        {
            "id": f"{language}{n}",
            "text": text.replace("least", f"least_{n}"),
            "stream": "code",
            "language": language,
            "family": f"p{n % 4}",
        }
        for language, text in SOURCES.items()
        for n in range(count)
    ]
    rows.append({"id": "prose", "text": "Prose.", "stream": "text", "language": "markdown", "family": "p0"})
    rows.append({"id": "perl", "text": "sub f { 1 }", "stream": "code", "language": "perl", "family": "p0"})
    return pl.DataFrame(rows)


def test_heldout_documents_give_choices_in_every_language():
    config = task_config("heldout-pairs")
    assert isinstance(config, HeldoutPairsTask)
    rows = heldout_items(config, documents())
    assert {row["language"] for row in rows} == set(SOURCES)
    assert {row["cluster"] for row in rows} == {"p0", "p1", "p2", "p3"}
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert len(set(row["choices"])) == 2
        assert row["gold"] in {0, 1}
    assert length_preference(rows) == 0.5


def test_heldout_pairs_can_be_of_some_languages_and_few():
    config = HeldoutPairsTask(kind="choice", name="p", pairs="heldout", languages=("go", "rust"), max_pairs=4)
    rows = heldout_items(config, documents())
    assert all(count <= 4 for count in Counter(row["language"] for row in rows).values())
    assert {row["language"] for row in rows} == {"go", "rust"}
    assert heldout_items(config, documents().filter(pl.col("language") == "perl")) == []


# The shipped file.


def test_the_shipped_pairs_are_many_and_of_many_functions():
    assert len(ROWS) >= 300
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert max(Counter(row["function"] for row in ROWS).values()) <= 4
    assert sum(row["verified"] for row in ROWS) >= 100
    assert len(load_task("pairs").items) == len(ROWS)


def test_neither_length_nor_position_tells_which_version_is_right():
    for verified in (True, False):
        rows = [row for row in ROWS if row["verified"] is verified]
        assert length_preference(rows) == 0.5
        assert 0.42 < sum(row["gold"] for row in rows) / len(rows) < 0.58


def test_no_mutation_makes_up_a_third_of_the_shipped_pairs():
    counts = Counter(row["mutation"] for row in ROWS)
    assert max(counts.values()) < len(ROWS) / 3
    assert len(counts) >= 10


def test_both_versions_of_every_shipped_pair_are_python():
    for row in ROWS:
        for choice in row["choices"]:
            function = row["prompt"] + choice
            ast.parse("if 1:\n" + function if function.startswith(" ") else function)


def test_a_sample_of_the_verified_ones_fails_its_tests_and_the_right_versions_pass():
    lines = (CONFIGS / "tasks" / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    problems = {row["name"]: row for row in map(json.loads, lines)}
    trials = []
    for row in [row for row in ROWS if row["verified"]][::12]:
        problem = problems[row["function"].partition("#")[2]]
        tests = CallTests(problem["entry_point"], parse_tests(problem["tests"], problem["name"]))
        gold, other = row["choices"][row["gold"]], row["choices"][1 - row["gold"]]
        assert row["prompt"] + gold == problem["prompt"] + problem["reference"].rstrip("\n")
        trials += [Trial(row["prompt"] + gold, tests), Trial(row["prompt"] + other, tests)]
    statuses = [outcome.status for outcome in judge_all(trials)]
    assert set(statuses[::2]) == {"passed"}
    assert set(statuses[1::2]) <= {"wrong", "exception"}
