"""datatrove pipelines with our steps, and datatrove's filters in ours."""

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import codesieve
import polars as pl
import pyarrow as pa
import pytest
from codesieve.config import AnnotateConfig
from codesieve.curation.blocks import Blocks, PlainWords
from codesieve.curation.datatrove import Annotate, Keep, conjuncts
from codesieve.curation.rules import load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.curation.steps import STEP_ERRORS
from codesieve.strict import ConfigError
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.filters import (
    C4ParagraphFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LambdaFilter,
    RegexFilter,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

PAGE = Path(codesieve.__file__).parent / "docs" / "tutorials" / "datatrove.md"
PYTHON = "import os\n\n\ndef join(one, two):\n    # Put them together.\n    return os.path.join(one, two)\n"
PROSE = "The library reads a file and counts the words that are in it, with care. It does that for every file.\n"


def document(name: str, text: str = PYTHON, **metadata: Any) -> Document:
    return Document(text=text, id=name, metadata=metadata)


def annotated(documents: Sequence[Document], **settings: Any) -> list[Document]:
    return list(Annotate(**settings)(iter(documents)))


# --- the page


def test_the_pages_pipeline_runs_as_is_and_prints_what_the_page_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (expected,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    command = [sys.executable, "page.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == expected


# --- Annotate


def test_documents_come_out_in_order_with_signals_reasons_and_their_own_metadata() -> None:
    documents = [document(str(i), f"x = {i}\n" * (i % 7), path=f"src/{i}.py", stars=i) for i in range(50)]
    found = annotated(documents, config=AnnotateConfig(batch_bytes=100))
    assert [d.id for d in found] == [str(i) for i in range(50)]
    assert all(d.metadata["stars"] == int(d.id) and d.metadata["line_count"] == int(d.id) % 7 for d in found)
    names = {signal.name for signal in SIGNALS} | {"reasons", "reason_count", STEP_ERRORS}
    assert names <= found[0].metadata.keys()
    assert "empty" in found[0].metadata["reasons"]


def test_the_size_of_batches_changes_nothing() -> None:
    def run(batch_bytes: int) -> list[dict[str, Any]]:
        documents = [document(str(i), PYTHON * i, path=f"{i}.py") for i in range(12)]
        return [d.metadata for d in annotated(documents, config=AnnotateConfig(batch_bytes=batch_bytes))]

    assert run(1) == run(8_000_000)


def test_path_and_language_come_from_the_keys_and_else_from_path_and_content() -> None:
    one, two, three, four, five = annotated(
        [
            document("1", where="tests/test_a.py", lang="Python"),
            document("2", where="a.py"),
            document("3", "#!/bin/sh\necho\n"),
            document("4", lang=None, where="a.go"),
            document("5", lang="Klingon"),
        ],
        path_key="where",
        language_key="lang",
    )
    assert one.metadata["is_test"] and not two.metadata["is_test"]
    languages = [d.metadata["language"] for d in (one, two, three, four, five)]
    assert languages == ["python", "python", "shell", "go", "Klingon"]
    assert one.metadata["lang"] == "Python"
    assert one.metadata["function_count"] == 1


@pytest.mark.parametrize("text", ["", "\0", "\ud800 = 1", "x" * 100_000, "\ufeffa"])
def test_odd_texts_are_measured_and_not_changed(text: str) -> None:
    (found,) = annotated([document("1", text, path="a\udcff.py")])
    assert found.text == text
    assert found.metadata["character_count"] == len(text)
    assert found.metadata[STEP_ERRORS] == []


class Fails:
    name = "fails"
    requires = ("path",)
    provides: Mapping[str, pl.DataType] = {"length": pl.UInt32()}

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        if batch["path"].str.contains("bad").any():
            raise ValueError("bad path")
        return batch.with_columns(batch["path"].str.len_bytes().alias("length"))


def test_a_document_that_makes_a_step_fail_is_marked_and_the_pipeline_goes_on() -> None:
    step = Annotate(steps=[Fails()])
    found = list(step([document(str(i), path="bad.py" if i == 3 else "a.py") for i in range(6)]))
    assert [d.metadata["length"] for d in found] == [4, 4, 4, None, 4, 4]
    assert [d.metadata[STEP_ERRORS] for d in found] == [[], [], [], ["fails: ValueError: bad path"], [], []]
    assert step.stats[STEP_ERRORS].total == 1
    assert step.stats["total"].total == 6


def test_a_document_without_text_is_marked() -> None:
    (found,) = annotated([Document(text=None, id="1")])  # type: ignore[arg-type]
    assert found.metadata[STEP_ERRORS] == ["text: NoneType, not a string"]


def test_what_does_not_fit_is_said_at_construction() -> None:
    class Needs(Fails):
        requires = ("max_line_lenght",)

    with pytest.raises(ConfigError, match=r'requires column "max_line_lenght" .did you mean "max_line_length"'):
        Annotate(steps=[Needs()])
    with pytest.raises(ConfigError, match="codesieve"):
        Annotate(rules="codesive")


def test_a_name_that_is_taken_is_an_error_and_a_prefix_helps() -> None:
    with pytest.raises(ConfigError, match='document 1: its metadata has "is_generated" already'):
        annotated([document("1", is_generated=True)])
    (found,) = annotated([document("1", is_generated=True)], prefix="codesieve_")
    assert found.metadata["is_generated"] is True
    assert found.metadata["codesieve_is_generated"] is False


def test_without_rules_there_are_no_reasons() -> None:
    (found,) = annotated([document("1")], rules=None)
    assert "reasons" not in found.metadata
    columns = [*(c.name for c in IDENTITY), *(c.name for c in SIGNALS), STEP_ERRORS]
    (other,) = annotated([document("1")], rules=load_rules("codesieve", columns))
    assert "reasons" in other.metadata


def test_metadata_is_what_provides_and_schema_say(tmp_path: Path) -> None:
    step = Annotate()
    (found,) = step([document("1", path="a.py")])
    assert found.metadata.keys() == {"path", *step.provides}
    schema = step.schema(stars=pa.int64())
    assert schema.names[:4] == ["text", "id", "stars", "path"]
    assert set(schema.names) == {"text", "id", "stars", "path", *step.provides}
    assert len(schema.names) == len(set(schema.names))


# --- Keep


def test_keep_drops_by_predicate_and_says_every_part_that_did_not_hold(tmp_path: Path) -> None:
    step = Keep("a > 1 AND (b = 'x' OR a > 8)", JsonlWriter(str(tmp_path), compression=None), AB)
    documents = [
        document(str(a), a=a, b=b) for a, b in [(2, "x"), (9, "y"), (1, "x"), (None, "x"), (0, "z"), (5, None)]
    ]
    with_key = list(step(iter(documents)))
    assert [d.id for d in with_key] == ["2", "9"]
    rejected = [json.loads(line) for line in (tmp_path / "00000.jsonl").read_text().splitlines()]
    assert [(r["id"], r["metadata"]["filter_reason"]) for r in rejected] == [
        ("1", "a > 1"),
        ("None", "a > 1"),
        ("0", "a > 1; (b = 'x' OR a > 8)"),
        ("5", "(b = 'x' OR a > 8)"),
    ]
    assert all(r["text"] == PYTHON for r in rejected)
    assert (step.stats["total"].total, step.stats["forwarded"].total, step.stats["dropped"].total) == (6, 2, 4)
    assert step.stats["dropped_a > 1"].total == 2


AB: Mapping[str, pl.DataType] = {"a": pl.Int64(), "b": pl.String()}


def test_a_predicate_is_checked_before_a_document_is_read() -> None:
    with pytest.raises(ConfigError, match=r'unknown column "max_line_lenght" .did you mean "max_line_length"'):
        Keep("max_line_lenght < 500")
    with pytest.raises(ConfigError, match="not a valid SQL predicate"):
        Keep("max_line_length <")
    with pytest.raises(ConfigError, match="unlike the standard"):
        Keep("is_generated IS NOT TRUE")


def test_a_column_that_no_document_has_is_an_error_and_not_an_empty_corpus() -> None:
    with pytest.raises(
        ConfigError, match=r'no document has "reason_count" in its metadata.*Annotate comes before Keep'
    ):
        list(Keep("reason_count = 0")([document("1")]))


def test_metadata_of_another_type_is_named() -> None:
    with pytest.raises(ConfigError, match="document 2: metadata a: 'many' is not Int64"):
        list(Keep("a > 1", columns=AB)([document("1", a=1), document("2", a="many")]))
    assert [d.id for d in Keep("a > 1", columns=AB)([document("1", a="2"), document("2", a=3.0)])] == ["1", "2"]


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("a = 1", ["a = 1"]),
        ("a = 1 and b = 'x AND y'", ["a = 1", "b = 'x AND y'"]),
        ("a BETWEEN 1 AND 2 AND b = 'x'", ["a BETWEEN 1 AND 2", "b = 'x'"]),
        ("a = 1 OR a = 2 AND b = 'x'", ["a = 1 OR a = 2 AND b = 'x'"]),
        ("(a = 1 AND b = 'x')", ["(a = 1 AND b = 'x')"]),
        ("CASE WHEN a = 1 AND b = 'x' THEN TRUE ELSE FALSE END AND a = 1",
         ["CASE WHEN a = 1 AND b = 'x' THEN TRUE ELSE FALSE END", "a = 1"]),
        ("TRUE", ["TRUE"]),
    ],
)  # fmt: skip
def test_a_predicate_is_cut_at_its_outermost_ands(where: str, parts: list[str]) -> None:
    assert conjuncts(where) == parts


@pytest.mark.parametrize(("where", "kept"), [("TRUE", 2), ("FALSE", 0)])
def test_a_predicate_without_columns_is_for_all(where: str, kept: int) -> None:
    assert len(list(Keep(where)([document("1"), document("2")]))) == kept


# --- both, under datatrove's executor


def test_pipelines_pickle_run_in_workers_and_survive_a_trip_through_parquet(tmp_path: Path) -> None:
    source = pl.DataFrame({"id": [str(i) for i in range(40)], "text": [PYTHON * (i % 5) + "#\n" for i in range(40)]})
    (tmp_path / "raw").mkdir()
    for part in range(2):
        source[part * 20 : part * 20 + 20].write_parquet(tmp_path / "raw" / f"{part}.parquet")
    step = pickle.loads(pickle.dumps(Annotate()))
    writer = ParquetWriter(str(tmp_path / "out"), expand_metadata=True, schema=step.schema())
    pipeline = [ParquetReader(str(tmp_path / "raw")), step, pickle.loads(pickle.dumps(Keep("line_count > 3"))), writer]
    executor = LocalPipelineExecutor(pipeline, tasks=2, workers=2, logging_dir=str(tmp_path / "logs"))
    stats = executor.run().stats
    assert [(s.name, s.stats["total"].total) for s in stats[1:3]] == [
        ("ANNOTATE: codesieve", 40),
        ("FILTER: codesieve keep", 40),
    ]
    table = pl.read_parquet(tmp_path / "out" / "*.parquet").sort(pl.col("id").cast(pl.Int64))
    assert table["id"].to_list() == [str(i) for i in range(40) if i % 5]
    assert table.schema["function_count"] == pl.UInt32
    again = Keep("reason_count >= 0 AND ARRAY_LENGTH(step_errors) = 0 AND line_count > 20")
    kept = list(again(ParquetReader(str(tmp_path / "out"))()))
    assert sorted(d.id for d in kept) == sorted(table.filter(pl.col("line_count") > 20)["id"])


# --- Blocks


def rows(texts: Sequence[str], kind: str = "text") -> pl.DataFrame:
    names = [str(i) for i in range(len(texts))]
    return pl.DataFrame({"id": names, "text": texts, "kind": [kind] * len(texts), "path": names})


def judged(batch: pl.DataFrame, *blocks: Any, **settings: Any) -> pl.DataFrame:
    step = pickle.loads(pickle.dumps(Blocks("web", blocks, **settings)))
    step.setup()
    found: pl.DataFrame = step(batch)
    return found


def test_every_block_that_would_drop_is_listed_with_its_reason() -> None:
    words = PlainWords()
    good = "\n".join(PROSE.strip() + f" Number {i} is the {'abcdefghij'[i] * 6} of them all." for i in range(10))
    found = judged(
        rows([good, "- x\n" * 60, "", "lorem ipsum { is here.\n" + PROSE * 9]),
        GopherQualityFilter(language=words),
        GopherRepetitionFilter(dup_n_grams=(), top_n_grams=()),
        FineWebQualityFilter(language=words, char_duplicates_ratio=0.5),
        C4QualityFilter(language=words),
    )
    reasons = found["web_reasons"].to_list()
    assert reasons[0] == []
    assert "GopherRepetitionFilter.dup_para_frac" not in reasons[1]
    assert {"GopherRepetitionFilter.dup_line_frac", "FineWebQualityFilter.line_punct_ratio"} <= set(reasons[1])
    assert {"GopherQualityFilter.gopher_short_doc", "FineWebQualityFilter.empty"} <= set(reasons[2])
    assert "C4QualityFilter.lorem_ipsum" in reasons[3]
    assert found["text"].to_list()[0] == good  # C4QualityFilter rewrites what it keeps; here it does not


def test_blocks_agree_with_datatroves_own_pipeline() -> None:
    texts = [PROSE * n + "word " * m for n in range(6) for m in (0, 10, 100)] + ["{}", "\n"]
    found = judged(rows(texts), C4ParagraphFilter(), GopherQualityFilter(language=PlainWords()))
    for block, name in [(C4ParagraphFilter(), "C4P"), (GopherQualityFilter(language=PlainWords()), "Goph")]:
        kept = {d.id for d in block(iter([Document(text=t, id=str(i)) for i, t in enumerate(texts)]))}
        ours = found.filter(~pl.col("web_reasons").list.eval(pl.element().str.starts_with(name)).list.any())["id"]
        assert set(ours) == kept


def test_outside_where_the_column_is_null_and_no_block_is_asked() -> None:
    batch = pl.concat([rows([PROSE]), rows([PROSE], kind="code")])
    found = judged(batch, RegexFilter("library"))
    assert found["web_reasons"].to_list() == [["RegexFilter"], None]


def fails_on_zero(doc: Document) -> bool:
    return bool(1 / int(doc.metadata["path"]))


def test_a_block_that_fails_marks_the_document_and_keeps_the_others_reasons() -> None:
    found = judged(rows([PROSE, PROSE]), LambdaFilter(fails_on_zero), RegexFilter("library"), metadata=("path",))
    assert found["web_reasons"].to_list() == [["RegexFilter"], ["RegexFilter"]]
    assert found[STEP_ERRORS].to_list() == [["web: LambdaFilter: ZeroDivisionError: division by zero"], []]


def test_blocks_that_cannot_work_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="JsonlWriter is not a datatrove filter"):
        Blocks("web", [JsonlWriter("/tmp")])
    with pytest.raises(ConfigError, match="exclusion_writer"):
        Blocks("web", [RegexFilter("x", exclusion_writer=JsonlWriter("/tmp"))])
    with pytest.raises(ConfigError, match=r"LambdaFilter cannot be sent to a worker.*no lambda"):
        Blocks("web", [LambdaFilter(lambda _: True)])
    with pytest.raises(ConfigError, match="not a valid SQL predicate"):
        Blocks("web", [RegexFilter("x")], where="kind =")


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="nothing is lacking")
def test_a_block_that_lacks_a_package_is_refused_before_the_first_document() -> None:
    step = Blocks("web", [GopherQualityFilter()])
    with pytest.raises(ConfigError, match=r"GopherQualityFilter: Please install `spacy`.*\n.*PlainWords"):
        step.setup()


