"""Infilling prompts: the ids that training makes, and what a tokenizer cannot say is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from codesieve.eval.backends.encoding import Encoder
from codesieve.eval.backends.network import Training
from codesieve.eval.backends.protocol import spelled
from codesieve.eval.infilling import formats, infill_prompt, resolve_format, stop_tokens_of
from codesieve.files import write_json
from codesieve.strict import ConfigError
from codesieve.train.config import InfillObjective, SpanObjective
from codesieve.train.infill import CharacterSplit
from codesieve.train.objectives import transform
from codesieve.train.sentinels import Sentinels
from codesieve.train.tokenizer import save_tokenizer, train_tokenizer
from tokenizers import Tokenizer

PROGRAM = (
    "def longest(words):\n    best = ''\n    for word in words:\n        if len(word) > len(best):\n"
    "            best = word\n    return best  # naïve, ✓\n"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("own-tokenizer")
    save_tokenizer(train_tokenizer([PROGRAM * 3], 109 + 256 + 30), folder)
    return Encoder(folder, {})


def model(controls: Any, training: Training | None = None) -> Any:
    return SimpleNamespace(controls=controls, training=training or Training())


@pytest.mark.parametrize("order", ["psm", "spm", "spm_separate"])
@pytest.mark.parametrize("key", range(8))
def test_a_prompt_has_the_ids_that_the_objective_makes_of_the_same_split(
    order: Any, key: int, encoder: Encoder
) -> None:
    tokenizer: Tokenizer = encoder.tokenizer
    objective = InfillObjective(type="infill", order=order, split="character")
    content = np.array([*encoder.text(PROGRAM), 0])
    sentinels = Sentinels.of(tokenizer)
    trained = transform(objective, content, True, key * 7919 + 1, sentinels, CharacterSplit(tokenizer)).tokens
    marks = {name: int(np.flatnonzero(trained == getattr(sentinels, name))[0]) for name in
             ("fim_prefix", "fim_suffix", "fim_middle")}  # fmt: skip
    pre, suf, mid = marks["fim_prefix"], marks["fim_suffix"], marks["fim_middle"]

    def text(begin: int, end: int) -> str:
        shown: str = tokenizer.decode(trained[begin:end].tolist(), skip_special_tokens=False)
        return shown

    if order == "psm":
        prefix, suffix = text(pre + 1, suf), text(suf + 1, mid)
    elif order == "spm_separate":
        prefix, suffix = text(pre + 1, mid), text(suf + 1, pre)
    else:
        suffix = text(suf + 1, mid)
        behind = text(mid + 1, len(trained) - 1)  # prefix and middle, whose border no token marks
        prefixes = [behind[:size] for size in range(len(behind) + 1)]
        prompts = [encoder.prompt(infill_prompt(formats()[order], each, suffix), 999)[0] for each in prefixes]
        assert all(ids[:2] == [1, 3] for ids in prompts)
        assert any(
            ids == trained[: len(ids)].tolist() and encoder.text(behind[len(each) :]) == trained[len(ids) : -1].tolist()
            for each, ids in zip(prefixes, prompts, strict=True)
        )
        return
    prompt, lost = encoder.prompt(infill_prompt(formats()[order], prefix, suffix), 999)
    assert prompt == trained[: mid + 1].tolist()
    assert lost == 0


@pytest.mark.parametrize("key", range(8))
def test_a_codegen2_prompt_has_the_ids_that_span_corruption_makes_of_one_span(key: int, encoder: Encoder) -> None:
    objective = SpanObjective(type="span_corruption", mask_ratio=(0.2, 0.4), span_tokens=(400, 400))
    content = np.array([*encoder.text(PROGRAM), 0])
    sentinels = Sentinels.of(encoder.tokenizer)
    trained = transform(objective, content, True, key * 7919 + 1, sentinels).tokens.tolist()
    first, second = (place for place, token in enumerate(trained) if token == sentinels.masks[0])
    decode = encoder.tokenizer.decode
    prefix = decode(trained[:first], skip_special_tokens=False)
    suffix = decode(trained[first + 1 : second - 2], skip_special_tokens=False)
    if encoder.text(prefix) != trained[:first] or encoder.text(suffix) != trained[first + 1 : second - 2]:
        pytest.skip("cut where the text on its own has another encoding")
    chosen = resolve_format("codegen2", model(encoder.controls))
    prompt, _ = encoder.prompt(infill_prompt(chosen, prefix, suffix), 999)
    assert prompt == trained[: second + 1]
    assert stop_tokens_of(chosen) == ("<eom>",)
    assert encoder.control("<eom>") == trained[-1]


def test_the_table_names_published_formats() -> None:
    assert spelled(infill_prompt(formats()["codegen2"], "P", "S")) == "P<mask_1>S<|endoftext|><sep><mask_1>"
    shown = {name: spelled(infill_prompt(each, "P", "S")) for name, each in formats().items()}
    assert shown["deepseek"] == "<｜begin▁of▁sentence｜><｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>"
    assert shown["codellama"] == "<s>▁<PRE>P▁<SUF>S▁<MID>"
    assert shown["starcoder"] == "<fim_prefix>P<fim_suffix>S<fim_middle>"
    assert shown["codestral"] == "<s>[SUFFIX]S[PREFIX]P"


def test_auto_finds_the_format_that_the_tokenizer_has_tokens_for() -> None:
    for name, each in formats().items():
        if name not in ("spm", "spm_separate"):  # of the same tokens as psm
            assert resolve_format("auto", model(dict.fromkeys(each.needs(), 1))).name == name
    with pytest.raises(ConfigError, match="control tokens of no format"):
        resolve_format("auto", model({"<|endoftext|>": 0}))


def test_auto_takes_the_order_that_a_model_was_trained_with(encoder: Encoder, tmp_path: Any) -> None:
    fim = [{"type": "infill", "order": "psm", "weight": 0.2}, {"type": "infill", "order": "spm", "weight": 0.3}]
    cases = [(fim, "spm"), ([{"type": "causal"}, {"type": "span_corruption"}], "codegen2")]
    for objectives, name in cases:
        write_json(tmp_path / "training.json", {"config": {"objectives": objectives}})
        assert resolve_format("auto", model(encoder.controls, Training.of(tmp_path))).name == name
    write_json(tmp_path / "training.json", {"config": {"objectives": [{"type": "causal"}]}})
    causal = model(encoder.controls, Training.of(tmp_path))
    with pytest.raises(ConfigError, match="trained with neither the objective infill nor span_corruption"):
        resolve_format("auto", causal)
    assert resolve_format("psm", causal).name == "psm"


def test_a_format_whose_token_is_missing_is_refused_by_the_name_of_the_token(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match=r'starcoder: the tokenizer has no added token "<fim_prefix>"'):
        resolve_format("starcoder", model(encoder.controls))
    with pytest.raises(ConfigError, match='unknown format "pms"'):
        resolve_format("pms", model(encoder.controls))
    chosen = resolve_format("psm", model(encoder.controls))
    assert set(stop_tokens_of(chosen)) <= set(encoder.controls)
    assert resolve_format("auto", object()).name == "psm"


def test_a_control_token_that_the_program_spells_stays_text(encoder: Encoder) -> None:
    prompt = infill_prompt(formats()["psm"], "x = '<|fim_middle|>'", "<|fim_suffix|>")
    ids, _ = encoder.prompt(prompt, 999)
    assert [number for number in ids if number < 109] == [1, 3, 2]
