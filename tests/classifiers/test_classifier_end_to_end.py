import json
import pickle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from codesieve.classifiers.fit import choose, train_classifier, training_examples
from codesieve.classifiers.labels import load_labels
from codesieve.classifiers.step import ScoreStep, load_classifier
from codesieve.config import ClassifierConfig
from codesieve.curation.steps import check
from codesieve.strict import ConfigError
from sklearn.metrics import roc_auc_score

Trained = tuple[Path, dict[str, Any]]


def test_it_tells_real_modules_from_damaged_ones_in_families_it_has_not_seen(trained: Trained) -> None:
    _, card = trained
    row = card["audit"]["languages"]["python"]
    assert row["auc"] > 0.8
    assert row["auc_interval"][0] < row["auc"] <= row["auc_interval"][1]
    assert row["families"] >= 5


def test_the_length_only_baseline_stands_beside_it(trained: Trained) -> None:
    _, card = trained
    row = card["audit"]["within_language"]
    assert 0.5 <= row["length_auc"] < row["auc"]
    assert row["lead"] == pytest.approx(row["auc"] - row["length_auc"], abs=2e-4)
    readme = (trained[0] / "README.md").read_text()
    assert f"{row['length_auc']:.3f}" in readme


def test_its_folder_holds_model_calibration_and_card(trained: Trained) -> None:
    folder, card = trained
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "calibration.json", "card.json", "model.bin"]
    assert json.loads((folder / "card.json").read_text()) == json.loads(json.dumps(card))


def test_training_again_on_shuffled_rows_gives_the_same_bytes(
    trained: Trained, annotated: pl.DataFrame, config: ClassifierConfig, tmp_path: Path
) -> None:
    folder, _ = trained
    seen: list[float] = []
    train_classifier(config, annotated.sample(fraction=1, shuffle=True, seed=1).lazy(), tmp_path / "again", seen.append)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_no_path_of_this_machine_is_in_the_card(trained: Trained, config: ClassifierConfig) -> None:
    folder, _ = trained
    for name in ("card.json", "README.md", "calibration.json"):
        text = (folder / name).read_text()
        assert str(folder) not in text
        assert str(Path(config.labels).parent) not in text
        assert str(Path.home()) not in text


def test_training_and_held_out_families_are_disjoint(annotated: pl.DataFrame, config: ClassifierConfig) -> None:
    labels, path = load_labels(config.labels)
    chosen = choose(config, annotated.lazy(), labels, str(path))
    assert not set(chosen.training["family"]) & set(chosen.heldout["family"])
    assert set(chosen.training["id"]) | set(chosen.heldout["id"]) <= set(annotated["id"])


def test_what_is_trained_on_is_balanced_and_mostly_natural(annotated: pl.DataFrame, config: ClassifierConfig) -> None:
    labels, path = load_labels(config.labels)
    chosen = choose(config, annotated.lazy(), labels, str(path))
    texts = dict(annotated.select("id", "text").iter_rows())
    examples = training_examples(config, chosen.training, texts, labels)
    for _, cell in examples.group_by("language", "length_bin"):
        assert cell["positive"].sum() * 2 == cell.height
    corrupted, negatives = examples["corrupted"].sum(), (~examples["positive"]).sum()
    assert 0 < corrupted <= 0.3 * negatives
    assert not examples.filter("corrupted")["positive"].any()


def test_damage_is_audited_apart_and_says_what_training_has_seen(trained: Trained) -> None:
    rows = trained[1]["audit"]["corruptions"]
    assert set(rows) == {"flatten_indentation", "truncate"}
    assert rows["flatten_indentation"]["in_training"]
    assert not rows["truncate"]["in_training"]
    assert rows["flatten_indentation"]["accuracy"] > 0.8


def test_documents_that_are_held_out_from_the_run_are_never_read(
    annotated: pl.DataFrame, config: ClassifierConfig, tmp_path: Path
) -> None:
    heldout = [f"repository-{n}" for n in range(4)]
    split = annotated.with_columns(
        family="repository",
        split=pl.when(pl.col("repository").is_in(heldout)).then(pl.lit("heldout")).otherwise(pl.lit("train")),
    )
    # Were a held-out text read, it would make other bytes.
    poisoned = split.with_columns(
        text=pl.when(pl.col("split") == "heldout").then(pl.lit("poison")).otherwise("text"),
        is_minified=pl.col("is_minified") | (pl.col("split") == "heldout"),
    )
    train_classifier(config, split.lazy(), tmp_path / "a")
    train_classifier(config, poisoned.lazy(), tmp_path / "b")
    assert (tmp_path / "a" / "card.json").read_bytes() == (tmp_path / "b" / "card.json").read_bytes()


