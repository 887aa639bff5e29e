import polars as pl
import pytest
from codesieve.classifiers.balance import (
    CELL,
    FAMILY_SHARE,
    MINIMUM_PER_CLASS,
    calibration_families,
    cap_families,
    check_enough,
    draw,
    even_out,
    length_bin,
    with_order,
)
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st

DOCUMENT = st.tuples(
    st.sampled_from(["python", "c"]), st.sampled_from(list("abcdefgh")), st.integers(1, 5000), st.booleans()
)
DOCUMENTS = st.lists(DOCUMENT, max_size=150)
SHARES = st.sampled_from([0.0, 0.1, 0.3, 0.5])


def table(documents: list[tuple[str, str, int, bool]]) -> pl.DataFrame:
    rows = [(f"{n:032x}", *document, ["rule"]) for n, document in enumerate(documents)]
    schema = {"id": pl.String, "language": pl.String, "family": pl.String, "size_bytes": pl.Int64}
    return pl.DataFrame(rows, {**schema, "positive": pl.Boolean, "rules": pl.List(pl.String)}, orient="row")


def cells(examples: pl.DataFrame) -> pl.DataFrame:
    return examples.group_by(CELL).agg(
        pl.col("positive").sum().cast(pl.Int64).alias("positives"),
        (~pl.col("positive")).sum().cast(pl.Int64).alias("negatives"),
        pl.col("corrupted").sum().cast(pl.Int64).alias("corrupted"),
    )


@given(DOCUMENTS, SHARES, st.integers(2, 100))
def test_drawn_cells_have_room_for_as_many_negatives_as_positives(
    documents: list[tuple[str, str, int, bool]], share: float, limit: int
) -> None:
    drawn = draw(with_order(table(documents), 0), limit, share)
    found = cells(drawn)
    # `corrupted` marks originals here: each gives one more negative.
    assert (found["positives"] == found["negatives"] + found["corrupted"]).all()
    assert (found["corrupted"] <= share * (found["negatives"] + found["corrupted"]) + 1e-9).all()
    assert found["positives"].sum() <= limit // 2
    assert drawn.filter("corrupted")["positive"].all()
    assert drawn["id"].n_unique() == drawn.height


@given(st.lists(st.tuples(DOCUMENT, st.booleans()), max_size=150), SHARES)
def test_evening_out_balances_every_cell_and_keeps_copies_a_minority(
    documents: list[tuple[tuple[str, str, int, bool], bool]], share: float
) -> None:
    examples = table([document for document, _ in documents]).with_columns(
        pl.Series("corrupted", [copy and not document[3] for document, copy in documents], dtype=pl.Boolean),
        length_bin(),
    )
    found = cells(even_out(examples, share))
    assert (found["positives"] == found["negatives"]).all()
    assert (found["corrupted"] <= share * found["negatives"] + 1e-9).all()


@given(DOCUMENTS, st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5))
def test_families_are_dealt_whole_and_leave_something_for_training(
    documents: list[tuple[str, str, int, bool]], fraction: float, seed: int
) -> None:
    everything = table(documents)
    apart = calibration_families(everything, fraction, seed)
    assert apart == calibration_families(everything.reverse(), fraction, seed)
    assert apart <= set(everything["family"])
    for side in (True, False):
        of_side = everything.filter(pl.col("positive") == side)
        held = of_side.filter(pl.col("family").is_in(sorted(apart))).height
        assert held <= max(0.5, 1.5 * fraction) * of_side.height


def test_about_the_fraction_is_held_out_of_many_families() -> None:
    documents = [("python", f"family{n % 50}", 100, n % 3 == 0) for n in range(3000)]
    everything = table(documents)
    apart = calibration_families(everything, 0.2, 0)
    assert 9 <= len(apart) <= 12
    assert apart != calibration_families(everything, 0.2, 1)


def test_a_family_with_most_of_a_class_is_trained_on() -> None:
    documents = [("python", "giant", 100, n % 2 == 0) for n in range(1000)]
    documents += [("python", f"small{n % 20}", 100, n % 2 == 0) for n in range(600)]
    for seed in range(5):
        assert "giant" not in calibration_families(table(documents), 0.2, seed)


def test_a_class_in_few_families_is_still_calibrated() -> None:
    documents = [("python", f"p{n % 30}", 100, True) for n in range(300)]
    documents += [("python", f"n{n % 2}", 100, False) for n in range(100)]
    apart = calibration_families(table(documents), 0.2, 0)
    assert len(apart & {"n0", "n1"}) == 1


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans()), max_size=400))
def test_no_family_has_more_than_its_share_of_a_class(documents: list[tuple[str, bool]]) -> None:
    capped = cap_families(with_order(table([("c", family, 10, positive) for family, positive in documents]), 0))
    for side in (True, False):
        of_side = capped.filter(pl.col("positive") == side)
        for count in of_side.group_by("family").len()["len"]:
            assert count <= max(MINIMUM_PER_CLASS, FAMILY_SHARE * of_side.height)


def test_the_order_depends_on_seed_and_ids_only() -> None:
    documents = table([("c", "a", n + 1, True) for n in range(40)])
    assert with_order(documents, 1).equals(with_order(documents.reverse(), 1))
    assert not with_order(documents, 1).equals(with_order(documents, 2))


def test_length_bins_are_doublings() -> None:
    sizes = pl.DataFrame({"size_bytes": [0, 1, 2, 3, 4, 1023, 1024]})
    assert sizes.select(length_bin())["length_bin"].to_list() == [0, 0, 1, 1, 2, 9, 10]


def test_large_cells_are_cut_before_small_ones() -> None:
    documents = [("python", "a", 100, n % 2 == 0) for n in range(400)] + [
        ("c", "a", 100, n % 2 == 0) for n in range(20)
    ]
    drawn = draw(with_order(table(documents), 0), 60, 0.0)
    assert dict(drawn["language"].value_counts().iter_rows()) == {"c": 20, "python": 40}


def test_too_few_of_a_class_is_an_error_that_counts() -> None:
    documents = table([("c", "a", 1, True)] * 100 + [("c", "b", 1, False)] * 7)
    with pytest.raises(
        ConfigError,
        match=r'classifier "q": too few negatives for training: 100 positives and 7 negatives in 2 families, '
        r"at least 20 .*fine 100, minified 7, generated 0; loosen",
    ):
        check_enough(documents, "training", 'classifier "q"', {"fine": 100, "minified": 7, "generated": 0})
