import ctypes
import hashlib
import random
import sys
from pathlib import Path

import pytest
from codesieve.classifiers import training
from codesieve.classifiers.model import fasttext_version, load_scorer
from codesieve.classifiers.training import TrainingError, labelled, train_model
from codesieve.config import ClassifierConfig
from codesieve.strict import ConfigError

SMALL = ClassifierConfig(dim=16, bucket=100, epoch=5, min_count=1)


def lines(count: int = 60) -> list[str]:
    generator = random.Random(0)
    return [
        labelled(" ".join(generator.choices("abc" if good else "xyz", k=12)), good)
        for good in (number % 2 == 0 for number in range(count))
    ]


def test_two_trainings_give_the_same_bytes_even_for_a_tiny_model(tmp_path: Path) -> None:
    """The case in which fastText trained in this process gives NaN or other weights each time (upstream issue 1061)."""
    first = train_model(lines(), SMALL, tmp_path / "a")
    _dirty_the_heap()
    second = train_model(lines(), SMALL, tmp_path / "b")
    data = (tmp_path / "a" / "model.bin").read_bytes()
    assert data == (tmp_path / "b" / "model.bin").read_bytes()
    assert first == second == hashlib.sha256(data).hexdigest()


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    seeds = [SMALL.model_copy(update={"seed": seed}) for seed in (0, 1)]
    assert len({train_model(lines(), config, tmp_path) for config in seeds}) == 2


def test_nothing_but_the_model_is_left(tmp_path: Path) -> None:
    train_model(lines(), SMALL, tmp_path / "quality")
    assert [path.name for path in (tmp_path / "quality").iterdir()] == ["model.bin"]


def test_training_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_model(lines(), SMALL, tmp_path)
    scorer = load_scorer(tmp_path, 100)
    assert scorer.raw_of_line("a b c") > 0 > scorer.raw_of_line("x y z")
    assert capfd.readouterr() == ("", "")


def test_words_unknown_to_the_model_score_zero_and_scores_are_bounded(tmp_path: Path) -> None:
    train_model(lines(200), SMALL.model_copy(update={"epoch": 200, "lr": 1.0}), tmp_path)
    scorer = load_scorer(tmp_path, 100)
    assert abs(scorer.raw_of_line("a " * 30)) <= 12
    assert scorer.raw_of_line("a " * 30) > 5
    assert scorer.raw("", "python") == scorer.raw_of_line("EMPTY")


def test_a_failure_in_the_child_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fastText training failed: "):
        train_model([], SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_different_models_are_an_error_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os, sys\nopen(sys.argv[2], 'wb').write(os.urandom(8))\n")
    monkeypatch.setattr(training, "CHILD", child)
    with pytest.raises(TrainingError, match="two models from the same lines"):
        train_model(lines(), SMALL, tmp_path / "quality")
    assert list((tmp_path / "quality").iterdir()) == []


def test_the_child_runs_apart_with_malloc_that_clears_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os, sys\nopen(sys.argv[2], 'w').write(os.environ['MALLOC_PERTURB_'])\n")
    monkeypatch.setattr(training, "CHILD", child)
    train_model(lines(), SMALL, tmp_path / "quality")
    assert (tmp_path / "quality" / "model.bin").read_text() == "255"


def test_a_missing_or_foreign_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.bin: no classifier here"):
        load_scorer(tmp_path, 100)
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=r"model\.bin: not a fastText model"):
        load_scorer(tmp_path, 100)


def test_the_installed_fasttext_has_a_version() -> None:
    assert fasttext_version().split(" ")[0].startswith("fasttext")


def test_importing_the_room_does_not_import_fasttext() -> None:
    import subprocess

    code = "import codesieve.classifiers.fit, codesieve.classifiers.step, sys; sys.exit('fasttext' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _dirty_the_heap() -> None:
    buffers = [ctypes.create_string_buffer(b"\x7f" * size) for size in (64, 1024, 4096, 65_536) for _ in range(200)]
    del buffers
