import json
import math
from collections import Counter, OrderedDict, namedtuple
from enum import IntEnum

import pytest
from codesieve.sandbox.values import MAX_DEPTH, NotPlain, canonical, decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st

hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary(),
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


@pytest.mark.parametrize("value", [object(), int, len, iter([]), range(3), {1: object()}, [{1, (object(),)}], ...])
def test_what_is_not_plain_data_is_refused(value):
    with pytest.raises(NotPlain):
        encode(value)


def test_nesting_is_limited_on_both_sides():
    deep = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(NotPlain, match="deeper"):
        encode(deep)
    with pytest.raises(ValueError, match="deeper"):
        canonical(deep)
    with pytest.raises(ValueError, match="deeper"):
        decode(deep)


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
    ],
)
def test_a_malformed_tree_is_refused(tree):
    with pytest.raises(ValueError):
        decode(tree)
    with pytest.raises(ValueError):
        canonical(tree)


def test_integers_with_one_hash_do_not_make_a_comparison_slow():
    # Multiples of 2**61 - 1 all hash to 0: as a Python set, 40,000 of them take minutes.
    tree = {"$set": [{"$int": f"{number * (2**61 - 1):x}"} for number in range(40_000)]}
    assert canonical(tree) != canonical({"$set": []})


def has_nan(value):
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, complex):
        return math.isnan(value.real) or math.isnan(value.imag)
    if isinstance(value, dict):
        return any(has_nan(each) for pair in value.items() for each in pair)
    return isinstance(value, list | tuple | set | frozenset) and any(has_nan(each) for each in value)


def repr_sorted(value):
    """Text with types that does not depend on the order of sets, and in which NaN equals NaN."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{repr_sorted(k)}:{repr_sorted(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        items = [repr_sorted(each) for each in value]
        return f"{type(value).__name__}({','.join(items if isinstance(value, list | tuple) else sorted(items))})"
    return repr(value)
