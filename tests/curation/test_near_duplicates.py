"""Near duplicates: tokens of code, signatures against exact similarity, clusters around the kept document."""

import math
import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from codesieve.config import NearDuplicatesConfig
from codesieve.curation.buffers import utf8
from codesieve.curation.corpus import scan
from codesieve.curation.dedup.exact import exact_duplicates
from codesieve.curation.dedup.near import bands_for, cluster, keep_order, near_duplicates, recall
from codesieve.curation.dedup.signatures import MIN_TOKENS, NGRAM, SignatureStep
from codesieve.curation.layers import table_layer
from codesieve.curation.shards import shard_paths, write_shard
from codesieve.curation.stage import write_plan
from codesieve.strict import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

MASK = (1 << 64) - 1
ODD = 0x9E3779B97F4A7C15
VALUES = 256


# The reference: the same definitions in plain Python.


def tokens(text: str) -> list[bytes]:
    return re.findall(rb"[A-Za-z0-9_\x80-\xff]+|[^\x00-\x20\x7f]", text.encode())


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def token_hash(token: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in token:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def ngrams(text: str, length: int) -> list[int]:
    hashes = [token_hash(token) for token in tokens(text)]
    found = []
    for start in range(len(hashes) - length + 1):
        value = 0
        for one in hashes[start : start + length]:
            value = (value * ODD + one) & MASK
        found.append(mix(value ^ (length * ODD & MASK)))
    return found


def sketch(hashes: list[int]) -> list[int]:
    """Fast similarity sketching: in each round only bins that are still empty are filled."""
    bins: list[int | None] = [None] * VALUES
    for turn in range(2 * VALUES):
        if None not in bins:
            break
        smallest: dict[int, int] = {}
        for one in hashes:
            value = one if turn == 0 else mix(one ^ (turn * ODD & MASK))
            which = value >> 56 if turn < VALUES else turn - VALUES
            low = value & ((1 << 46) - 1)
            smallest[which] = min(smallest.get(which, low), low)
        for which, low in smallest.items():
            bins[which] = low if bins[which] is None else bins[which]
    return [int(low or 0) & 0xFFFF for low in bins]


def signatures(texts: list[str]) -> np.ndarray:
    rows = SignatureStep()(pl.DataFrame({"text": texts}))["signature"].to_list()
    return np.array([np.frombuffer(row or bytes(2 * VALUES), np.uint16) for row in rows])


def jaccard(one: str, other: str) -> float:
    a, b = (
        set(zip(*(tokens(text)[i : len(tokens(text)) - NGRAM + 1 + i] for i in range(NGRAM)), strict=True))
        for text in (one, other)
    )
    return len(a & b) / len(a | b)


def module(rng: random.Random, lines: int = 40) -> str:
    names = [f"name_{rng.randrange(10**6)}" for _ in range(lines)]
    return "\n".join(f"    {name} = call({rng.choice(names)}, {rng.randrange(1000)})" for name in names) + "\n"


def edited(text: str, rng: random.Random, changes: int) -> str:
    lines = text.split("\n")
    for _ in range(changes):
        lines[rng.randrange(len(lines) - 1)] = f"    other = {rng.randrange(10**9)}"
    return "\n".join(lines)


texts = st.text(st.sampled_from("ab1_ é\n\t+-=().:\x7f\x00漢"), max_size=200)


@given(st.lists(texts, max_size=4))
@settings(max_examples=150, deadline=None)
def test_signatures_are_those_of_the_reference(documents: list[str]) -> None:
    step = SignatureStep()
    step.setup()
    frame = pl.DataFrame({"text": pl.Series(documents, dtype=pl.String)})
    for text, signature in zip(documents, step(frame)["signature"], strict=True):
        count = len(tokens(text))
        if count == 0:
            assert signature is None
        else:
            expected = sketch(ngrams(text, NGRAM if count >= MIN_TOKENS else count))
            assert np.frombuffer(signature, np.uint16).tolist() == expected


def test_long_documents_are_those_of_the_reference_too() -> None:
    text = module(random.Random(0), lines=120)
    assert signatures([text])[0].tolist() == sketch(ngrams(text, NGRAM))


def test_operators_count_and_layout_does_not() -> None:
    from codesieve.curation.dedup.matches import ngrams_of

    def same(one: str, other: str) -> bool:
        return ngrams_of(one).tolist() == ngrams_of(other).tolist()

    assert not same("a+b", "a-b")
    assert not same("a+b", "a b")
    assert not same("ab", "a b")
    assert same("if (x):\n    return f( x )\n", "if(x):\r\n\treturn f(x)")
    assert not same("x = 10", "x = 1 0")


def test_slices_and_nulls_of_a_batch_keep_their_place() -> None:
    series = pl.Series(["first", "second é", None, "fourth"])[1:]
    data, starts = utf8(series)
    pieces = [bytes(data[a:b]).decode() for a, b in pairwise(starts)]
    assert pieces == ["second é", "", "fourth"]


@pytest.mark.parametrize("size", [40, 150, 600, 4000])
def test_estimates_are_unbiased_within_the_standard_error_of_minhash(size: int) -> None:
    """Random sets of known similarity; classical MinHash (as datasketch does it, 256 permutations) beside it."""
    from codesieve.curation.dedup.sketch import sketch as compiled

    rng = np.random.default_rng(size)
    prime = np.uint64((1 << 61) - 1)
    a, b = rng.integers(1, 1 << 61, (2, VALUES, 1), dtype=np.uint64)
    for similarity in (0.2, 0.7, 0.9):
        shared = round(2 * size * similarity / (1 + similarity))
        exact = shared / (2 * size - shared)
        ours, classical = [], []
        for _ in range(60 if size < 1000 else 20):
            elements = rng.integers(0, 1 << 64, 2 * size - shared, dtype=np.uint64)
            sets = elements[:size], np.concatenate((elements[:shared], elements[size:]))
            rows = np.empty((2, VALUES), np.uint64)
            for row, members in zip(rows, sets, strict=True):
                compiled(members.copy(), size, row)
            ours.append(np.mean((rows[0] & 0xFFFF) == (rows[1] & 0xFFFF)))
            if size < 1000:
                permuted = [((members[None] >> np.uint64(32)) * a + b) % prime for members in sets]
                classical.append(np.mean(permuted[0].min(axis=1) == permuted[1].min(axis=1)))
        error = math.sqrt(exact * (1 - exact) / VALUES)
        assert abs(np.mean(ours) - exact) < 4 * error / math.sqrt(len(ours))
        assert np.std(ours) < 1.4 * error
        if classical:
            assert abs(np.mean(classical) - exact) < 4 * error / math.sqrt(len(classical))


def test_estimates_follow_the_exact_similarity_of_real_text() -> None:
    rng = random.Random(3)
    differences = []
    for changes in [1, 2, 4, 8, 16, 30] * 8:
        text = module(rng)
        pair = [text, edited(text, rng, changes)]
        one, other = signatures(pair)
        differences.append(np.mean(one == other) - jaccard(*pair))
    assert abs(np.mean(differences)) < 4 * 0.03 / math.sqrt(len(differences))
    assert np.max(np.abs(differences)) < 5 * 0.032


def test_bands_find_what_they_promise() -> None:
    assert bands_for(0.7, VALUES) == (36, 7)
    assert recall(0.7, 36, 7) == pytest.approx(0.955, abs=0.001)
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99):
        bands, rows = bands_for(threshold, VALUES)
        assert bands * rows <= VALUES
        assert recall(threshold, bands, rows) >= 0.95


