"""Contamination: planted benchmark items are found, generic code is not."""

import gzip
import json
import os
import pickle
import random
import re
import sysconfig
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import DecontaminateConfig, RunConfig
from codesieve.curation.benchmark_items import read_items
from codesieve.curation.corpus import scan
from codesieve.curation.decontaminate import MatchStep, build_index, decontaminate
from codesieve.curation.dedup.exact import exact_duplicates
from codesieve.curation.dedup.matches import ngrams_of
from codesieve.curation.layers import table_layer
from codesieve.curation.shards import shard_paths, write_shard
from codesieve.curation.stage import write_plan
from codesieve.strict import ConfigError
from codesieve.workflow import benchmarks, check_predicates
from hypothesis import given, settings
from hypothesis import strategies as st

PROMPT = '''def merge_intervals(intervals: list[tuple[int, int]], gap: int = 0) -> list[tuple[int, int]]:
    """Merge all intervals whose distance is at most gap, and return them in ascending order.

    >>> merge_intervals([(8, 9), (1, 3), (2, 5)])
    [(1, 5), (8, 9)]
    """
'''
SOLUTION = """    merged = []
    for start, end in sorted(intervals):
        if merged and start - merged[-1][1] <= gap:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
"""
TESTS = ["assert merge_intervals([(1, 2), (2, 3)]) == [(1, 3)]", "assert merge_intervals([], gap=3) == []"]
ITEM = {"task_id": "ours/0", "prompt": PROMPT, "canonical_solution": SOLUTION, "test_list": TESTS}


def filler(seed: int, lines: int = 30) -> str:
    rng = random.Random(seed)
    return "".join(f"value_{rng.randrange(10**6)} = compute({rng.randrange(10**6)})\n" for _ in range(lines))


