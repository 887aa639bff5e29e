import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_store_is_measured_against_the_bare_call(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.py").write_text(f"def name_{number}(x, other):\n    return other + x * {number}\n" * 9)
    command = [sys.executable, BENCHMARKS / "tokenise.py", tmp_path, "--rounds", "2", "--vocab-size", "370", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (report["documents"], report["bytes"], report["vocab_size"]) == (40, size, 370)
    assert 0 < report["tokens"] < size
    for key in ("ratio", "ratio_cpu"):
        assert 0 < report[f"{key}_range"][0] <= report[key] <= report[f"{key}_range"][1]
    assert report["store_mb_per_second"] > 0 < report["bare_tokens_per_cpu_second"]


def test_no_benchmark_hides_a_module_of_the_standard_library():
    # A script's folder comes first on the path: a tokenize.py in it would be what `inspect` imports.
    assert not {path.stem for path in BENCHMARKS.glob("*.py")} & sys.stdlib_module_names
