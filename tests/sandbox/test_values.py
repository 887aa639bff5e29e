import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest
from codesieve.sandbox.objects import Objects
from codesieve.sandbox.plain import MOST_ITEMS, Opaque, Unread
from codesieve.sandbox.values import MAX_DEPTH, NotPlain, canonical, decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st

numbers = st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.fractions()
moments = st.dates() | (st.times() | st.datetimes()).map(lambda each: each.replace(fold=0)) | st.timedeltas()
hashable = st.recursive(
    st.none() | numbers | st.decimals(allow_nan=False) | moments | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
plain = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.just("$set"), inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.lists(inner, max_size=3).map(deque)
        | st.binary(max_size=3).map(bytearray)
        | st.builds(range, st.integers(), st.integers(0, 9))
    ),
    max_leaves=12,
)


def through_the_pipe(value):
    return json.loads(encode(value))


@given(plain)
@settings(max_examples=100, deadline=None)
def test_a_plain_value_survives_the_pipe(value):
    copy = decode(through_the_pipe(value))
    assert repr_sorted(copy) == repr_sorted(value)


@given(plain, plain)
@settings(max_examples=100, deadline=None)
def test_canonical_text_is_equal_exactly_when_python_says_equal(one, other):
    if not has_nan(one) and not has_nan(other):
        assert (canonical(through_the_pipe(one)) == canonical(through_the_pipe(other))) == (one == other)
    assert canonical(through_the_pipe(one)) == canonical(through_the_pipe(one))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, True),
        (1, 1 + 0j, True),
        (1j, 1j, True),
        (1j, 1, False),
        (0.0, -0.0, True),
        (2**70, float(2**70), True),
        (2**53 + 1, float(2**53 + 1), False),
        (math.nan, math.nan, True),
        (math.inf, -math.inf, False),
        ([1], (1,), False),
        ({1, 2}, {2, 1}, True),
        ({1}, frozenset({1}), True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({1: "a"}, {"1": "a"}, False),
        ("a", b"a", False),
        (b"a", bytearray(b"a"), True),
        ("s1:a", "a", False),
        (["a,b"], ["a", "b"], False),
        (None, "null", False),
        (None, 0, False),
        ("", None, False),
        ({"$set": [1]}, {1}, False),
        (Decimal("0.25"), 0.25, True),
        (Decimal("0.1"), 0.1, False),
        (Decimal("0.1"), Fraction(1, 10), True),
        (Decimal("1E+3"), 1000, True),
        (Decimal("1E+999999"), Decimal("10E+999998"), True),
        (Decimal("-0"), 0, True),
        (Decimal("Infinity"), math.inf, True),
        (Fraction(1, 3), 1 / 3, False),
        (Fraction(10**400, 3), math.inf, False),
        (range(0), range(3, 3), True),
        (range(0, 5, 2), range(0, 6, 2), True),
        (range(3), [0, 1, 2], False),
        (range(-(10**20), 9), range(9), False),
        (deque([1]), deque([1]), True),
        (deque([1]), [1], False),
        ({1: 2}.keys(), {1}, True),
        ({1: 2}.items(), {(1, 2)}, True),
        ({1: 2}.values(), [2], False),
        (date(2020, 1, 2), date(2020, 1, 2), True),
        (date(2020, 1, 2), datetime(2020, 1, 2), False),
        (datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))), True),
        (datetime(2020, 1, 2), datetime(2020, 1, 2, tzinfo=UTC), False),
        (timedelta(hours=24), timedelta(1), True),
        (iter([1]), [1], False),
    ],
)
def test_equality_is_that_of_python(one, other, equal):
    assert (canonical(through_the_pipe(one)) == canonical(through_the_pipe(other))) is equal


def test_a_subclass_of_a_plain_type_is_its_plain_content():
    point = namedtuple("point", "x y")(1, 2)
    colour = IntEnum("colour", "red green").green
    text = type("Text", (str,), {"__str__": lambda self: "lie", "__getitem__": lambda *_: "lie"})("truth")
    values = [point, Counter("aab"), OrderedDict(a=1), colour, text, bytearray(b"x")]
    expected = [(1, 2), {"a": 2, "b": 1}, {"a": 1}, 2, "truth", b"x"]
    assert decode(through_the_pipe(values)) == expected