def items_file(folder: Path, *rows: dict[str, object], name: str = "items.jsonl") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run_of(folder: Path, documents: dict[str, str], shards: int = 2) -> Path:
    """A run directory with these annotated documents (path → text) and the layer of exact duplicates."""
    frame = pl.DataFrame(
        {
            "id": [f"id:{path}" for path in documents],
            "text": list(documents.values()),
            "path": list(documents),
            "content_hash": list(documents.values()),
            "is_vendored": [False] * len(documents),
        }
    )
    size = -(-len(documents) // shards)
    write_plan(folder / "plan" / "annotated", {}, [{"marks": [index]} for index in range(shards)])
    for index in range(shards):
        write_shard(folder / "annotated" / f"{index:05d}.parquet", [frame[index * size : (index + 1) * size]], {})
    table_layer(folder, "duplicates", exact_duplicates, {"version": 1})
    return folder


def result(run: Path) -> dict[str, tuple[list[str] | None, float]]:
    table = scan(run).select("path", "contaminated_by", "contamination_overlap").collect()
    return {path: (by, overlap) for path, by, overlap in table.iter_rows()}


def test_planted_items_are_found_whatever_their_layout(tmp_path: Path) -> None:
    inside = filler(1) + "\n\n" + PROMPT + SOLUTION + "\n\n" + filler(2)
    method = "class Tools:\n" + "".join(f"    {line}\n" for line in (PROMPT + SOLUTION).splitlines())
    commented = SOLUTION.replace("    merged = []\n", "    merged = []  # what is joined so far\n")
    run = run_of(
        tmp_path / "run",
        {
            "verbatim.py": inside,
            "indented.py": method.replace("    ", "\t").replace("\n", "\r\n"),
            "solution_only.py": "def f(intervals, gap):\n" + SOLUTION,
            "tests_only.py": "\n".join(TESTS),
            "commented.py": "def f(intervals, gap):\n" + commented,
            "clean.py": filler(3),
            "empty.py": "",
        },
    )
    decontaminate(run, DecontaminateConfig(against=(items_file(tmp_path, ITEM),)))
    found = result(run)
    for path in ("verbatim.py", "indented.py", "solution_only.py", "tests_only.py"):
        assert found[path] == (["items.jsonl#ours/0"], 1.0), path
    assert found["commented.py"][0] == ["items.jsonl#ours/0"]
    assert 0.7 < found["commented.py"][1] < 1.0  # a comment breaks the n-grams that it stands in
    assert found["clean.py"] == found["empty.py"] == (None, 0.0)


def test_renamed_variables_are_not_found(tmp_path: Path) -> None:
    """A limit that the documentation states: n-grams are of the words as they stand."""
    renamed = SOLUTION
    for number, word in enumerate(("merged", "start", "end", "intervals", "gap")):
        renamed = re.sub(rf"\b{word}\b", f"v{number}", renamed)
    run = run_of(tmp_path / "run", {"renamed.py": "def f(v3, v4):\n" + renamed, "b.py": ""})
    decontaminate(run, DecontaminateConfig(against=(items_file(tmp_path, ITEM),)))
    assert result(run)["renamed.py"] == (None, 0.0)


def test_the_overlap_is_the_share_of_the_passage_that_is_there(tmp_path: Path) -> None:
    text = filler(5, lines=20)
    half = "".join(text.splitlines(keepends=True)[:10])
    run = run_of(tmp_path / "run", {"half.py": half, "b.py": ""})
    decontaminate(run, DecontaminateConfig(against=(items_file(tmp_path, {"id": 7, "text": text}),), threshold=0.4))
    whole, there = set(ngrams_of(text, 13).tolist()), set(ngrams_of(half, 13).tolist())
    assert result(run)["half.py"] == (["items.jsonl#7"], len(whole & there) / len(whole))
    assert 0.4 < len(whole & there) / len(whole) < 0.5


def test_ngrams_of_many_documents_are_generic_unless_the_item_is_there(tmp_path: Path) -> None:
    shared = filler(6, lines=8)
    item = {"id": "x", "code": shared + filler(7, lines=5)}
    documents = {f"uses_{n}.py": filler(100 + n) + shared for n in range(11)}
    few = run_of(tmp_path / "few", dict(list(documents.items())[:10]))
    many = run_of(tmp_path / "many", documents)
    copies = run_of(tmp_path / "copies", {f"copy_{n}.py": filler(200 + n) + item["code"] for n in range(30)})
    config = DecontaminateConfig(against=(items_file(tmp_path, item),), threshold=0.7)
    for run in (few, many, copies):
        decontaminate(run, config)
    assert {by is None for by, _ in result(few).values()} == {True}
    assert min(overlap for _, overlap in result(few).values()) > 0.4
    assert {overlap for _, overlap in result(many).values()} == {0.0}
    assert {(str(by), overlap) for by, overlap in result(copies).values()} == {("['items.jsonl#x']", 1.0)}


def test_copies_of_one_file_do_not_make_its_ngrams_generic(tmp_path: Path) -> None:
    shared = filler(6, lines=8)
    documents = {f"copy_{n}.py": filler(100) + shared for n in range(20)}
    run = run_of(tmp_path / "run", documents)
    item = {"id": "x", "code": shared + filler(7, lines=5)}
    decontaminate(run, DecontaminateConfig(against=(items_file(tmp_path, item),), threshold=0.7))
    assert min(overlap for _, overlap in result(run).values()) > 0.4


def test_what_all_items_of_a_file_share_is_no_evidence(tmp_path: Path) -> None:
    instruction = "Write a function that solves the following task and print nothing else, please: do it well and carefully, thank you.\n"
    rows = [{"id": n, "prompt": instruction + filler(n, lines=4)} for n in range(20)]
    run = run_of(tmp_path / "run", {"instruction.md": instruction, "third.py": filler(3, lines=4)})
    decontaminate(run, DecontaminateConfig(against=(items_file(tmp_path, *rows),)))
    assert result(run)["instruction.md"] == (None, 0.0)
    assert result(run)["third.py"][0] == ["items.jsonl#3"]


def test_short_items_must_be_there_as_a_whole_and_tiny_ones_are_no_evidence(tmp_path: Path) -> None:
    short = {"id": "short", "q": "count = total", "a": "// limit[7]"}
    tiny = {"id": "tiny", "code": "return x + y"}
    documents = {
        "whole.py": filler(1) + "count = total // limit[ 7 ]\n",
        "part.py": filler(2) + "count = total // limit[8]\n",
        "tiny.py": "def add(x, y):\n    return x + y\n",
    }
    run = run_of(tmp_path / "run", documents)
    items = decontaminate(run, DecontaminateConfig(against=(items_file(tmp_path, short, tiny),)))
    assert items.too_short == 1
    assert result(run) == {"whole.py": (["items.jsonl#short"], 1.0), "part.py": (None, 0.0), "tiny.py": (None, 0.0)}


def test_items_are_read_from_any_layout(tmp_path: Path) -> None:
    texts = {name: filler(seed) for seed, name in enumerate(("plain", "nested", "list", "table"))}
    items_file(tmp_path / "all" / "a", {"task_id": "T/1", "prompt": texts["plain"], "n": 3}, name="test.jsonl")
    with gzip.open(tmp_path / "all" / "test.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"doc": {"prompt": texts["nested"]}}) + "\n\n")
        stream.write(json.dumps({"lines": texts["list"].splitlines()}) + "\n")
    pl.DataFrame({"name": ["p"], "code": [texts["table"]]}).write_parquet(tmp_path / "all" / "a" / "t.parquet")
    items = read_items((str(tmp_path / "all"), str(tmp_path / "all" / "a")), (), 13)
    found = {passage.text.strip(): passage.items for passage in items.passages}
    assert found == {
        texts["plain"].strip(): ("test.jsonl#T/1",),
        texts["nested"].strip(): ("test.jsonl.gz#1",),
        texts["list"].strip(): ("test.jsonl.gz#2",),
        texts["table"].strip(): ("t.parquet#p",),
    }
    only = read_items((str(tmp_path / "all" / "test.jsonl.gz"),), ("doc.prompt",), 13)
    assert [passage.text for passage in only.passages] == [texts["nested"]]


def test_files_of_one_name_are_told_apart_by_their_folder_and_equal_passages_are_one(tmp_path: Path) -> None:
    row = {"id": "same", "code": filler(1)}
    against = (items_file(tmp_path / "one", row), items_file(tmp_path / "two", row))
    (passage,) = read_items(against, (), 13).passages
    assert passage.items == ("one/items.jsonl#same", "two/items.jsonl#same")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.jsonl", '{"a": 1}\n{"b": \n', "items.jsonl, line 2: not valid JSON"),
        ("items.jsonl", "[1]\n", "line 1: expected an object"),
        ("items.jsonl", '{"n": 1}\n', "no text in any column"),
        ("items.csv", "a,b\n", "must end in .jsonl"),
        ("items.parquet", "no", "cannot be read"),
        ("items.jsonl.gz", "no", "cannot be read"),
    ],
)
def test_bad_items_are_an_error_that_names_the_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_items((str(tmp_path / name),), (), 13)


