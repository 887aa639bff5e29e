"""What the page counts itself: overlaps, skips, causes, samples, curves, and numbers as words."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import SelectionConfig
from codesieve.curation.rules import Rule
from codesieve.curation.shards import write_shard
from codesieve.report.counts import funnel, overlap
from codesieve.report.formats import percent, size
from codesieve.report.samples import kept_samples, rule_samples
from codesieve.report.scores import BINS, distributions
from codesieve.report.training import curves

REASONS = [["a"], ["a", "b"], ["b", "c"], ["a", "b"], [], ["c"], []]


def frame() -> pl.LazyFrame:
    rows = len(REASONS)
    return pl.LazyFrame(
        {
            "id": [f"{9 - i}" for i in range(rows)],
            "text": [f"line {i}\n" for i in range(rows)],
            "source": ["s"] * rows,
            "kind": ["code"] * rows,
            "language": ["python"] * rows,
            "path": [f"{i}.py" for i in range(rows)],
            "content_hash": [f"h{i}" for i in range(rows)],
            "size_bytes": [100, 20, 30, 80, 500, 7, 11],
            "reasons": REASONS,
            "reason_count": pl.Series([len(r) for r in REASONS], dtype=pl.UInt16),
            "duplicate_of": [None, None, None, None, "x", None, None],
            "quality_probability": [0.0, 0.1, 0.5, 1.0, None, 0.02, 0.99],
            "split": ["train"] * 6 + ["heldout"],
            "n": [1, 2, 3, 4, 5, 6, 7],
        }
    )


def test_overlap_is_of_the_bytes_of_the_rows_rule() -> None:
    found = overlap(
        frame(), [{"reason": "a", "bytes": 200}, {"reason": "b", "bytes": 130}, {"reason": "c", "bytes": 37}]
    )
    assert found is not None
    assert found.shares[0][1] == pytest.approx(100 / 200)
    assert found.shares[1][0] == pytest.approx(100 / 130)
    assert found.shares[2][1] == pytest.approx(30 / 37)
    assert found.shares[0][2] == 0


def test_a_rejected_document_is_counted_under_the_first_cause_that_the_predicate_looks_at(tmp_path: Path) -> None:
    skips = {
        "source": ["s"] * 2,
        "path": ["x", "y"],
        "reason": ["unreadable: why", "unreadable: who"],
        "size_bytes": [5, 6],
    }
    write_shard(tmp_path / "skipped" / "listing.parquet", [pl.DataFrame(skips)], {})
    chosen = SelectionConfig(name="s", where="reason_count < 1 AND duplicate_of IS NULL AND n > 100")
    counts = {
        "files_in": 9, "bytes_in": 800, "documents_skipped": {"unreadable": 2}, "documents_annotated": 7,
        "bytes_annotated": 748, "documents_selected": 0, "bytes_selected": 0,
    }  # fmt: skip
    steps = funnel(tmp_path, counts, chosen, frame())
    shown = [(step.part, step.label, step.documents, step.bytes) for step in steps]
    assert shown == [
        ("in", "files in", 9, 800),
        ("skipped", "unreadable", 2, 11),
        ("annotated", "annotated", 7, 748),
        ("rejected", "held out", 1, 11),
        ("rejected", "one rule", 2, 107),
        ("rejected", "several rules", 3, 130),
        ("rejected", "copies", 1, 500),
        ("selected", "selected", 0, 0),
    ]
    plain = SelectionConfig(name="s", where="n > 100")
    causes = [step.label for step in funnel(tmp_path, counts, plain, frame()) if step.part == "rejected"]
    assert causes == ["held out", "other conditions"]


def test_samples_are_those_that_only_this_rule_fired_on_and_then_in_the_order_of_their_ids() -> None:
    rule = Rule.model_validate({"name": "a", "version": 1, "languages": "all", "fires": "n > 0", "why": "test"})
    found = rule_samples(frame(), {"a": rule, "c": None})
    assert [sample.path for sample in found["a"]] == ["0.py", "3.py", "1.py"]
    assert [sample.others for sample in found["a"]] == [(), ("b",), ("b",)]
    assert found["a"][0].numbers == {"n": 1}
    assert [sample.path for sample in found["c"]] == ["5.py", "2.py"]
    assert found["c"][0].numbers == {}


def test_what_was_kept_is_shown_by_language_in_turn_and_code_comes_first() -> None:
    languages = ["text", "text", "c", "python", "python", "python", "python"]
    table = frame().with_columns(
        language=pl.Series(languages), kind=pl.Series(["text", "text", *["code"] * 5]), content_hash=pl.col("id")
    )
    shown = [sample.language for sample in kept_samples(table, pl.lit(True))]
    assert shown == ["python", "c", "text"]
    assert [sample.path for sample in kept_samples(table, pl.col("language") == "python")] == ["6.py", "5.py", "4.py"]


def test_every_scored_document_is_in_one_bin() -> None:
    (found,) = distributions(frame(), "language")
    assert found.documents == 6
    assert sum(found.shares) == pytest.approx(1)
    assert found.shares[0] == pytest.approx(2 / 6)  # 0.0 and 0.02
    assert found.shares[BINS - 1] == pytest.approx(2 / 6)  # 0.99 and 1.0


def test_a_curve_is_the_mean_over_seeds_with_their_range(tmp_path: Path) -> None:
    for seed, shift in enumerate((0.0, 0.2, 0.7)):
        folder = tmp_path / "arm" / str(seed)
        folder.mkdir(parents=True)
        losses = [None if step == 5 else 4 - step / 10 + shift for step in range(1, 21)]
        lines = [json.dumps({"tokens_seen": 100 * step, "loss": loss}) for step, loss in enumerate(losses, start=1)]
        (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (curve,) = curves(tmp_path, ["arm", "absent"])
    assert curve.seeds == 3
    assert curve.tokens[-1] == 2000
    assert 500 not in curve.tokens
    for mean, low, high in zip(curve.mean, curve.lowest, curve.highest, strict=True):
        assert math.isclose(mean - low, 0.3, abs_tol=1e-9)
        assert math.isclose(high - low, 0.7, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (99_960, "100 kB"), (12_345_678, "12.3 MB"), (999_600, "1.00 MB")],
)
def test_sizes_have_three_digits(size_bytes: int, shown: str) -> None:
    assert size(size_bytes) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0.0 %"), (0.0001, "< 0.1 %"), (0.3821, "38.2 %"), (0.9999, "> 99.9 %"), (1, "100.0 %")]
)
def test_a_little_is_not_nothing_and_almost_all_is_not_all(share: float, shown: str) -> None:
    assert percent(share) == shown