class HashableList(list):
    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "value",
    [
        object(),
        int,
        len,
        {1: object()},
        [{1, (object(),)}],
        ...,
        memoryview(b""),
        {HashableList(): 1},
        {(HashableList(),)},
    ],
)
def test_what_is_not_plain_data_is_refused(value):
    with pytest.raises(NotPlain, match="which is not plain data"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("-1.50"), Decimal("1E+20"), Fraction(-7, 3), date(1, 2, 3), time_of_day(1, 2, 3, 4), timedelta(-1, 2, 3),
        datetime(2020, 1, 2, 3, 4, 5, 6), datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=-3))), range(9, 1, -2),
        deque([1, [2]]), bytearray(b"x"), {1: 2}.keys(), {1: [2]}.items(),
    ],
)  # fmt: skip
def test_what_is_nearly_plain_survives_the_pipe(value):
    copy = decode(through_the_pipe([value]))[0]
    assert (copy, type(copy)) == (value, type(value))


def test_an_iterator_arrives_as_a_fresh_one_and_an_endless_one_as_its_beginning():
    iterator, nested, endless = decode(through_the_pipe([iter("ab"), [map(str, [1])], iter(int, 1)]))
    assert list(iterator) == ["a", "b"]
    assert list(iterator) == []
    assert iterator != ["a", "b"]
    assert next(nested[0]) == "1"
    assert [next(endless) for _ in range(MOST_ITEMS)] == [0] * MOST_ITEMS
    with pytest.raises(Unread):
        next(endless)
    assert len(encode("x" * 10**6 for _ in range(100))) < 5 * 10**6


def test_nesting_is_limited_on_both_sides():
    deep = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(NotPlain, match="deeper"):
        encode(deep)
    deepest = {0: ({0: 0},)}
    for _ in range(MAX_DEPTH - 2):
        deepest = {0: deepest}
    assert canonical(through_the_pipe(deepest)) == canonical(through_the_pipe(decode(through_the_pipe(deepest))))
    with pytest.raises(ValueError, match="deeper"):
        canonical(deep)
    with pytest.raises(ValueError, match="deeper"):
        decode(deep)


HASHABLE_ONLY_THERE = ({"$set": [[1]]}, {"$keys": [[1]]})


@pytest.mark.parametrize(
    "tree",
    [
        {"$set": 1},
        {"$dict": [[1]]},
        {"$dict": [1]},
        {"$int": 1},
        {"$bytes": "xyz"},
        {"$float": "one"},
        {"$complex": [1.0]},
        {"$complex": [1, 2]},
        {"$unknown": []},
        {"$set": [], "a": 1},
        {"$set": [[1]]},
        {"$keys": [[1]]},
        {"$": {}},
        {"$decimal": "1_0"},
        {"$decimal": "ten"},
        {"$fraction": "1/0"},
        {"$fraction": "1"},
        {"$fraction": "0x1/2"},
        {"$fraction": f"1/{'1' * 30_000}"},
        {"$date": "20200102"},
        {"$datetime": "2020-01-02T25:00:00"},
        {"$timedelta": [1, 2]},
        {"$timedelta": [10**10, 0, 0]},
        {"$range": [0, 1, 0]},
        {"$range": [0, 1, 1.0]},
        {"$range": [0, 1, True]},
        {"$items": [1]},
        {"$iterator": 1},
        {"$same": 0},
    ],
)
def test_a_malformed_tree_is_refused(tree):
    with pytest.raises(ValueError):
        decode(tree)
    if tree not in HASHABLE_ONLY_THERE:  # text needs no hash
        with pytest.raises(ValueError):
            canonical(tree)


def test_numbers_that_are_long_do_not_make_a_comparison_slow():
    started = time.monotonic()
    long = {"$decimal": "1" * 10**6}
    assert canonical(long) != canonical({"$decimal": "1E+999999999"})
    assert len(canonical([{"$decimal": "1E+9000"}] * 10**4)) < 10**6
    assert time.monotonic() - started < 5