def test_wrong_columns_and_paths_are_errors(tmp_path: Path) -> None:
    path = items_file(tmp_path, ITEM)
    with pytest.raises(ConfigError, match=r'promt; known: .*did you mean "prompt"'):
        read_items((path,), ("promt",), 13)
    with pytest.raises(ConfigError, match="no such file"):
        read_items((str(tmp_path / "missing.jsonl"),), (), 13)
    with pytest.raises(ConfigError, match="names no file"):
        read_items((), (), 13)


@pytest.fixture(scope="module")
def two_items(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = ({"code": "a b + a a + b b a + a b a b + + a a b"}, {"code": "a + b a + b a b"})
    return items_file(tmp_path_factory.mktemp("items"), *rows)


@given(st.lists(st.text(st.sampled_from("ab +"), max_size=60), max_size=4), st.integers(4, 6))
@settings(max_examples=60, deadline=None)
def test_matches_are_those_of_comparing_everything(two_items: str, documents: list[str], ngram: int) -> None:
    index = build_index(read_items((two_items,), (), ngram), ngram)
    step = pickle.loads(pickle.dumps(MatchStep(index)))  # as workers get it
    step.setup()
    found = step(pl.DataFrame({"text": pl.Series(documents, dtype=pl.String)}))["ngrams"].to_list()
    known = {int(value): place for place, value in enumerate(index.hashes)}
    for text, ngrams in zip(documents, found, strict=True):
        expected = {known[h] for length in index.lengths for h in ngrams_of(text, int(length)).tolist() if h in known}
        assert (ngrams or []) == sorted(expected)


def test_another_threshold_searches_nothing_anew_and_other_items_do(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"a.py": "def f(intervals, gap):\n" + SOLUTION, "b.py": filler(1)})
    path = items_file(tmp_path, ITEM)
    decontaminate(run, DecontaminateConfig(against=(path,)))
    before = [shard.stat().st_mtime_ns for shard in shard_paths(run / "benchmark_matches")]
    decontaminate(run, DecontaminateConfig(against=(path,), threshold=1.0))
    assert [shard.stat().st_mtime_ns for shard in shard_paths(run / "benchmark_matches")] == before
    assert result(run)["a.py"][0] == ["items.jsonl#ours/0"]
    items_file(tmp_path, {"id": "b", "code": filler(1)})
    decontaminate(run, DecontaminateConfig(against=(path,)))
    assert result(run) == {"a.py": (None, 0.0), "b.py": (["items.jsonl#b"], 1.0)}
    assert set(scan(run).collect_schema().names()) >= {"contaminated_by", "contamination_overlap"}
    assert "ngrams" not in scan(run).collect_schema().names()