@pytest.mark.parametrize(("similarity", "least", "most"), [(0.5, 0.0, 0.0), (0.7, 0.4, 0.62), (0.8, 0.98, 1.0)])
def test_the_share_of_pairs_that_is_found_follows_the_curve(similarity: float, least: float, most: float) -> None:
    """At the threshold itself half of the estimates fall below it."""
    rng = np.random.default_rng(1)
    pairs = 1500
    first = rng.integers(0, 1 << 16, (pairs, VALUES), dtype=np.uint16)
    second = np.where(rng.random(first.shape) < similarity, first, first + np.uint16(1))
    leader, _ = cluster(np.concatenate((first, second)), np.arange(2 * pairs), 0.7)
    found = np.mean(leader[pairs:] == np.arange(pairs))
    assert least <= found <= most
    assert np.array_equal(leader[:pairs], np.arange(pairs))


def test_a_chain_is_cut_where_it_leaves_the_kept_document() -> None:
    """Each is like the next; the third is unlike the first, and stays."""
    rng = np.random.default_rng(2)
    first = rng.integers(0, 1 << 15, VALUES, dtype=np.uint16)
    second, third = first.copy(), first.copy()
    second[:50] += 1 << 15
    third[:50] += 1 << 15
    third[50:100] += 1 << 15
    rows = np.stack((first, second, third))
    leader, similarity = cluster(rows, np.array([0, 1, 2]), 0.7)
    assert leader.tolist() == [0, 0, 2]
    assert similarity.tolist() == [1.0, 206 / 256, 1.0]
    leader, _ = cluster(rows, np.array([1, 0, 2]), 0.7)
    assert leader.tolist() == [1, 1, 1]


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_clusters_are_those_of_comparing_every_pair(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 1 << 16, (5, VALUES), dtype=np.uint16)
    rows = centres[rng.integers(0, 5, number)]
    # Pairs are about 0.96 or 0.62 alike, far from the threshold and sure to share a band where it matters.
    noise = rng.choice([0.02, 0.36], number)[:, None]
    rows = np.where(rng.random(rows.shape) < noise, rng.integers(0, 1 << 16, rows.shape, dtype=np.uint16), rows)
    order = rng.permutation(number)
    leader, similarity = cluster(rows, order, 0.8)
    kept: list[int] = []
    for document in order:
        equal = [int(np.sum(rows[document] == rows[other])) for other in kept]
        best = max(equal, default=0)
        if best >= math.ceil(0.8 * VALUES):
            assert leader[document] == kept[equal.index(best)]
            assert similarity[document] == best / VALUES
        else:
            assert leader[document] == document
            kept.append(document)


