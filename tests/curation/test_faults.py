"""What goes wrong around annotation costs what it touches, is named, and leaves the finished shards as they are."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from codesieve.config import AnnotateConfig, SourceConfig
from codesieve.curation.annotate import annotate
from codesieve.curation.shards import shard_paths
from codesieve.curation.steps import STEP_ERRORS
from codesieve.files import remove_temporary
from codesieve.processes import run_processes
from codesieve.strict import ConfigError

KILLS = 20


def write_sources(folder: Path, files: int) -> None:
    rng = random.Random(0)
    for index in range(files):
        functions = "\n\n".join(
            f"def {rng.choice(['read', 'parse', 'merge'])}_{i}(values, limit={rng.randint(1, 99)}):\n"
            f"    return [value * {rng.randint(2, 9)} for value in values if value > limit]"
            for i in range(rng.randint(1, 6))
        )
        path = folder / f"package{index % 7}" / f"module_{index:03d}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Module {index}."""\n\n{functions}\n')


def source(folder: Path, **settings: Any) -> SourceConfig:
    return SourceConfig(name="s", type="directory", path=str(folder), **settings)


def config(**settings: Any) -> AnnotateConfig:
    return AnnotateConfig(**{"unit_bytes": 1_800, **settings})


def contents(run: Path) -> dict[str, bytes]:
    """Every byte that an annotate run leaves, its logs aside."""
    files = (path for path in run.rglob("*") if path.is_file() and "logs" not in path.relative_to(run).parts)
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input") / "code"
    write_sources(folder, 240)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = tmp_path_factory.mktemp("runs") / "whole"
    annotate(run, [source(tree)], config(), workers=1)
    return contents(run)


# --- killed


ANNOTATE = """
import os, sys
from pathlib import Path
from codesieve.config import AnnotateConfig, SourceConfig
from codesieve.curation.annotate import annotate

def go(run, tree, workers):
    source = SourceConfig(name="s", type="directory", path=tree)
    annotate(Path(run), [source], AnnotateConfig(unit_bytes=1_800), workers=int(workers))
"""
ONCE = (
    ANNOTATE
    + """
if __name__ == "__main__":
    go(*sys.argv[1:])
"""
)
SERVER = (
    ANNOTATE
    + """
if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            go(*line.split())
            os._exit(0)
        os.setpgid(child, child)  # whoever comes first
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)
"""
)


@pytest.fixture
def starter() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported everything (which takes most of a short run) and forks for each start."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVER], text=True, **pipes) as process:
        yield process
        process.kill()


def shards_of(run: Path) -> int:
    return len(shard_paths(run / "annotated"))


def test_killed_twenty_times_a_run_ends_in_the_same_bytes(
    tree: Path, undisturbed: dict[str, bytes], tmp_path: Path, starter: subprocess.Popen[str]
) -> None:
    """Each start is killed shortly after it has made a shard or two, or before the first; sometimes with two workers."""
    rng = random.Random(1)
    run = tmp_path / "run"
    made = []
    for attempt in range(KILLS):
        wanted, delay = shards_of(run) + rng.choice([0, 0, 1, 1, 1, 2]), rng.uniform(0.0, 0.03)
        if attempt % 7 == 3:
            command = [sys.executable, "-c", ONCE, str(run), str(tree), "2"]
            group = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
            pid = group.pid
        else:
            group = None
            assert starter.stdin and starter.stdout
            starter.stdin.write(f"{run} {tree} 1\n")
            starter.stdin.flush()
            pid = int(starter.stdout.readline())
        deadline = time.monotonic() + 60
        while shards_of(run) < wanted and time.monotonic() < deadline:
            os.kill(pid, 0)  # an error if it ended by itself
            time.sleep(0.002)
        time.sleep(delay)
        os.killpg(pid, signal.SIGKILL)
        if group:
            group.wait()
        elif starter.stdout:
            assert starter.stdout.readline() == "ended\n"
        made.append(shards_of(run))
    assert made == sorted(made)
    assert 0 < made[-1] < sum(name.startswith("annotated/") for name in undisturbed)
    remove_temporary(run)  # as every command begins
    annotate(run, [source(tree)], config(), workers=1)
    assert contents(run) == undisturbed


# --- full disk


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A write beyond `size` fails as on a full disk; needs no rights. Python ignores the signal that goes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limited_annotation(run: str, tree: str, size: int, workers: int) -> str:
    """In a process of its own: the limit holds for every file, those of the test runner too."""
    with largest_file(size):
        try:
            annotate(Path(run), [source(Path(tree))], config(), workers=workers)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
    return "done"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_names_the_file_and_the_next_start_continues(tmp_path: Path, workers: int) -> None:
    tree, whole, run = (tmp_path / name for name in ("code", "whole", "run"))
    write_sources(tree, 60)
    rng = random.Random(2)
    large = "".join(f"x_{rng.random()} = {rng.random()}\n" for _ in range(9_000))
    (tree / "package3" / "module_900.py").write_text(large)
    annotate(whole, [source(tree)], config(), workers=1)
    (full,) = (path for path in shard_paths(whole / "annotated") if path.stat().st_size > 100_000)
    message = run_processes(limited_annotation, [(str(run), str(tree), 100_000, workers)], ["it"], workers=1)
    assert message == [f"{run / 'annotated' / full.name}: File too large"]
    finished = shard_paths(run / "annotated")
    assert finished or workers == 2
    assert full.name not in {path.name for path in finished}
    for path in finished:
        assert path.read_bytes() == (whole / "annotated" / path.name).read_bytes()
    annotate(run, [source(tree)], config(), workers=1)
    assert contents(run) == contents(whole)