def standard_library(limit: int) -> dict[str, str]:
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in root.glob("*.py"))[:limit]
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in paths}


def test_the_standard_library_holds_none_of_our_own_problems(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", standard_library(300))
    items = decontaminate(run, DecontaminateConfig(against=("configs:tasks/problems.jsonl",)))
    assert items.files == {"problems.jsonl": 53}
    assert items.too_short == 0
    assert {path for path, (by, _) in result(run).items() if by} == set()


@pytest.mark.skipif(
    "CODESIEVE_BENCHMARKS" not in os.environ, reason="CODESIEVE_BENCHMARKS names no folder of benchmarks"
)
def test_every_problem_of_humaneval_is_found_and_none_in_the_standard_library(tmp_path: Path) -> None:
    (path,) = Path(os.environ["CODESIEVE_BENCHMARKS"]).rglob("HumanEval.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    planted = {row["task_id"]: filler(1) + row["prompt"] + row["canonical_solution"] for row in rows}
    run = run_of(tmp_path / "run", planted | standard_library(300))
    decontaminate(run, DecontaminateConfig(against=(str(path),)))
    found = result(run)
    assert all(f"{path.name}#{task}" in (found[task][0] or ()) for task in planted)
    assert {name for name, (by, _) in found.items() if by} == set(planted)


def test_our_own_problems_are_compared_with_where_models_are_evaluated_on_them() -> None:
    base = {"name": "r", "sources": [{"name": "s", "type": "environment"}], "split": {}}
    section = DecontaminateConfig(against=("x.jsonl",))
    plain = RunConfig.model_validate(base)
    evaluated = RunConfig.model_validate(base | {"eval": {"tasks": ["heldout", "problems"]}})
    assert benchmarks(plain, section).against == ("x.jsonl",)
    assert benchmarks(evaluated, section).against == ("x.jsonl", "configs:tasks/problems.jsonl")


def test_a_predicate_may_name_the_columns_where_the_section_is_there() -> None:
    base = {
        "name": "r",
        "sources": [{"name": "s", "type": "environment"}],
        "selections": [{"name": "clean", "where": "contaminated_by IS NULL AND near_duplicate_of IS NULL"}],
    }
    with pytest.raises(ConfigError, match='unknown column "contaminated_by"'):
        check_predicates(RunConfig.model_validate(base))
    both = base | {"decontaminate": {"against": ["configs:tasks/problems.jsonl"]}, "near_duplicates": {}}
    check_predicates(RunConfig.model_validate(both))
    with pytest.raises(ConfigError, match="no such file"):
        check_predicates(RunConfig.model_validate(both | {"decontaminate": {"against": ["configs:none.jsonl"]}}))
