"""The benchmark of annotation: its numbers are about the files it was given."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "annotate.py"
    spec = importlib.util.spec_from_file_location("benchmark_annotate", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(30):
        (tmp_path / f"{index}.py").write_text(f"def f{index}(x):\n    return x + {index}\n" * 20)
    (tmp_path / "notes.txt").write_text("no grammar\n")
    (tmp_path / "large.py").write_text("x = 1\n" * 200_000)
    (tmp_path / "binary.py").write_bytes(b"x\0")
    return tmp_path


def test_only_files_with_a_grammar_are_measured_and_each_is_counted(benchmark: ModuleType, folder: Path) -> None:
    found = dict(benchmark.files([folder], 10**9))
    assert {Path(name).name for name in found} == {f"{index}.py" for index in range(30)}
    result = benchmark.measure(list(benchmark.batches(iter(found.items()))), runs=2)
    assert (result["documents"], result["bytes"]) == (30, sum(map(len, found.values())))
    assert list(result["microseconds_per_document"]) == ["bare parse", "text", "origin", "licence", "gate", "syntax"]
    assert 0 < result["mb_per_second"] < result["bare_parse_mb_per_second"]
    assert 0 < result["ratio"] < 1


def test_the_sample_is_the_same_every_time_and_no_larger_than_asked(benchmark: ModuleType, folder: Path) -> None:
    size = len((folder / "1.py").read_bytes())
    sample = list(benchmark.files([folder], 5 * size))
    assert sample == list(benchmark.files([folder], 5 * size))
    assert len(sample) == pytest.approx(5, abs=1)