def test_what_blocks_are_made_from_changes_with_their_settings() -> None:
    one, two = (Blocks("web", [GopherQualityFilter(min_doc_words=n, language=PlainWords())]) for n in (50, 60))
    same = Blocks("web", [GopherQualityFilter(min_doc_words=50, language=PlainWords())])
    assert one.made_from == same.made_from != two.made_from
    assert json.dumps(one.made_from)


def test_blocks_are_a_layer_of_a_run(tmp_path: Path) -> None:
    from codesieve.config import SourceConfig
    from codesieve.curation.annotate import annotate
    from codesieve.curation.corpus import scan, select
    from codesieve.curation.layers import stage_layer

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(PROSE)
    (tmp_path / "in" / "b.txt").write_text("Something else.\n")
    (tmp_path / "in" / "c.py").write_text(PYTHON)
    source = SourceConfig(name="s", type="directory", path=str(tmp_path / "in"))
    annotate(tmp_path / "run", [source], AnnotateConfig(), workers=1)
    web = Blocks("web", [RegexFilter("library")])
    stage_layer(tmp_path / "run", "web", [web], web.made_from)
    table = scan(tmp_path / "run").select("path", "web_reasons").collect()
    assert dict(table.iter_rows()) == {"a.txt": ["RegexFilter"], "b.txt": [], "c.py": None}
    chosen = select(scan(tmp_path / "run"), "ARRAY_LENGTH(web_reasons) = 0").collect()
    assert chosen["path"].to_list() == ["b.txt"]
