"""Selections: selected + rejected = annotated, controls are matched, layers are aligned."""

from pathlib import Path

import polars as pl
import pytest
from codesieve.config import SelectionConfig, SplitConfig
from codesieve.curation.corpus import predicate, scan, select, write_layer
from codesieve.curation.dedup.exact import exact_duplicates
from codesieve.curation.select import controls, funnel, write_corpus
from codesieve.curation.shards import write_shard
from codesieve.curation.split import split_families
from codesieve.strict import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

PREDICATES = ["TRUE", "n > 3", "n IS NULL", "NOT (n > 3)", "language = 'c' OR n < 2", "n / 2 > 1"]


def frame(rows: int, seed: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"{seed}-{i}" for i in range(rows)],
            "text": [f"text {i}" for i in range(rows)],
            "source": ["a" if i % 3 else "b" for i in range(rows)],
            "kind": ["code"] * rows,
            "language": ["c" if i % 2 else "go" for i in range(rows)],
            "path": [f"p/{i}" for i in range(rows)],
            "repository": [f"r{i % 7}" for i in range(rows)],
            "content_hash": [f"{i % 5}" for i in range(rows)],
            "is_vendored": [i % 4 == 0 for i in range(rows)],
            "size_bytes": [100 + (i * 37) % 900 for i in range(rows)],
            "n": [None if i % 6 == 0 else i % 7 for i in range(rows)],
            "step_errors": pl.Series([[]] * rows, dtype=pl.List(pl.String)),
        }
    )


def run_of(tmp_path: Path, *frames: pl.DataFrame) -> Path:
    for index, part in enumerate(frames):
        write_shard(tmp_path / "annotated" / f"{index:05d}.parquet", [part], {})
    return tmp_path


@given(st.integers(0, 60), st.sampled_from(PREDICATES))
def test_selected_and_rejected_make_the_whole_for_any_predicate(rows: int, where: str) -> None:
    table = frame(rows).lazy()
    selected = select(table, where).collect()
    rejected = table.filter(~predicate(where, table.collect_schema().names())).collect()
    assert selected.height + rejected.height == rows
    assert not set(selected["id"]) & set(rejected["id"])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("langauge = 'c'", 'did you mean "language"'),
        ("n >", "not a valid SQL"),
        ("RANDOM() > 0.5", "not a valid SQL"),
        ("n IS NOT FALSE", "write COALESCE"),
        ("1 + 1", "is always 2, not true or false"),
    ],
)
def test_a_bad_predicate_is_a_config_error(where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(frame(3).lazy(), where)


def test_layers_stand_beside_the_annotated_columns(tmp_path: Path) -> None:
    run = run_of(tmp_path, frame(5, 1), frame(4, 2))
    ids = scan(run).select("id").collect()
    write_layer(run, "marks", ids.with_columns(pl.int_range(pl.len()).alias("mark")), {})
    assert scan(run).collect()["mark"].to_list() == list(range(9))
    assert select(scan(run), "mark >= 5").collect()["id"].to_list() == ["2-0", "2-1", "2-2", "2-3"]


def test_a_layer_in_another_order_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, frame(5))
    with pytest.raises(ValueError, match="ids do not match"):
        write_layer(run, "marks", scan(run).select("id").collect().reverse().with_columns(mark=0), {})


def test_a_layer_with_too_few_rows_in_a_shard_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, frame(5))
    write_shard(run / "layers" / "marks" / "00000.parquet", [pl.DataFrame({"id": ["0-0"], "mark": [1]})], {})
    with pytest.raises(ValueError, match="1 rows for 5 documents"):
        scan(run)


def test_two_layers_with_one_column_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, frame(2))
    for name in ("one", "two"):
        write_shard(run / "layers" / name / "00000.parquet", [pl.DataFrame({"id": ["0-0", "0-1"], "mark": [1, 2]})], {})
    with pytest.raises(ValueError, match='column "mark" is in one as well'):
        scan(run)


def test_a_layer_that_lacks_shards_is_not_there_yet(tmp_path: Path) -> None:
    run = run_of(tmp_path, frame(2, 1), frame(2, 2))
    write_shard(run / "layers" / "one" / "00000.parquet", [pl.DataFrame({"id": ["1-0", "1-1"], "mark": [1, 2]})], {})
    assert "mark" not in scan(run).collect_schema().names()


@settings(max_examples=25, deadline=None)
@given(st.integers(30, 200), st.sampled_from(["n > 3", "n > 1", "language = 'c'"]), st.integers(0, 5))
def test_a_control_is_matched_in_bytes_in_every_stratum(rows: int, where: str, seed: int) -> None:
    table = frame(rows)
    selections = [SelectionConfig(name="top", where=where), SelectionConfig(name="random", control_of="top")]
    layer = controls(table.lazy(), selections, seed)
    assert layer["id"].to_list() == table["id"].to_list()
    joined = table.with_columns(layer["control_random"])
    chosen = predicate(where, table.columns)
    for part in joined.partition_by("source", "kind", "language"):
        target = part.filter(chosen)["size_bytes"].sum()
        reached = part.filter("control_random")["size_bytes"].sum()
        assert abs(reached - target) <= part["size_bytes"].max()


