"""Which held-out documents are scored, and what an item says."""

import math
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import EvalConfig
from codesieve.eval.kinds.documents import choose, run
from codesieve.eval.records import Records
from codesieve.eval.session import Session
from codesieve.eval.store import ITEMS
from codesieve.eval.tasks.schema import HeldoutTask
from codesieve.eval.tasks.task import Task
from evaluation_world import FunctionBackend
from hypothesis import given, settings
from hypothesis import strategies as st


def task(**settings: object) -> HeldoutTask:
    return HeldoutTask.model_validate({"kind": "bits_per_byte", "name": "heldout", "max_bytes": 64, **settings})


def documents(*groups: tuple[str, str, str, int]) -> pl.DataFrame:
    """Groups of (stream, language, family, documents)."""
    rows = [
        {
            "id": f"{stream}-{language}-{family}-{number}",
            "text": "".join(f"{language} {number}, line {line}\n" for line in range(20)),
            "stream": stream,
            "language": language,
            "family": family,
        }
        for stream, language, family, count in groups
        for number in range(count)
    ]
    return pl.DataFrame(rows)


def score(folder: Path, backend: FunctionBackend, config: HeldoutTask, pool: pl.DataFrame) -> pl.DataFrame:
    session = Session(backend, Records(folder), EvalConfig(documents_per_stream=10), pool)
    return run(Task(config, (), (), "fingerprint"), session)[0]


def test_each_language_of_code_and_the_text_stream_as_a_whole_get_their_share() -> None:
    pool = documents(
        ("code", "python", "p", 9), ("code", "c", "q", 5), ("text", "markdown", "p", 9), ("text", "text", "q", 9)
    )
    chosen, left_out = choose(pool, task(), per_group=6)
    code = chosen.filter(pl.col("stream") == "code")
    assert dict(code.group_by("language").len().rows()) == {"python": 6, "c": 5}
    assert chosen.filter(pl.col("stream") == "text").height == 6
    assert left_out == {}


def test_a_large_family_does_not_stand_for_all_code() -> None:
    pool = documents(("code", "python", "large", 100), ("code", "python", "small", 3), ("code", "python", "tiny", 1))
    chosen, _ = choose(pool, task(streams=["code"]), per_group=8)
    assert dict(chosen.group_by("family").len().rows()) == {"large": 4, "small": 3, "tiny": 1}


def test_the_task_can_set_its_own_number_of_documents() -> None:
    chosen, _ = choose(documents(("code", "python", "p", 9)), task(streams=["code"], documents=2), per_group=6)
    assert chosen.height == 2


def test_languages_of_too_few_families_and_empty_streams_are_left_out_with_the_reason() -> None:
    pool = documents(("code", "python", "p", 2), ("code", "python", "q", 2), ("code", "c", "p", 2))
    chosen, left_out = choose(pool, task(min_families=2), per_group=6)
    assert chosen["language"].unique().to_list() == ["python"]
    assert left_out == {"code/c": "1 held-out families, the task wants 2", "text": "no held-out documents"}
    with pytest.raises(ValueError, match=r'"heldout": nothing to score \(code/c: 1 held-out families'):
        choose(pool.filter(pl.col("language") == "c"), task(min_families=2, streams=["code"]), per_group=6)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(30)), seed=st.integers(0, 5))
def test_the_choice_does_not_depend_on_the_order_of_the_documents(order: list[int], seed: int) -> None:
    pool = documents(("code", "python", "p", 20), ("code", "python", "q", 10))
    first, _ = choose(pool, task(streams=["code"], seed=seed), per_group=7)
    second, _ = choose(pool[order], task(streams=["code"], seed=seed), per_group=7)
    assert first.equals(second)


def test_a_document_that_is_gone_changes_the_choice_only_by_itself() -> None:
    pool = documents(("code", "python", "p", 30))
    before, _ = choose(pool, task(streams=["code"]), per_group=10)
    after, _ = choose(pool.filter(pl.col("id") != before["id"][3]), task(streams=["code"]), per_group=10)
    assert len(set(before["id"]) & set(after["id"])) == 9


def test_empty_documents_are_not_scored_and_ids_must_be_unique() -> None:
    pool = documents(("code", "python", "p", 3))
    pool = pool.with_columns(text=pl.when(pl.col("id").str.ends_with("1")).then(pl.lit("")).otherwise("text"))
    chosen, _ = choose(pool, task(streams=["code"]), per_group=10)
    assert chosen.height == 2
    with pytest.raises(ValueError, match="id code-python-p-0 occurs more than once"):
        choose(pl.concat([pool, pool[:1]]), task(), per_group=10)
    with pytest.raises(ValueError, match="lack the columns family"):
        choose(pool.drop("family"), task(), per_group=10)


def test_an_item_holds_the_bytes_that_were_scored_and_the_family_as_its_cluster(tmp_path: Path) -> None:
    items = score(tmp_path, FunctionBackend(), task(streams=["code"]), documents(("code", "python", "p", 3)))
    assert dict(items.schema) == ITEMS
    assert items["bytes"].to_list() == [64, 64, 64]
    assert items["cluster"].to_list() == ["p", "p", "p"]
    assert items["outcome"].unique().to_list() == ["scored"]
    assert (items["nats"] / items["bytes"] / math.log(2)).to_list() == pytest.approx([8.0] * 3)


def test_every_model_is_given_the_same_piece_of_a_document(tmp_path: Path) -> None:
    pool = documents(("code", "python", "p", 5))
    seen = []
    for number, part in enumerate(("beginning", "anywhere", "anywhere")):
        backend = FunctionBackend()
        score(tmp_path / str(number), backend, task(streams=["code"], part=part), pool)
        seen.append(backend.asked)
    texts = pool.sort("id")["text"].to_list()
    assert seen[0] == [text[:64] for text in texts]
    assert seen[1] == seen[2] != seen[0]
    assert all(piece in text for piece, text in zip(seen[1], texts, strict=True))


def test_a_model_that_diverged_is_an_error_and_not_a_score(tmp_path: Path) -> None:
    broken = FunctionBackend(cost=lambda context, text: math.nan)
    with pytest.raises(ValueError, match="document code-python-p-0: log-likelihood is nan"):
        score(tmp_path, broken, task(streams=["code"]), documents(("code", "python", "p", 1)))


def test_without_documents_the_task_says_what_it_needs(tmp_path: Path) -> None:
    session = Session(FunctionBackend(), Records(tmp_path), EvalConfig())
    with pytest.raises(ValueError, match="task heldout needs held-out documents"):
        run(Task(task(), (), (), "fingerprint"), session)
