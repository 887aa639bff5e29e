import polars as pl
import pytest
from codesieve.classifiers.percentiles import MINIMUM, percentile, percentiles
from hypothesis import given
from hypothesis import strategies as st

SCORES = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-12, 12, width=32), st.just(float("nan")))
ROWS = st.lists(
    st.tuples(SCORES, st.sampled_from(["python", "c"]), st.sampled_from(["library", "test", None])), max_size=60
)


def ranked(rows: list[tuple[float | None, str, str | None]], minimum: int = 5) -> pl.DataFrame:
    schema = {"raw": pl.Float32, "language": pl.String, "content_type": pl.String}
    frame = pl.DataFrame(rows, schema, orient="row")
    return frame.with_columns(percentile("raw", minimum=minimum).alias("percentile"))


@given(ROWS)
def test_percentiles_lie_strictly_between_0_and_1_and_are_null_where_the_score_is(
    rows: list[tuple[float | None, str, str | None]],
) -> None:
    table = ranked(rows)
    scored = table.filter(pl.col("raw").is_not_null() & pl.col("raw").is_not_nan())
    assert table["percentile"].dtype == pl.Float32
    assert scored["percentile"].is_between(0, 1, closed="none").all()
    assert table["percentile"].null_count() == table.height - scored.height


@given(ROWS)
def test_within_a_stratum_percentiles_keep_the_order_of_scores(
    rows: list[tuple[float | None, str, str | None]],
) -> None:
    table = ranked(rows).drop_nulls("percentile")
    for stratum in table.partition_by("language", "content_type"):
        ordered = stratum.sort("raw")
        assert ordered["percentile"].is_sorted()
        assert ordered.group_by("raw").agg(pl.col("percentile").n_unique())["percentile"].max() in {1, None}


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float | None, str, str | None]], random) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    straight = ranked(rows)["percentile"].to_list()
    shuffled = ranked([rows[place] for place in order])["percentile"].to_list()
    assert [straight[place] for place in order] == shuffled


def test_ties_get_the_middle_of_their_ranks() -> None:
    table = ranked([(score, "c", "library") for score in (1.0, 2.0, 2.0, 3.0, 4.0)])
    assert table["percentile"].to_list() == pytest.approx([0.1, 0.4, 0.4, 0.7, 0.9])


def test_a_shift_of_a_stratum_changes_nothing() -> None:
    high = [(100.0 + n, "c", "library") for n in range(6)]
    low = [(float(n), "python", "library") for n in range(6)]
    table = ranked(high + low)
    assert table["percentile"][:6].equals(table["percentile"][6:])


def test_a_small_stratum_is_placed_among_its_language_and_a_small_language_among_all() -> None:
    rows = [(float(n), "python", "library") for n in range(9)] + [(4.5, "python", "test"), (-1.0, "go", "library")]
    table = ranked(rows, minimum=5)
    in_language, over_all = 6 - 0.5, 1 - 0.5
    assert table["percentile"][9] == pytest.approx(in_language / 10)
    assert table["percentile"][10] == pytest.approx(over_all / 11)
    assert table["percentile"][0] == pytest.approx(0.5 / 9)


def test_the_layer_has_ids_in_row_order() -> None:
    frame = pl.LazyFrame(
        {
            "id": ["b", "a"] * MINIMUM,
            "language": "c",
            "content_type": "library",
            "quality_raw": [1.0, None] * MINIMUM,
        }
    )
    layer = percentiles(frame)
    assert layer.columns == ["id", "quality_percentile"]
    assert layer["id"].to_list() == ["b", "a"] * MINIMUM
    assert layer["quality_percentile"].to_list() == [0.5, None] * MINIMUM
