import numpy as np
import pytest
from codesieve.strict import CONFIGS, read_yaml
from codesieve.train.config import CausalObjective, InfillObjective, PrefixObjective, SpanObjective, TrainConfig
from codesieve.train.objectives import check_sentinels, objective_name, reserve, restore, transform
from codesieve.train.sentinels import Sentinels
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["<eot>", "<pre>", "<mid>", "<suf>", "<sep>", "<eom>", "<1>", "<2>", "<3>", "<4>", "[R]", "[S]", "[X]"]
SENTINELS = Sentinels(0, 1, 2, 3, 4, 5, (6, 7, 8, 9), {"R": 10, "S": 11, "X": 12})
WORDS = ["if", "x", ":", "return", "y", "else", "return", "z"]
FIRST = 100


def shown(item):
    """Tokens as text; a caret marks those that count, a bar ends the bidirectional prefix."""
    names = [NAMES[token] if token < FIRST else WORDS[token - FIRST] for token in item.tokens]
    words = [name + "^" * bool(target) for name, target in zip(names, item.is_target, strict=True)]
    return " ".join([*words[: item.prefix], *"|" * bool(item.prefix), *words[item.prefix :]])


def item(objective, key, ends_document=True, words=8):
    ids = np.append(np.arange(FIRST, FIRST + words), [0] * ends_document)
    return transform(objective, ids, ends_document, key, SENTINELS)


def span(**options):
    return SpanObjective(type="span_corruption", mask_ratio=(0.4, 0.4), span_tokens=(1, 3), **options)


def infill(order, **options):
    return InfillObjective(type="infill", order=order, split="token", **options)


def test_causal_predicts_every_token_but_the_first():
    assert shown(item(CausalObjective(), 1)) == "if x^ :^ return^ y^ else^ return^ z^ <eot>^"


def test_prefix_lm_predicts_the_suffix():
    objective = PrefixObjective(type="prefix_lm")
    assert shown(item(objective, 5)) == "if x : return | y^ else^ return^ z^ <eot>^"
    moded = objective.model_copy(update={"mode": "S"})
    assert shown(item(moded, 5)) == "[S] if x : return | y^ else^ return^ z^ <eot>^"
    whole = objective.model_copy(update={"loss": "all"})
    assert shown(item(whole, 5)) == "if x^ :^ return^ | y^ else^ return^ z^ <eot>^"


def test_span_corruption_moves_spans_behind_the_separator():
    assert shown(item(span(), 6)) == (
        "if <1>^ y^ else^ return^ <2>^ <eot>^ <sep>^ <1>^ x^ :^ return^ <eom>^ <2>^ z^ <eom>^"
    )


def test_a_corrupted_piece_within_a_document_gets_its_end_of_text_too():
    assert shown(item(span(), 1, ends_document=False)) == (
        "if x^ <1>^ y^ else^ return^ <2>^ <eot>^ <sep>^ <1>^ :^ return^ <eom>^ <2>^ z^ <eom>^"
    )


def test_ul2_sees_the_corrupted_document_both_ways_and_predicts_the_rest():
    objective = span(loss="targets", bidirectional=True, mode="X")
    assert shown(item(objective, 7)) == (
        "[X] <1> return y else <2> z <eot> <sep> | <1>^ if^ x^ :^ <eom>^ <2>^ return^ <eom>^"
    )


@pytest.mark.parametrize("ends_document", [True, False])
def test_infilling_has_three_layouts(ends_document):
    layouts = {
        "psm": "<pre> if^ x^ :^ <suf>^ else^ return^ z^ <mid>^ return^ y^ <eot>^",
        "spm": "<pre> <suf>^ else^ return^ z^ <mid>^ if^ x^ :^ return^ y^ <eot>^",
        "spm_separate": "<suf> else^ return^ z^ <pre>^ if^ x^ :^ <mid>^ return^ y^ <eot>^",
    }
    assert {order: shown(item(infill(order), 3, ends_document)) for order in layouts} == layouts


def test_infilling_may_count_only_the_middle_and_its_end():
    assert shown(item(infill("psm", loss="middle"), 3)) == "<pre> if x : <suf> else return z <mid> return^ y^ <eot>^"
    assert shown(item(infill("spm", loss="middle"), 3)) == "<pre> <suf> else return z <mid> if x : return^ y^ <eot>^"


MODES = st.sampled_from([None, "R", "S", "X"])
RATIOS = st.tuples(st.floats(0.01, 0.95), st.floats(0.01, 0.95)).map(sorted).map(tuple)
SPANS = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted).map(tuple)
OBJECTIVES = st.one_of(
    st.builds(PrefixObjective, type=st.just("prefix_lm"), loss=st.sampled_from(["suffix", "all"]), mode=MODES),
    st.builds(
        SpanObjective,
        type=st.just("span_corruption"),
        mask_ratio=RATIOS,
        span_tokens=SPANS,
        bidirectional=st.booleans(),
        loss=st.sampled_from(["all", "targets"]),
        mode=MODES,
    ),
    st.builds(
        InfillObjective,
        type=st.just("infill"),
        order=st.sampled_from(["psm", "spm", "spm_separate"]),
        split=st.just("token"),
        loss=st.sampled_from(["all", "middle"]),
    ),
)
KEYS = st.integers(0, 2**64 - 1)


def room(objective, length, key):
    return int(reserve(objective, np.array([length]), np.array([key], np.uint64), len(SENTINELS.masks))[0])