def test_a_control_draws_from_the_training_side_only_and_depends_on_the_seed() -> None:
    table = frame(120).with_columns(split=pl.Series(["train", "heldout"] * 60))
    selections = [SelectionConfig(name="top", where="n > 3"), SelectionConfig(name="random", control_of="top")]
    one, two = (controls(table.lazy(), selections, seed)["control_random"] for seed in (0, 1))
    assert not one.filter(table["split"] == "heldout").any()
    assert one.to_list() != two.to_list()


def test_the_funnel_counts_every_document(tmp_path: Path) -> None:
    table = frame(50).with_columns(split=pl.Series(["train", "heldout"] * 25))
    rows = funnel(table.lazy(), [SelectionConfig(name="all"), SelectionConfig(name="top", where="n > 3")])
    assert rows[0]["documents"] == 25  # held-out documents are outside every selection
    for row in rows:
        assert row["documents"] + row["documents_rejected"] == 50
        assert row["bytes"] + row["bytes_rejected"] == table["size_bytes"].sum()


@pytest.mark.parametrize("where", ["TRUE", "1 = 1", "FALSE"])
def test_a_constant_predicate_has_a_value_for_every_row(where: str) -> None:
    """Of 16,384 rows on, Polars filters in pieces, to whose number a literal does not fit; sums count it once."""
    table = frame(20_000)
    wanted = 0 if where == "FALSE" else 20_000
    chosen = predicate(where, table.columns)
    assert table.filter(chosen).height == table.lazy().filter(chosen).collect().height == wanted
    assert table.select(chosen.sum()).item() == wanted
    assert table.select(chosen).height == 20_000
    assert funnel(table.lazy(), [SelectionConfig(name="a", where=where)])[0]["documents"] == wanted


def test_corpus_shards_hold_the_selection_and_open_elsewhere(tmp_path: Path) -> None:
    import datasets

    run = run_of(tmp_path / "run", frame(40, 1), frame(40, 2))
    selection = SelectionConfig(name="top", where="n > 3")
    manifest = write_corpus(run, selection, tmp_path / "corpus", {"rule_set": "t", "fingerprint": "f"})
    expected = select(scan(run), "n > 3").collect()
    table = pl.read_parquet(tmp_path / "corpus" / "*.parquet")
    assert sorted(table["id"]) == sorted(expected["id"])
    assert manifest["documents"] == expected.height == sum(file["documents"] for file in manifest["files"])
    assert {file["source"] for file in manifest["files"]} == {"a", "b"}
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "corpus" / "*.parquet"), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert sorted(loaded["text"]) == sorted(expected["text"])
    assert "n > 3" in (tmp_path / "corpus" / "README.md").read_text()


def test_a_shard_without_documents_opens_elsewhere(tmp_path: Path) -> None:
    """A unit of binary files only makes one."""
    import datasets

    run = run_of(tmp_path / "run", frame(3, 1), frame(9).clear(), frame(2, 2))
    assert scan(run).collect().height == 5
    folder = tmp_path / "run" / "annotated"
    loaded = datasets.load_dataset("parquet", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded.num_rows == pl.read_parquet(folder / "*.parquet").height == 5


def test_an_empty_selection_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", frame(5))
    with pytest.raises(ConfigError, match="selects no document"):
        write_corpus(run, SelectionConfig(name="none", where="n > 100"), tmp_path / "corpus", {})
    assert not (tmp_path / "corpus").exists()


def test_the_kept_copy_is_outside_vendored_folders_and_has_the_shortest_path() -> None:
    table = pl.DataFrame(
        {
            "id": ["1", "2", "3", "4"],
            "content_hash": ["x", "x", "x", "y"],
            "is_vendored": [True, False, False, False],
            "path": ["a", "long/name", "name", "z"],
        }
    )
    layer = exact_duplicates(table.lazy())
    assert layer["duplicate_of"].to_list() == ["3", "3", None, None]
    assert layer["duplicate_count"].to_list() == [3, 3, 3, 1]


@given(st.lists(st.integers(0, 4), min_size=0, max_size=30))
def test_each_cluster_keeps_exactly_one(hashes: list[int]) -> None:
    table = pl.DataFrame(
        {
            "id": [str(i) for i in range(len(hashes))],
            "content_hash": [str(h) for h in hashes],
            "is_vendored": [None] * len(hashes),
            "path": ["p"] * len(hashes),
        },
        schema={"id": pl.String, "content_hash": pl.String, "is_vendored": pl.Boolean, "path": pl.String},
    )
    layer = exact_duplicates(table.lazy())
    assert layer["duplicate_of"].null_count() == len(set(hashes))
    assert layer["id"].to_list() == table["id"].to_list()


def test_families_are_whole_on_one_side_and_stay_there_when_others_come() -> None:
    config = SplitConfig(heldout_fraction=0.4, seed=1)
    small, large = (split_families(frame(rows).lazy(), config) for rows in (40, 200))
    for layer in (small, large):
        assert layer.group_by("family").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 7
    assert small.equals(large.head(40))


def test_a_split_with_an_empty_side_is_an_error() -> None:
    with pytest.raises(ConfigError, match="all 7 families are on the train side"):
        split_families(frame(40).lazy(), SplitConfig(heldout_fraction=0.0))
