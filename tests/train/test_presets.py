import re

import pytest
import torch
from codesieve.strict import CONFIGS, parse, read_yaml
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.model import Decoder

PATHS = {path.stem: path for path in sorted((CONFIGS / "models").glob("*.yaml"))}
TOTALS = {
    "codegen2-1b": (51_200, 1_015),
    "codegen2-3.7b": (51_200, 3_641),
    "codegen2-7b": (51_200, 6_863),
    "codegen2-16b": (51_200, 16_032),
    "to-code-470m": (256_000, 468),
    "to-code-2.8b": (256_000, 2_793),
}
"""Vocabulary and parameters in millions; the first three are the published counts of CodeGen2."""


def counts(name, vocab_size=4096):
    config = parse(ModelConfig, read_yaml(PATHS[name]), name)
    with torch.device("meta"):
        return Decoder(config, vocab_size, 2048).parameter_counts()


def stated(text):
    number = re.match(r"# ([\d.,]+) M parameters", text)
    return float(number[1].replace(",", ""))


def test_the_ladder_of_proxies_and_the_models_of_both_papers_are_there():
    proxies = {f"proxy-{size}m" for size in (1, 5, 15, 30, 60, 125, 150, 350)}
    assert set(PATHS) == proxies | set(TOTALS)


@pytest.mark.parametrize("name", TOTALS)
def test_the_models_of_the_papers_have_their_numbers_of_parameters(name):
    vocab_size, millions = TOTALS[name]
    assert abs(counts(name, vocab_size)["parameters"] - millions * 1e6) < 1e6
    assert stated(PATHS[name].read_text()) == millions
    assert f"{vocab_size:,}" in PATHS[name].read_text()


@pytest.mark.parametrize("name", sorted(set(PATHS) - set(TOTALS)))
def test_proxies_have_the_size_that_their_file_states(name):
    body = counts(name)["parameters_without_embeddings"]
    assert abs(body - stated(PATHS[name].read_text()) * 1e6) < 0.025 * body


def test_a_preset_is_named_in_a_training_config():
    assert TrainConfig(model="codegen2-1b").model.family == "codegen"
    assert TrainConfig(model="to-code-470m").model.family == "cohere"