@settings(deadline=None)
@given(objective=OBJECTIVES, key=KEYS, words=st.integers(2, 300), ends_document=st.booleans())
def test_every_objective_gives_the_document_back_within_its_reserve(objective, key, words, ends_document):
    ids = np.append(np.arange(FIRST, FIRST + words), [0] * ends_document)
    result = transform(objective, ids, ends_document, key, SENTINELS)
    padded = np.append(result.tokens, [0, 0])
    assert restore(objective, padded, SENTINELS).tolist() == list(range(FIRST, FIRST + words))
    assert len(result.tokens) <= len(ids) + room(objective, len(ids), key)
    assert len(result.is_target) == len(result.tokens)
    assert not result.is_target[0]
    assert result.is_target[-1]
    assert 0 <= result.prefix < len(result.tokens)


@given(objective=OBJECTIVES, key=KEYS, lengths=st.tuples(st.integers(2, 400), st.integers(2, 400)).map(sorted))
def test_more_tokens_never_need_less_room(objective, key, lengths):
    assert room(objective, lengths[0], key) <= room(objective, lengths[1], key)


@settings(deadline=None)
@given(key=KEYS, words=st.integers(2, 300))
def test_spans_lie_apart_and_their_number_is_the_one_that_was_planned(key, words):
    objective = SpanObjective(type="span_corruption", mask_ratio=(0.1, 0.5), span_tokens=(1, 20))
    tokens = item(objective, key, ends_document=False, words=words).tokens
    document = tokens[: int(np.flatnonzero(tokens == SENTINELS.separator)[0])]
    places = np.flatnonzero(np.isin(document, SENTINELS.masks))
    assert document[places].tolist() == list(SENTINELS.masks[: len(places)])
    assert (np.diff(places) > 1).all()
    assert room(objective, words, key) == 3 * len(places) + 2


def test_masked_share_span_lengths_and_places_are_uniform():
    objective = SpanObjective(type="span_corruption", mask_ratio=(0.1, 0.5), span_tokens=(1, 8))
    many = Sentinels(0, separator=4, end_of_mask=5, masks=tuple(range(1000, 1100)))
    generator = np.random.default_rng(0)
    shares, sizes, masked = [], [], np.zeros(100)
    for key in generator.integers(0, 2**63, 2000).tolist():
        tokens = transform(objective, np.arange(100) + FIRST, False, key, many).tokens
        behind = tokens[np.flatnonzero(tokens == 4)[0] + 1 :]
        sizes += (np.diff(np.flatnonzero(behind == 5), prepend=-1) - 2).tolist()
        raw = behind[(behind >= FIRST) & (behind < 1000)] - FIRST
        shares.append(len(raw) / 100)
        masked[raw] += 1
    assert np.histogram(shares, bins=4, range=(0.1, 0.5))[0].tolist() == pytest.approx([500] * 4, abs=80)
    assert 4.0 < np.mean(sizes) < 4.5  # the last is cut to fit
    assert max(sizes) == 8
    assert masked.mean() == pytest.approx(600, abs=20)
    assert masked[5:-5].max() < 1.3 * masked[5:-5].min()


def test_cuts_and_prefixes_are_uniform():
    keys = np.random.default_rng(0).integers(0, 2**63, 2000).tolist()
    prefixes = [item(PrefixObjective(type="prefix_lm"), key).prefix for key in keys]
    assert np.bincount(prefixes, minlength=9)[1:].tolist() == pytest.approx([250] * 8, abs=60)
    starts = [np.flatnonzero(item(infill("psm"), key).tokens == SENTINELS.fim_suffix)[0] - 1 for key in keys]
    assert np.mean(starts) == pytest.approx(8 / 3, abs=0.2)  # the smaller of two uniform cuts


def test_missing_sentinels_are_named():
    objectives = [infill("psm")]
    with pytest.raises(ValueError, match="objective infill_psm: the tokenizer has no token for fim_suffix, fim_middle"):
        check_sentinels(objectives, Sentinels(0, fim_prefix=1))
    with pytest.raises(ValueError, match=r"span_corruption_X: .* separator, end_of_mask, masks, mode X"):
        check_sentinels([span(mode="X")], Sentinels(0))
    check_sentinels([CausalObjective(), PrefixObjective(type="prefix_lm")], Sentinels(0))


def test_infilling_between_characters_asks_for_a_tokenizer():
    with pytest.raises(ValueError, match="needs a tokenizer"):
        item(InfillObjective(type="infill"), 1)


@pytest.mark.parametrize("path", sorted((CONFIGS / "objectives").glob("*.yaml")), ids=lambda path: path.stem)
def test_named_objectives_load_and_find_their_tokens_in_our_tokenizer(path):
    config = TrainConfig(objectives=path.stem)
    assert len(config.objectives) == len(read_yaml(path))
    check_sentinels(config.objectives, SENTINELS)


def test_ul2_has_its_seven_denoisers():
    objectives = TrainConfig(objectives="ul2").objectives
    names = [objective_name(objective) for objective in objectives]
    assert names == ["span_corruption_R"] * 2 + ["prefix_lm_S"] + ["span_corruption_X"] * 4
    spans = [objective for objective in objectives if isinstance(objective, SpanObjective)]
    means = [(sum(objective.span_tokens) / 2, objective.mask_ratio[0]) for objective in spans]
    assert means == [(3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)]
