"""Data files: every form is read, damage is named with its line, and the published file is known by its hash."""

import gzip
import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from codesieve.eval.tasks.data import NotFound, Row, find, identify, read
from codesieve.eval.tasks.fetch import can_fetch, fetch, parquet_of
from codesieve.eval.tasks.items import make_items, value_of
from codesieve.eval.tasks.schema import ChoiceTask, DataConfig, GoldTask, HubConfig, ValueConfig
from codesieve.strict import ConfigError

ROWS = [{"question": "a\u2028b", "choices": ["x", "y"]}, {"question": "ü", "choices": ["z", "ß"]}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def values(path: Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read(path)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", JSONL),
        ("bom.jsonl", b"\xef\xbb\xbf" + JSONL),
        ("windows.jsonl", JSONL.replace(b"\n", b"\r\n\r\n")),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0)),
        ("zipped-all-the-same.jsonl", gzip.compress(JSONL, mtime=0)),
        ("a.json", json.dumps(ROWS).encode()),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS}).encode()),
    ],
)
def test_every_form_of_json_is_read(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert values(tmp_path / name) == ROWS


def test_parquet_and_csv_are_read(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == ROWS
    (tmp_path / "a.csv").write_bytes(b'question,answer\r\n"a, ""b""\nc",1\r\n')
    assert values(tmp_path / "a.csv") == [{"question": 'a, "b"\nc', "answer": "1"}]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.jsonl", b"\n \n", "a.jsonl: the file is empty"),
        ("a.json", b"[]", "no rows"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"line 2: expected an object \(got list\)"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\x00"}\n', "line 2: a NUL byte"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n', r"line 3: not valid UTF-8 \(byte 0xff\)"),
        ("a.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0)[:-9], "broken gzip"),
        ("a.jsonl.gz", b"\x1f\x8bnonsense", "broken gzip"),
        ("a.json", b'{"a": [], "b": []}', "expected a list of objects, or an object with one list"),
        ("a.json", b"3", r"expected a list of objects \(got int\)"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: another number of cells"),
        ("a.csv", b"a,b\n1\n", "line 2: another number of cells"),
        ("a.parquet", b"PAR1", "not a readable Parquet file"),
        ("a.txt", b"x", r"of no known form; known: \.jsonl"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name)


def test_the_published_file_is_known_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL)
    published = DataConfig(files=("a.jsonl",), sha256={"a.jsonl": hashlib.sha256(JSONL).hexdigest()})
    assert identify(published, path).verified is True
    assert identify(published, path.rename(tmp_path / "b.jsonl")).verified is True
    (tmp_path / "a.jsonl").write_bytes(JSONL + b" ")
    assert identify(published, tmp_path / "a.jsonl").verified is False
    (tmp_path / "c.jsonl").write_bytes(JSONL + b" ")
    assert identify(published, tmp_path / "c.jsonl").verified is None


def test_of_several_files_the_published_one_is_taken_or_none(tmp_path: Path) -> None:
    config = DataConfig(files=("a.jsonl",), sha256={"a.jsonl": hashlib.sha256(JSONL).hexdigest()})
    for folder, data in (("one", JSONL + b" "), ("two", JSONL)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_bytes(data)
    own = tmp_path / "own"
    own.mkdir()
    assert find(config, config.files, own, [tmp_path], frozenset) == tmp_path / "two" / "a.jsonl"
    with pytest.raises(ConfigError, match="different files of one name"):
        find(DataConfig(files=("a.jsonl",)), config.files, own, [tmp_path], frozenset)


def test_the_search_goes_two_levels_deep_and_no_deeper(tmp_path: Path) -> None:
    config = DataConfig(files=("a.jsonl",))
    own = tmp_path / "own"
    deep = tmp_path / "data" / "x" / "y" / "z"
    own.mkdir()
    deep.mkdir(parents=True)
    (deep / "a.jsonl").write_bytes(JSONL)
    with pytest.raises(NotFound):
        find(config, config.files, own, [tmp_path / "data"], frozenset)
    assert find(config, config.files, own, [tmp_path / "data" / "x"], frozenset) == deep / "a.jsonl"


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    config = DataConfig(files=("a.jsonl",))
    with pytest.raises(ConfigError, match="nowhere: no such file or folder"):
        find(config, config.files, tmp_path, [tmp_path / "nowhere"], frozenset)


# What a layout makes of columns.


@pytest.mark.parametrize(
    ("how", "made"),
    [
        ("{text}", "He said: Hi"),
        ("<{text}>", "<He said: Hi>"),
        ("{{{number}}}", "{3}"),
        ("{number}", 3),
        (["{number}", "{nested.list.0.name}"], [3, "one"]),
        ("{nested.list.*.name}", ["one", "two"]),
        (3, 3),
        ({"value": "{text}", "replace": [["[aeiou]", ""], ["^H", "J"]]}, "J sd: H"),
        ({"value": "{text}", "match": "said: (.*)"}, "Hi"),
        ({"value": "{text}", "split": ": "}, ["He said", "Hi"]),
        ({"value": "{text}", "case": "capital"}, "He said: hi"),
        ({"value": "{text}", "case": "first_lower"}, "he said: Hi"),
        ({"value": "{names}", "case": "lower"}, ["anna", "bob"]),
        ({"value": "{names.1}", "index_in": "{names}"}, 1),
        ({"value": "{number}", "index_in": ["1", "2", "3"]}, 2),
        ({"value": "{flag}", "index_in": [False, True]}, 1),
        ({"value": "{literal}", "parse": "python"}, (1, "a")),
        ({"value": "{object}", "parse": "json"}, {"a": [1]}),
    ],
)
def test_a_layout_makes_fields_of_columns(how: Any, made: Any) -> None:
    columns = {
        "text": "He said: Hi",
        "number": 3,
        "flag": True,
        "names": ["Anna", "Bob"],
        "nested": {"list": [{"name": "one"}, {"name": "two"}]},
        "literal": "(1, 'a')",
        "object": '{"a": [1]}',
    }
    config = ValueConfig.model_validate(how if isinstance(how, dict) else {"value": how})
    assert value_of(config, columns) == made


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"value": "{text}", "match": "^x(.)"}, r"'abc' does not match '\^x\(\.\)'"),
        ({"value": "{text}", "index_in": ["a", "b"]}, r"'abc' is none of \['a', 'b'\]"),
        ({"value": "{nothing}", "case": "lower"}, r"no value \(null\)"),
        ({"value": "{list.7}"}, r'"list.7" leads nowhere in \[1, 2\]'),
        ({"value": "<{list}>"}, r'field "list" is no text: \[1, 2\]'),
        ({"value": "<{nothing}>"}, r'field "nothing" is no text: None'),
        ({"value": "{text}", "parse": "json"}, "Expecting value"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_line_field_and_value(how: dict[str, Any], message: str) -> None:
    layouts = [{"field": how}]
    config = GoldTask.model_validate(
        {"kind": "bits_per_byte", "name": "x", "data": {"files": ["-"]}, "prompt": "", "continuation": "x"}
        | {"layouts": layouts}
    )
    row = Row("file: line 9", {"text": "abc", "nothing": None, "list": [1, 2]})
    with pytest.raises(ConfigError, match=f"file: line 9: field field: .*{message}"):
        make_items([row], config, config.data)


def test_a_field_may_use_those_above_it() -> None:
    config = gold(layouts=[{"start": {"value": "{a}", "case": "capital"}, "text": "{start} {b}"}])
    made = make_items([Row("here", {"a": "one", "b": "two"})], config, config.data)
    assert made[0].fields == {"start": "One", "text": "One two"}


def test_a_column_comes_before_a_field_of_its_name() -> None:
    config = gold(layouts=[{"choices": "{choices.text}", "labels": "{choices.label}"}])
    made = make_items([Row("here", {"choices": {"text": ["x"], "label": ["A"]}})], config, config.data)
    assert made[0].fields == {"choices": ["x"], "labels": ["A"]}


def test_a_long_cluster_is_named_by_its_hash() -> None:
    config = gold(layouts=[{"cluster": "{passage}"}])
    made = make_items([Row("1", {"passage": "x" * 500}), Row("2", {"passage": "x" * 500})], config, config.data)
    assert made[0].cluster == made[1].cluster
    assert len(made[0].cluster) == 16


def test_rows_are_chosen_by_their_values() -> None:
    config = gold(data={"files": ["-"], "where": {"part": [1, "2"]}})
    rows = [Row("x", {"part": part}) for part in (1, 2, "1", 3)]
    assert [item.fields["part"] for item in make_items(rows, config, config.data)] == [1, 2, "1"]
    with pytest.raises(ConfigError, match="no row of the file is wanted"):
        make_items(rows[3:], config, config.data)
    with pytest.raises(ConfigError, match=r'x: where: unknown field "part" \(did you mean "parts"'):
        make_items([Row("x", {"parts": 1})], config, config.data)


def test_a_conversation_becomes_a_row_a_question_with_what_came_before() -> None:
    each = {"columns": {"question": "questions", "said": "answers.texts"}, "history": "{question} {said}|"}
    config = gold(data={"files": ["-"], "each": each}, layouts=[{"id": "{name}-{position}", "history": "{history}"}])
    row = {"name": "talk", "questions": ["a?", "b?", "c?"], "answers": {"texts": ["1", "2", "3"]}}
    made = make_items([Row("here", row)], config, config.data)
    assert [item.id for item in made] == ["talk-1", "talk-2", "talk-3"]
    assert [item.fields["history"] for item in made] == ["", "a? 1|", "a? 1|b? 2|"]
    with pytest.raises(ConfigError, match="here: each: question, said are not lists of one length"):
        make_items([Row("here", {**row, "questions": ["a?"]})], config, config.data)


# The hub, which is played by a module: tests have no network.


def hub_module(files: list[str], source: Path | None) -> ModuleType:
    module = ModuleType("huggingface_hub")

    class HfApi:
        def list_repo_files(self, repository: str, repo_type: str, revision: str) -> list[str]:
            assert (repository, repo_type, revision) == ("me/mine", "dataset", "refs/convert/parquet")
            if source is None:
                raise OSError("no route to host")
            return files

    module.HfApi = HfApi  # type: ignore[attr-defined]
    module.hf_hub_download = lambda *_, **__: str(source)  # type: ignore[attr-defined]
    return module


MINE = {
    "kind": "choice",
    "name": "mine",
    "data": {"files": ["published.jsonl"], "hub": {"repository": "me/mine", "split": "test"}},
    "prompt": "{question}",
}


def test_fetch_writes_the_split_under_the_tasks_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "hub.parquet")
    module = hub_module(["default/train/0000.parquet", "default/test/0000.parquet"], tmp_path / "hub.parquet")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    config = ChoiceTask.model_validate(MINE)
    assert fetch(config, tmp_path / "out") == [tmp_path / "out" / "mine.hub.jsonl"]
    assert values(tmp_path / "out" / "mine.hub.jsonl") == ROWS
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.hub.jsonl"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_module([], None))
    assert fetch(config, tmp_path / "out") == [tmp_path / "out" / "mine.hub.jsonl"], (
        "what is there is not fetched again"
    )


def test_fetch_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_module([], None))
    with pytest.raises(RuntimeError, match=r"me/mine .* could not be read: no route to host. Without network, bring"):
        fetch(ChoiceTask.model_validate(MINE), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch_of_data_that_is_not_on_the_hub_names_its_licence(tmp_path: Path) -> None:
    config = ChoiceTask.model_validate({**MINE, "license": "on request", "data": {"files": ["published.jsonl"]}})
    assert not can_fetch(config)
    with pytest.raises(ConfigError, match=r"licence: on request. Bring the file yourself as published.jsonl"):
        fetch(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "found"),
    [
        ("main", "test", ["main/test/0000.parquet", "main/test/0001.parquet"]),
        ("main", "train", ["main/partial-train/0000.parquet"]),
        ("other", "test", ["other/test-00000-of-00001.parquet"]),
        (None, "validation", ["data/validation-00000-of-00001.parquet"]),
        ("main", "validation", []),
    ],
)
def test_the_parquet_of_a_split_is_told_from_others(name: str | None, split: str, found: list[str]) -> None:
    files = [
        "README.md",
        "main/test/0001.parquet",
        "main/test/0000.parquet",
        "main/partial-train/0000.parquet",
        "main_test/other/0000.parquet",
        "other/test-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "data/not-validation/0000.parquet",
    ]
    assert parquet_of(files, HubConfig(repository="a/b", name=name, split=split)) == found


def gold(**changes: Any) -> GoldTask:
    config = {"kind": "bits_per_byte", "name": "x", "data": {"files": ["-"]}, "prompt": "", "continuation": "x"}
    return GoldTask.model_validate({**config, **changes})