# --- unreadable input


class Vanishing:
    """Does something to the input between listing and reading."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]):
        import codesieve.curation.annotate as module

        real = module.run_stage

        def run(*arguments: Any, **named: Any) -> None:
            change()
            real(*arguments, **named)

        monkeypatch.setattr(module, "run_stage", run)


def skips(run: Path) -> dict[str, str]:
    table = pl.read_parquet(run / "skipped" / "*.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def test_a_file_that_is_no_longer_what_was_listed_is_a_named_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "code"
    write_sources(folder, 7)
    gone, replaced, broken = (folder / f"package{i}" / f"module_00{i}.py" for i in (0, 1, 2))

    def change() -> None:
        gone.unlink()
        replaced.unlink()
        replaced.mkdir()
        broken.unlink()
        broken.symlink_to("/proc/self/mem")  # every read at 0 is an input/output error

    Vanishing(monkeypatch, change)
    found = annotate(tmp_path / "run", [source(folder)], config(), workers=1)
    reasons = skips(tmp_path / "run")
    assert reasons["package0/module_000.py"] == "unreadable: No such file or directory"
    assert reasons["package1/module_001.py"] == "unreadable: Is a directory"
    assert reasons["package2/module_002.py"] == "unreadable: Input/output error"
    assert sum(found.skipped.values()) == 3
    assert pl.read_parquet(tmp_path / "run" / "annotated" / "*.parquet").height == 4


def test_a_file_without_permission_is_a_named_skip(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    write_sources(folder, 3)
    (folder / "package0" / "module_000.py").chmod(0)
    root_reads_everything = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    command = [
        sys.executable,
        "-m",
        "codesieve",
        "curate",
        str(folder),
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "1",
    ]
    subprocess.run([*(root_reads_everything if os.geteuid() == 0 else []), *command], check=True, capture_output=True)
    assert skips(tmp_path / "run") == {"package0/module_000.py": "unreadable: Permission denied"}


# --- another configuration


def test_another_configuration_is_refused_with_the_difference_and_other_rules_are_not(
    tree: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    annotate(run, [source(tree)], config(), workers=1)
    with pytest.raises(ConfigError, match=r"annotate\.gates: true -> false"):
        annotate(run, [source(tree)], config(gates=False), workers=1)
    with pytest.raises(ConfigError, match=r"sources.*max_file_bytes"):
        annotate(run, [source(tree, max_file_bytes=1_000_000)], config(), workers=1)
    assert annotate(run, [source(tree)], config(rules="another", workers=2), workers=1).was_done
    assert contents(run) == undisturbed


# --- hostile documents


HOSTILE: Mapping[str, bytes] = {
    "empty.py": b"",
    "blank.py": b" \n\t\n",
    "nul.py": b"x = 1\0\n",
    "late_nul.py": b"x = 1\n" * 2_000 + b"\0",
    "not_utf8.py": b"# \xff\xfe\x80 caf\xe9\nx = 1\n",
    "surrogates.py": b"x = '\xed\xa0\x80'\n",
    "nested.py": b"(" * 10_000 + b"1" + b")" * 10_000 + b"\n",
    "nested.json": b"[" * 10_000 + b"]" * 10_000,
    "nested.c": b"int main() {" + b"{" * 10_000 + b"}" * 10_000 + b"}\n",
    "open.js": b"{" * 10_000,
    "line_ends.py": b"\r" * 50_000 + b"\n" * 50_000,
    "many_lines.py": b"x = 1\n" * 1_000_000,
    "one_line.js": b"var a = 'x';" * 100_000,
}


@pytest.mark.parametrize("gates", [True, False])
def test_hostile_documents_are_measured_or_named_and_none_is_lost(tmp_path: Path, gates: bool) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    # Without gates a parse of the long ones takes its whole budget, which is tested elsewhere.
    documents = {name: data for name, data in HOSTILE.items() if gates or len(data) < 1_000_000}
    for name, data in documents.items():
        (folder / name).write_bytes(data)
    (folder / os.fsdecode(b"n\xffame.py")).write_bytes(b"x = 1\n")
    with (folder / "huge.py").open("wb") as handle:
        handle.truncate(64_000_001)
    annotate(tmp_path / "run", [source(folder)], config(gates=gates), workers=1)
    reasons = skips(tmp_path / "run")
    assert reasons["nul.py"] == "binary"
    assert reasons["huge.py"] == "over_max_file_bytes"
    table = pl.read_parquet(tmp_path / "run" / "annotated" / "*.parquet")
    assert sorted([*reasons, *table["path"]]) == sorted([*documents, "huge.py", r"n\xffame.py"])
    errors = {path: e for path, e in table.select("path", STEP_ERRORS).iter_rows() if e}
    assert all(e[0].startswith("syntax: TimeoutError") for e in errors.values()), errors
    lines = dict(table.select("path", "line_count").iter_rows())
    assert lines.get("many_lines.py", 1_000_000) == 1_000_000
    assert lines["line_ends.py"] == 99_999  # the last \r and the first \n are one
    assert lines.get("one_line.js", 1) == 1


def peak_of(run: str, folder: str) -> int:
    annotate(Path(run), [source(Path(folder), max_file_bytes=200_000_000)], config(), workers=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_line_of_100_mb_takes_less_than_one_and_a_half_gigabytes(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "line.py").write_bytes(b"x = 1; " * (100_000_000 // 7))
    (peak,) = run_processes(peak_of, [(str(tmp_path / "run"), str(folder))], ["it"], workers=1)
    assert pl.read_parquet(tmp_path / "run" / "annotated" / "*.parquet", columns=["line_count"]).item() == 1
    assert peak < 1_500_000_000
