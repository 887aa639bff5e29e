"""The benchmarks' numbers are about the files they were given, and about all that a document costs."""

from pathlib import Path

import polars as pl
import pytest
from codesieve.benchmarks import annotate, memory, peers, sample
from codesieve.curation.schema import IDENTITY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "files"
    place.mkdir()
    for index in range(30):
        (place / f"{index}.py").write_text(f"def f{index}(x):\n    return x + {index}\n" * 20)
    (place / "notes.txt").write_text("no grammar\n")
    (place / "large.py").write_text("x = 1\n" * 200_000)
    (place / "binary.py").write_bytes(b"x\0")
    return place


def test_only_files_with_a_grammar_are_measured_and_each_is_counted(folder: Path, tmp_path: Path) -> None:
    frame = sample.sample([folder], 10**9)
    assert {Path(name).name for name in frame["path"]} == {f"{index}.py" for index in range(30)}
    assert frame.columns == [column.name for column in IDENTITY]
    model = annotate.train_on(frame, tmp_path / "model")
    steps = annotate.pipeline(model, gates=False)
    result = annotate.measure(frame, steps, 2, tmp_path)
    assert (result["documents"], result["bytes"]) == (30, int(frame["size_bytes"].sum()))
    assert result["languages"] == {"python": {"documents": 30, "bytes": result["bytes"]}}
    parts = [annotate.BARE, annotate.READ, *(step.name for step in steps), annotate.WRITE]
    assert list(result["microseconds_per_document"]) == parts
    assert {"text", "syntax", "rules", "quality"} <= set(parts)
    assert result["mb_per_second"] > 0
    assert result["ratio_range"][0] <= result["ratio"] <= result["ratio_range"][1]
    [written] = (tmp_path / "out").iterdir()
    assert pl.read_parquet(written)["quality_probability"].null_count() == 0


def test_the_sample_is_the_same_every_time_and_no_larger_than_asked(folder: Path) -> None:
    size = len((folder / "1.py").read_bytes())
    first = sample.sample([folder], 5 * size)
    assert first.equals(sample.sample([folder], 5 * size))
    assert first.height == pytest.approx(5, abs=1)


def test_a_corpus_in_parquet_gives_the_rows_of_its_languages(tmp_path: Path) -> None:
    rows = [{"text": f"x = {n}\n", "path": f"{n}.py", "language": "python"} for n in range(50)]
    rows += [{"text": f"int x{n};\n", "path": f"{n}.c", "language": "c"} for n in range(50)]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    frame = sample.sample([tmp_path], 10**6, languages=["c"])
    assert sorted(frame["text"]) == sorted(row["text"] for row in rows if row["language"] == "c")
    assert sample.sample([tmp_path], 10**6).height == 100


def test_batches_and_shards_hold_every_document_once(folder: Path, tmp_path: Path) -> None:
    frame = sample.sample([folder], 10**9)
    assert pl.concat(sample.batches(frame, 3000)).equals(frame)
    paths = sample.write_shards(frame, tmp_path / "shards", shards=4)
    assert len(paths) == 4
    assert pl.concat([pl.read_parquet(path) for path in paths])["id"].equals(frame["id"])


def test_a_missing_corpus_falls_back_to_the_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sample.CORPUS_VARIABLE, str(tmp_path))
    assert tmp_path not in sample.default_paths()
    pl.DataFrame({"text": ["x\n"]}).write_parquet(tmp_path / "a.parquet")
    assert sample.default_paths() == [tmp_path]


def test_nothing_to_measure_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no files to measure"):
        sample.sample([tmp_path], 10)


def test_agreement_leaves_out_what_a_peer_could_not_measure() -> None:
    found = peers.agreement([0.1, 0.5, 9999, None, 0.9], [0.2, 0.6, 0.3, 0.4, 1.0])
    assert found["documents"] == 3
    assert found["correlation"] == pytest.approx(1)
    assert found["median_difference"] == pytest.approx(0.1)


def test_every_peer_is_matched_with_steps_that_exist() -> None:
    for name, peer in peers.PEERS.items():
        steps = [step.name for step in peers.matched_steps(peer)]
        assert steps[: len(peer.steps)] == list(peer.steps), name


@pytest.mark.parametrize("name", memory.INPUTS)
def test_a_hostile_input_has_the_size_that_was_asked_for(name: str) -> None:
    _, make = memory.INPUTS[name]
    size = len(make(1_000_000))
    assert size <= 1_100_000
    assert size > 400_000 or name.startswith(("nothing", "nested", "generics"))