def test_integers_with_one_hash_do_not_make_a_comparison_slow():
    # Multiples of 2**61 - 1 all hash to 0: as a Python set, 40,000 of them take minutes.
    tree = {"$set": [{"$int": f"{number * (2**61 - 1):x}"} for number in range(40_000)]}
    assert canonical(tree) != canonical({"$set": []})


def sides(arguments):
    """(containers as the tests have them, the arguments on the other side, containers there)."""
    ours, theirs = Objects(), Objects()
    tree = json.loads(encode(arguments, 0, ours))
    copies = decode(tree, 0, theirs)
    ours.is_complete = theirs.is_complete = True
    return ours, copies, theirs


def test_containers_are_numbered_alike_on_both_sides():
    shared = [0]
    arguments = [shared, (shared, {1: {2}, "a": deque([[3]])}), bytearray(b"x"), frozenset({4}), {"b": shared}]
    ours, copies, theirs = sides(arguments)
    assert [repr(each) for each in ours.each] == [repr(each) for each in theirs.each]
    assert ours.each[1] is shared
    assert copies[0] is copies[1][0] is copies[4]["b"]


def test_changed_containers_get_their_contents_and_keep_who_they_are():
    row, table, kinds = [1], {"k": 0}, {1}
    queue, counts = deque([1]), defaultdict(int, {1: 1})
    ours, copies, theirs = sides([[row, [2]], table, kinds, queue, counts])
    before = theirs.snapshot(copies)
    copies[0].reverse()
    copies[0][1].append(copies[0])
    copies[1]["new"] = copies[1].pop("k")
    copies[2].add(2)
    copies[3].appendleft(0)
    copies[4][2] = 2
    assert before is None or theirs.snapshot(copies) != before
    ours.refill(json.loads(theirs.contents()))
    grid = ours.each[1]
    assert grid[1] is row
    assert row == [1, grid]
    assert (table, kinds, queue, counts) == ({"new": 0}, {1, 2}, deque([0, 1]), {1: 1, 2: 2})
    assert counts[3] == 0


def test_contents_that_cannot_travel_are_equal_to_nothing():
    numbers, table, kinds = [1], {1: 1}, {1}
    ours, copies, theirs = sides([numbers, table, kinds])
    for each, change in zip(copies, ("append", "setdefault", "add"), strict=True):
        getattr(each, change)(object())
    ours.refill(json.loads(theirs.contents()))
    assert [type(each) for each in (*numbers, *table, *kinds)] == [Opaque] * 3


@pytest.mark.parametrize(
    "contents", [1, [], [[1]], [[1], 2], [[1], {"$bytes": ""}], [{"$set": []}, [1]], [{}, {}], [{"$same": 7}, [1]]]
)
def test_contents_of_other_containers_are_refused(contents):
    ours, _, _ = sides([[0]])
    with pytest.raises(ValueError):
        ours.refill(contents)


def test_a_snapshot_changes_when_the_arguments_do_and_only_then():
    objects = Objects()
    arguments = decode([[1, {"a": [2.0]}], {"$set": [1, "b"]}], 0, objects)
    before = objects.snapshot(arguments)
    assert before is not None
    assert objects.snapshot(arguments) == before
    arguments[0][1]["a"][0] = 2
    assert objects.snapshot(arguments) != before


def has_nan(value):
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, complex):
        return math.isnan(value.real) or math.isnan(value.imag)
    if isinstance(value, dict):
        return any(has_nan(each) for pair in value.items() for each in pair)
    return isinstance(value, list | tuple | set | frozenset | deque) and any(has_nan(each) for each in value)


def repr_sorted(value):
    """Text with types that does not depend on the order of sets, and in which NaN equals NaN."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{repr_sorted(k)}:{repr_sorted(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list | tuple | set | frozenset | deque):
        items = [repr_sorted(each) for each in value]
        return f"{type(value).__name__}({','.join(sorted(items) if isinstance(value, set | frozenset) else items)})"
    return repr(value)