def test_many_copies_are_one_cluster_and_other_groups_are_not_compared() -> None:
    rows = np.tile(np.random.default_rng(0).integers(0, 1 << 16, VALUES, dtype=np.uint16), (20_000, 1))
    groups = (np.arange(20_000) % 2).astype(np.uint32)
    leader, _ = cluster(rows, np.arange(20_000), 0.7)
    assert set(leader.tolist()) == {0}
    leader, _ = cluster(rows, np.arange(20_000), 0.7, groups)
    assert np.array_equal(leader, np.arange(20_000) % 2)


# The layer.


def run_of(folder: Path, documents: dict[str, str], shards: int = 2, **columns: list[object]) -> Path:
    """A run directory with these annotated documents (path → text) and the layer of exact duplicates."""
    rows = len(documents)
    frame = pl.DataFrame(
        {
            "id": [f"id:{path}" for path in documents],
            "text": list(documents.values()),
            "path": list(documents),
            "language": ["python" if path.endswith(".py") else "c" for path in documents],
            "content_hash": list(documents.values()),
            "size_bytes": [len(text.encode()) for text in documents.values()],
            **{name: [False] * rows for name in ("is_vendored", "is_generated", "is_test")},
            **columns,
        }
    )
    size = -(-rows // shards)
    write_plan(folder / "plan" / "annotated", {}, [{"marks": [index]} for index in range(shards)])
    for index in range(shards):
        write_shard(folder / "annotated" / f"{index:05d}.parquet", [frame[index * size : (index + 1) * size]], {})
    table_layer(folder, "duplicates", exact_duplicates, {"version": 1})
    return folder


def result(run: Path) -> dict[str, tuple[object, object, object]]:
    names = ("near_duplicate_of", "near_duplicate_count", "near_duplicate_similarity")
    return {row[0].removeprefix("id:"): row[1:] for row in scan(run).select("id", *names).collect().iter_rows()}


def test_the_layer_keeps_one_document_of_a_cluster(tmp_path: Path) -> None:
    rng = random.Random(0)
    original = module(rng)
    copy = edited(original, rng, 1)
    other = module(rng)
    documents = {
        "vendor/a.py": original + "# and one line more\n",
        "src/a.py": original,
        "a_copy.py": copy,
        "same.py": original,
        "other.py": other,
        "empty.py": "  \n",
    }
    run = run_of(tmp_path, documents, is_vendored=[True] + [False] * 5)
    near_duplicates(run, NearDuplicatesConfig())
    found = result(run)
    kept = max(("src/a.py", "a_copy.py", "same.py"), key=lambda path: (len(documents[path]), -len(path)))
    assert kept == "same.py"  # as long as src/a.py, by the shorter path
    assert found["same.py"] == (None, 3, None)
    for path in ("vendor/a.py", "a_copy.py"):
        assert found[path][:2] == ("id:same.py", 3)
        assert found[path][2] == pytest.approx(jaccard(documents[path], original), abs=0.1)
    assert found["src/a.py"] == (None, None, None)  # an exact duplicate takes no part
    assert found["other.py"] == (None, 1, None)
    assert found["empty.py"] == (None, None, None)
    assert "signature" not in scan(run).collect_schema().names()


def test_short_documents_need_the_same_tokens(tmp_path: Path) -> None:
    documents = {
        "a.py": "from .core import run, stop\n",
        "b.py": "from .core import (run, stop)\n",
        "c.py": "from .core import run , stop",
        "d.py": "from .core import run, start\n",
        "e.py": "a+b",
        "f.py": "a-b",
    }
    near_duplicates(run_of(tmp_path, documents), NearDuplicatesConfig())
    found = result(tmp_path)
    assert [path for path, values in found.items() if values[0] is not None] == ["c.py"]
    assert found["c.py"] == ("id:a.py", 2, 1.0)


def test_languages_can_be_kept_apart(tmp_path: Path) -> None:
    text = module(random.Random(1))
    run = run_of(tmp_path, {"a.py": text, "b.c": text + " "})
    near_duplicates(run, NearDuplicatesConfig())
    assert result(run)["a.py"][0] == "id:b.c"
    near_duplicates(run, NearDuplicatesConfig(within_language=True))
    assert [values[0] for values in result(run).values()] == [None, None]


def test_a_permissive_licence_comes_first_where_it_is_known(tmp_path: Path) -> None:
    text = module(random.Random(1))
    run = run_of(tmp_path, {"long.py": text + "# a\n", "short.py": text}, licence_class=["copyleft", "permissive"])
    near_duplicates(run, NearDuplicatesConfig())
    assert result(run)["long.py"][0] == "id:short.py"


def test_the_order_can_be_declared(tmp_path: Path) -> None:
    text = module(random.Random(1))
    run = run_of(tmp_path, {"old.py": text + "# a\n", "new.py": text}, year=[2001, 2020])
    near_duplicates(run, NearDuplicatesConfig())
    assert result(run)["new.py"][0] == "id:old.py"
    near_duplicates(run, NearDuplicatesConfig(keep=("year",)))
    assert result(run)["old.py"][0] == "id:new.py"
    with pytest.raises(ConfigError, match=r'near_duplicates: keep: yaer: unknown column "yaer" .did you mean "year"'):
        near_duplicates(run, NearDuplicatesConfig(keep=("yaer",)))
    assert keep_order(NearDuplicatesConfig(), ["size_bytes"]) == ["size_bytes"]


def test_a_layer_that_decides_what_is_kept_makes_the_clusters_anew(tmp_path: Path) -> None:
    text = module(random.Random(1))
    run = run_of(tmp_path, {"old.py": text + "# a\n", "new.py": text})
    config = NearDuplicatesConfig(keep=("liked",))
    for path in ("old.py", "new.py"):
        liked = pl.DataFrame({"id": ["id:old.py", "id:new.py"], "liked": [path == "old.py", path == "new.py"]})
        table_layer(run, "liking", lambda frame, liked=liked: liked, {"path": path})
        near_duplicates(run, config)
        assert result(run)[path][0] is None


def test_an_interrupted_run_ends_in_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    rng = random.Random(4)
    originals = [module(rng) for _ in range(10)]
    documents = {f"{index}.py": edited(rng.choice(originals), rng, 2) for index in range(40)}
    contents = []
    for name, workers in (("one", 1), ("two", 2)):
        run = run_of(tmp_path / name, documents, shards=4)
        near_duplicates(run, NearDuplicatesConfig(), workers)
        contents.append(
            [
                p.read_bytes()
                for folder in ("signatures", "layers")
                for p in sorted(run.rglob("*.parquet"))
                if folder in p.parts
            ]
        )
    assert contents[0] == contents[1]
    assert len(contents[0]) == 12
    made = {path: path.stat().st_mtime_ns for path in shard_paths(run / "signatures")}
    shard_paths(run / "signatures")[2].unlink()
    (run / "layers" / "near_duplicates" / "00001.parquet").unlink()
    near_duplicates(run, NearDuplicatesConfig())
    assert [
        p.read_bytes()
        for folder in ("signatures", "layers")
        for p in sorted(run.rglob("*.parquet"))
        if folder in p.parts
    ] == contents[0]
    again = {path: path.stat().st_mtime_ns for path in shard_paths(run / "signatures")}
    assert sum(made[path] == again[path] for path in made) == 3
