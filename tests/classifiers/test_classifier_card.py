import copy
from typing import Any

import polars as pl
import pytest
from codesieve.classifiers.audit import Pair, audit
from codesieve.classifiers.card import caveats, readme
from sklearn.metrics import roc_auc_score


def heldout(lead: float, count: int = 120, language: str = "go") -> pl.DataFrame:
    """Scores that lead by `lead`, sizes that tell nothing, six documents a family."""
    return pl.DataFrame(
        {
            "language": language,
            "family": [f"family{n // 6}" for n in range(count)],
            "size_bytes": [100 + (n * 37) % 101 for n in range(count)],
            "positive": [n % 2 == 0 for n in range(count)],
            "rules": [["fine"] if n % 2 == 0 else ["poor"] for n in range(count)],
            "raw": [((n * 53) % 97) / 97 + (lead if n % 2 == 0 else 0) for n in range(count)],
        }
    )


def card(table: pl.DataFrame, pairs: list[Pair]) -> dict[str, Any]:
    return {
        "audit": audit(table, pairs, ["minify"], 0),
        "training": {
            "languages": {"go": {"positives": 50, "negatives": 50, "corrupted": 10}},
            "largest_family": {
                "positives": {"family": "big", "documents": 30},
                "negatives": {"family": "small", "documents": 5},
            },
        },
    }


def test_the_audits_ranking_figures_are_sklearns() -> None:
    table = heldout(0.4)
    row = audit(table, [], [], 0)["languages"]["go"]
    positive, size = table["positive"].to_numpy(), table["size_bytes"].to_numpy()
    assert row["auc"] == pytest.approx(roc_auc_score(positive, table["raw"].to_numpy()), abs=1e-4)
    by_size = roc_auc_score(positive, size)
    assert row["length_auc"] == pytest.approx(max(by_size, 1 - by_size), abs=1e-4)


def test_a_classifier_that_does_not_beat_length_says_so() -> None:
    by_length = heldout(0.0).with_columns(size_bytes=pl.col("positive").cast(pl.Int64) * 100 + pl.col("size_bytes"))
    text = " ".join(caveats(card(by_length, [])))
    assert "Does not beat the length-only baseline in go" in text
    assert "length-only" not in " ".join(caveats(card(heldout(3.0), [])))


def test_few_families_give_no_interval_and_a_caveat() -> None:
    found = card(heldout(3.0).with_columns(family=pl.lit("one")), [])
    assert found["audit"]["languages"]["go"]["auc_interval"] is None
    assert "Too few families (1) in go" in " ".join(caveats(found))


def test_damage_that_goes_unseen_is_named_with_its_share() -> None:
    pairs = [Pair("minify", 1.0, 0.0), Pair("minify", 1.0, 0.0), Pair("truncate", 1.0, 1.0), Pair("truncate", 0.0, 1.0)]
    found = card(heldout(3.0), pairs)
    assert found["audit"]["corruptions"]["truncate"] == {"accuracy": 0.25, "pairs": 2, "in_training": False}
    assert found["audit"]["corruptions"]["minify"] == {"accuracy": 1.0, "pairs": 2, "in_training": True}
    text = " ".join(caveats(found))
    assert "truncate (25% of pairs)" in text
    assert "minify (" not in text


def test_languages_that_could_not_be_measured_are_named() -> None:
    table = pl.concat([heldout(3.0), heldout(3.0, 6, "perl")])
    found = card(table, [])
    found["training"]["languages"]["c"] = {"positives": 9, "negatives": 9, "corrupted": 0}
    text = " ".join(caveats(found))
    assert "too few held-out documents to measure: c." in text
    assert "scores there are guesses: perl." in text
    assert found["audit"]["not_measured"] == {"perl": {"positives": 3, "negatives": 3}}


def test_one_family_that_makes_up_most_of_a_class_is_named() -> None:
    text = " ".join(caveats(card(heldout(3.0), [])))
    assert "60% of the positives it was trained on are of one family, big." in text
    assert "small" not in text


def test_rejected_positives_come_with_their_upper_bound() -> None:
    row = audit(heldout(0.0), [], [], 0)["false_reject"]
    assert row["rejected_share"] <= row["rejected_upper_bound"]
    text = " ".join(caveats(card(heldout(0.0), [])))
    assert "may reject up to" in text


def test_the_readme_shows_the_figures_and_every_caveat(trained: tuple[object, dict[str, Any]]) -> None:
    _, whole = trained
    changed = copy.deepcopy(whole)
    changed["caveats"] = ["Beware of the zebra."]
    text = readme(changed)
    assert "- Beware of the zebra." in text
    assert whole["model"]["sha256"] in text
    assert f"{whole['audit']['within_language']['auc']:.3f}" in text
    assert "`content_type = 'library' AND has_tests AND digit_fraction < 0.2`" in text