def test_too_few_examples_say_how_many_and_by_which_predicate(
    annotated: pl.DataFrame, config: ClassifierConfig, tmp_path: Path
) -> None:
    few = annotated.filter(~pl.col("is_minified") & ~pl.col("is_generated"))
    with pytest.raises(ConfigError, match=r"too few negatives .* 0 negatives .*minified 0, generated 0"):
        train_classifier(config, few.lazy(), tmp_path / "quality")
    one_family = annotated.with_columns(repository=pl.lit("one"))
    with pytest.raises(
        ConfigError, match=r"too few negatives for calibration: 0 positives and 0 negatives in 0 families"
    ):
        train_classifier(config, one_family.lazy(), tmp_path / "quality")
    assert not (tmp_path / "quality").exists()


def test_classes_that_share_no_language_are_an_error(
    annotated: pl.DataFrame, config: ClassifierConfig, tmp_path: Path
) -> None:
    bad = pl.col("is_minified") | pl.col("is_generated")
    apart = annotated.with_columns(language=pl.when(bad).then(pl.lit("c")).otherwise("language"))
    with pytest.raises(ConfigError, match=r"no language has positives and negatives among the \d+ families held out"):
        train_classifier(config, apart.lazy(), tmp_path / "quality")


def test_a_failed_training_leaves_the_old_classifier(
    trained: Trained, annotated: pl.DataFrame, config: ClassifierConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "quality"
    folder.mkdir()
    (folder / "card.json").write_text("old")
    with pytest.raises(ConfigError):
        train_classifier(config, annotated.head(3).lazy(), folder)
    assert (folder / "card.json").read_text() == "old"


def scored(trained: Trained, batch: pl.DataFrame, where: str = "kind = 'code'") -> pl.DataFrame:
    step = ScoreStep(trained[0], where)
    step.setup()
    return step(batch)


def test_scores_are_null_where_the_predicate_is_false_or_null(trained: Trained, annotated: pl.DataFrame) -> None:
    batch = annotated.head(4).with_columns(kind=pl.Series(["code", "text", None, "code"]))
    result = scored(trained, batch)
    assert result["quality_raw"].is_null().to_list() == [False, True, True, False]
    assert result["quality_probability"].is_null().to_list() == [False, True, True, False]
    assert result.select("quality_raw", "quality_probability").dtypes == [pl.Float32, pl.Float32]
    assert result["quality_probability"].drop_nulls().is_between(0, 1).all()
    assert result.drop("quality_raw", "quality_probability", "step_errors").equals(batch)


def test_scores_rank_fresh_documents_as_the_labels_do(trained: Trained, annotated: pl.DataFrame) -> None:
    code = annotated.filter(pl.col("content_type") == "library")
    result = scored(trained, code, "TRUE")
    good = ~(code["is_minified"] | code["is_generated"]).to_numpy()
    assert roc_auc_score(good, result["quality_raw"].to_numpy()) > 0.9
    assert result.sort("quality_raw")["quality_probability"].is_sorted()


def test_a_score_does_not_depend_on_the_batch(trained: Trained, annotated: pl.DataFrame) -> None:
    whole = scored(trained, annotated.head(20))["quality_raw"].to_list()
    single = [scored(trained, annotated[n])["quality_raw"][0] for n in range(20)]
    assert whole == single


def test_empty_texts_are_scored_and_missing_ones_are_not(trained: Trained, annotated: pl.DataFrame) -> None:
    result = scored(trained, annotated.head(3).with_columns(text=pl.Series(["", None, "\x00"])), "TRUE")
    assert result["quality_raw"].is_null().to_list() == [False, True, False]
    assert result["step_errors"].list.len().sum() == 0


def test_an_empty_batch_gets_its_columns(trained: Trained, annotated: pl.DataFrame) -> None:
    result = scored(trained, annotated.clear())
    assert {"quality_raw", "quality_probability"} <= set(result.columns)


def test_the_step_declares_what_its_predicate_needs_and_travels_without_the_model(trained: Trained) -> None:
    step = ScoreStep(trained[0], "kind = 'code' AND reason_count = 0", name="taste")
    assert step.requires == ("text", "language", "kind", "reason_count")
    assert list(step.provides) == ["taste_raw", "taste_probability"]
    step.setup()
    copy = pickle.loads(pickle.dumps(step))
    assert copy._loaded is None
    assert len(pickle.dumps(step)) < 1000
    with pytest.raises(ConfigError, match='step "taste" requires column "reason_count"'):
        check([copy], ["text", "language", "kind"])


def test_a_predicate_that_does_not_parse_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'step "quality": where: kind = : not a valid SQL predicate'):
        ScoreStep(tmp_path, "kind = ")


def test_a_classifier_of_another_training_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = trained[0]
    with pytest.raises(ConfigError, match=r"card\.json: no classifier here"):
        load_classifier(tmp_path)
    for name in ("model.bin", "calibration.json", "card.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    card = json.loads((folder / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "model": {**card["model"], "sha256": "0" * 64}}))
    with pytest.raises(ConfigError, match=r"model\.bin: SHA-256"):
        load_classifier(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({**card, "lexer_version": 0}))
    with pytest.raises(ConfigError, match="trained with version 0 of the lexer"):
        load_classifier(tmp_path)
