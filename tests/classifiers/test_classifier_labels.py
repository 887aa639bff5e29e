from pathlib import Path

import polars as pl
import pytest
from codesieve.classifiers.labels import MAXIMUM_BYTES, LabelSet, label, load_labels, rule_counts
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.strict import ConfigError

HERE = "labels/test.yaml"


def documents(**columns: list[object]) -> pl.LazyFrame:
    height = len(next(iter(columns.values()), [None]))
    table = {
        "id": [f"{n:032x}" for n in range(height)],
        "language": ["python"] * height,
        "repository": ["a"] * height,
        "path": [f"{n}.py" for n in range(height)],
        "size_bytes": [100] * height,
        "content_hash": [f"hash{n}" for n in range(height)],
        "is_test": [False] * height,
        "good": [True] * height,
        "bad": [False] * height,
        **columns,
    }
    return pl.LazyFrame(table)


def label_set(positive: str = "good", negative: str = "bad") -> LabelSet:
    return LabelSet.model_validate(
        {
            "name": "test",
            "version": 1,
            "description": "for tests",
            "positive": [{"name": "fine", "where": positive, "why": "test"}],
            "negative": [{"name": "poor", "where": negative, "why": "test"}],
        }
    )


def labelled(frame: pl.LazyFrame, labels: LabelSet | None = None, where: str = "TRUE") -> dict[int, bool]:
    table = label(frame, labels or label_set(), where, HERE)
    return {int(identity, 16): positive for identity, positive in table.select("id", "positive").iter_rows()}


def test_a_negative_predicate_outweighs_a_positive_one_and_null_is_no_label() -> None:
    frame = documents(good=[True, True, False, None, False], bad=[False, True, True, None, None])
    assert labelled(frame) == {0: True, 1: False, 2: False}


def test_repository_facts_come_from_all_its_files() -> None:
    frame = documents(
        repository=["a", "a", "a", "b", "b", "", ""],
        path=["x.py", "t.py", "x.pyi", "x.py", "t.py", "t.py", "x.pyi"],
        is_test=[False, True, False, False, True, True, False],
    )
    assert set(labelled(frame, label_set("has_tests AND is_typed"))) == {0, 1, 2}
    assert set(labelled(frame, label_set("has_tests"))) == {0, 1, 2, 3, 4}


def test_only_the_training_side_of_a_split_is_looked_at_even_for_facts() -> None:
    frame = documents(
        good=[True] * 4,
        split=["train", "heldout", "train", None],
        is_test=[False, True, False, False],
        family=list("abcd"),
    )
    assert set(labelled(frame)) == {0, 2}
    assert labelled(frame, label_set("has_tests")) == {}


def test_families_are_the_runs_families_else_repositories_else_the_document() -> None:
    table = label(documents(repository=["a", "", ""]), label_set(), "TRUE", HERE)
    assert table["family"].to_list() == ["a", f"id:{1:032x}", f"id:{2:032x}"]
    table = label(documents(repository=["a", "b"], family=["f", "f"]), label_set(), "TRUE", HERE)
    assert table["family"].to_list() == ["f", "f"]


def test_copies_and_oversized_documents_get_no_label() -> None:
    frame = documents(content_hash=["x", "x", "y", "z"], size_bytes=[1, 1, MAXIMUM_BYTES + 1, 1])
    assert set(labelled(frame)) == {0, 3}
    frame = documents(good=[True, True], duplicate_of=[None, "0" * 32]).with_columns(
        pl.col("duplicate_of").cast(pl.String)
    )
    assert set(labelled(frame)) == {0}


def test_the_predicate_of_the_config_limits_who_gets_a_label() -> None:
    frame = documents(language=["python", "c", "python"])
    assert set(labelled(frame, where="language = 'python'")) == {0, 2}


def test_rows_in_another_order_give_the_same_table() -> None:
    frame = documents(good=[True, False, True], bad=[False, True, False])
    assert label(frame, label_set(), "TRUE").equals(label(frame.reverse(), label_set(), "TRUE"))


def test_every_predicate_that_names_a_document_is_counted() -> None:
    labels = LabelSet.model_validate(
        {
            **label_set().model_dump(),
            "negative": [
                {"name": n, "where": w, "why": "w"} for n, w in (("one", "bad"), ("two", "bad"), ("no", "FALSE"))
            ],
        }
    )
    table = label(documents(bad=[True, False]), labels, "TRUE", HERE)
    assert rule_counts(table, labels) == {"fine": 1, "one": 1, "two": 1, "no": 0}


def test_an_unknown_column_is_named_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r'labels/test.yaml: negative "poor": .*"size_byte" \(did you mean "size_bytes"'
    ):
        label(documents(), label_set(negative="size_byte > 3"), "TRUE", HERE)
    with pytest.raises(ConfigError, match=r'did you mean "has_tests"'):
        label(documents(), label_set(positive="has_test"), "TRUE", HERE)


def test_a_predicate_that_is_not_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r'"poor".*not a valid SQL predicate'):
        label(documents(), label_set(negative="bad AND"), "TRUE", HERE)
    with pytest.raises(ConfigError, match=r'"fine": gives Int64, not true or false'):
        label(documents(), label_set(positive="size_bytes"), "TRUE", HERE)
    with pytest.raises(ConfigError, match='"fine"'):
        label(documents(), label_set(positive="size_bytes > 'x'"), "TRUE", HERE)


def test_a_frame_without_an_identity_column_is_an_error() -> None:
    with pytest.raises(ConfigError, match='labels need the column "content_hash"'):
        label(documents().drop("content_hash"), label_set(), "TRUE", HERE)


def test_the_label_set_that_comes_with_codesieve_keeps_corruptions_a_minority() -> None:
    labels, path = load_labels("weak")
    assert path.name == "weak.yaml"
    assert 0 < labels.corruptions.share <= 0.3
    assert not set(labels.corruptions.trained) & set(labels.corruptions.audited)


def test_its_predicates_fit_the_columns_that_annotation_makes() -> None:
    labels, path = load_labels("weak")
    columns = pl.LazyFrame(schema={column.name: column.dtype for column in (*IDENTITY, *SIGNALS)})
    assert label(columns, labels, "kind = 'code'", str(path)).is_empty()


def test_wrong_label_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown label "week" \(did you mean "weak"'):
        load_labels("week")
    text = (Path(load_labels("weak")[1])).read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("shuffle_lines", "shufle_lines"))
    with pytest.raises(ConfigError, match=r'unknown corruption "shufle_lines" \(did you mean "shuffle_lines"'):
        load_labels(str(path))
    path.write_text(text.replace("share: 0.3", "share: 0.9"))
    with pytest.raises(ConfigError, match=r"corruptions.share.*0.5"):
        load_labels(str(path))
    path.write_text(text.replace("name: minified", "name: generated"))
    with pytest.raises(ConfigError, match="label names must differ; twice: generated"):
        load_labels(str(path))
