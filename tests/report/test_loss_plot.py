from pathlib import Path

import matplotlib
import numpy as np
import pytest
from codesieve.report.loss_plot import plot_losses
from codesieve.train.metrics import StepMetrics, write_step
from matplotlib.image import imread

STAGES = [{"name": "balanced", "tokens": 20_000}, {"name": "text", "tokens": 20_000}]
CODE, TEXT, INFILL = "#17698a", "#bf4a26", "#7d7323"  # --series-1, 2 and 4 of page.css


def write(
    path: Path, *, objectives: tuple[str, ...] = ("causal",), spike: float | None = None, sources: int = 2
) -> None:
    with path.open("w", encoding="utf-8") as file:
        for step in range(80):
            code = 2 + 3 / (step + 1)
            losses: dict[str, float | None] = {"code": code if step < 40 and sources == 2 else None, "text": code + 0.6}
            if is_skipped := spike is not None and step == 30:
                losses["text"] = spike
            write_step(
                file,
                StepMetrics(
                    step=step,
                    stage=STAGES[step // 40]["name"],
                    tokens_seen=500 * (step + 1),
                    loss=code,
                    losses=losses,
                    losses_by_objective={name: code + number for number, name in enumerate(objectives)},
                    targets=500,
                    learning_rate=1e-3,
                    grad_norm=1.0,
                    skipped=is_skipped,
                    tokens_per_second=1.0,
                    mfu=None,
                    wait_fraction=0.0,
                ),
            )


def columns(path: Path, colour: str) -> list[int]:
    """Columns of the plot, below the legend, with pixels of the colour."""
    image = imread(path)[300:, :, :3]
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return [int(column) for column in np.flatnonzero((np.abs(image - wanted).max(axis=2) < 0.02).any(axis=0))]


def test_a_source_is_drawn_in_the_stages_that_have_it(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl")
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", STAGES)
    assert imread(tmp_path / "loss.png").shape[:2] == (1040, 1760)
    middle = 104 + (1760 - 104 - 40) / 2
    assert max(columns(tmp_path / "loss.png", CODE)) < middle + 4
    assert max(columns(tmp_path / "loss.png", TEXT)) > 1.8 * middle


def test_objectives_are_drawn_where_there_is_more_than_one(tmp_path: Path) -> None:
    for name, objectives in (("one", ("causal",)), ("two", ("causal", "infill_psm"))):
        write(tmp_path / f"{name}.jsonl", objectives=objectives)
        plot_losses(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.png", STAGES)
    assert not columns(tmp_path / "one.png", INFILL)
    assert columns(tmp_path / "two.png", INFILL)


def test_the_loss_of_a_skipped_step_does_not_spoil_the_scale(tmp_path: Path) -> None:
    pictures = []
    for spike in (50.0, 5e6):
        write(tmp_path / "metrics.jsonl", spike=spike)
        plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", STAGES)
        pictures.append((tmp_path / "loss.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_the_bytes_do_not_depend_on_the_settings_of_the_user(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl")
    pictures = []
    for size in (10, 30):
        with matplotlib.rc_context({"font.size": size, "lines.linewidth": size}):
            plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", STAGES)
        pictures.append((tmp_path / "loss.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_a_run_that_has_just_begun_and_one_of_one_stage_are_drawn(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", sources=1)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    for count in (1, 80):
        (tmp_path / "metrics.jsonl").write_text("".join(lines[:count]))
        plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", [{"name": "train", "tokens": 40_000}])
        assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_a_run_without_steps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="no steps in it, nothing to draw"):
        plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", STAGES)
    assert not (tmp_path / "loss.png").exists()
