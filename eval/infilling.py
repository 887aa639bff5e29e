"""Prompts for filling in the middle: prefix and suffix of a program in the order and with the signs a model learnt.

The formats are a table, `configs/infill.yaml`. A format that a tokenizer has no tokens for would be read as text and
give scores that say nothing about a model, so it is refused by the name of the token.
"""

from __future__ import annotations

import functools
from typing import Any

from pydantic import model_validator

from ..strict import CONFIGS, Config, ConfigError, parse, read_yaml, unknown
from .backends.protocol import Opening, Prompt, Special

TABLE = CONFIGS / "infill.yaml"
SLOTS = ("{prefix}", "{suffix}")


class InfillFormat(Config):
    """One format; see the head of `configs/infill.yaml`."""

    name: str
    prompt: tuple[str, ...]
    stop: tuple[str, ...] = ()
    may_stop: tuple[str, ...] = ()
    stands_alone: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_both_slots(self) -> InfillFormat:
        if any(self.prompt.count(slot) != 1 for slot in SLOTS):
            raise ValueError(f"prompt: expected {SLOTS[0]} and {SLOTS[1]} once each")
        if strange := set(self.stands_alone) - set(SLOTS):
            raise ValueError(f"stands_alone: {strange.pop()} is none of {', '.join(SLOTS)}")
        return self

    def needs(self) -> list[str]:
        """Control tokens that a tokenizer must have."""
        return [name for name in dict.fromkeys((*self.prompt, *self.stop)) if name not in SLOTS]


@functools.cache
def formats() -> dict[str, InfillFormat]:
    """The table, by name, in its order."""
    found = [parse(InfillFormat, each, f"{TABLE.name}: {each.get('name')}") for each in read_yaml(TABLE)]
    return {each.name: each for each in found}


def resolve_format(name: str, backend: Any) -> InfillFormat:
    """The format of that name, with the stop tokens that this backend's tokenizer has.

    Args:
        name: in the table; `auto`: what the model was trained with here, else the first for which the tokenizer has
            the tokens.
        backend: with `controls` (name → id of added tokens), and perhaps `training`. One without them, as a file of
            answers, takes any format.

    Raises:
        ConfigError: if there is no such format, a token is missing, or the model was never trained to infill.
    """
    controls: Any = getattr(backend, "controls", None)
    if name != "auto" and name not in formats():
        raise ConfigError(f"infill: {unknown('format', name, ['auto', *formats()])}")
    if controls is None:
        return formats()["psm" if name == "auto" else name]
    if name == "auto":
        name = _learnt(backend) or _first(controls)
    chosen = formats()[name]
    missing = [token for token in chosen.needs() if token not in controls]
    if missing:
        raise ConfigError(
            f'infill: {name}: the tokenizer has no added token "{missing[0]}", which this format needs; choose another '
            "format (configs/infill.yaml) or a model that was trained with it"
        )
    return chosen.model_copy(update={"may_stop": tuple(token for token in chosen.may_stop if token in controls)})


def infill_prompt(chosen: InfillFormat, prefix: str, suffix: str) -> Prompt:
    """What the model sees; its answer is the middle."""
    texts: dict[str, str | Opening] = dict(zip(SLOTS, (prefix, suffix), strict=True))
    texts |= {slot: Opening(str(texts[slot])) for slot in chosen.stands_alone}
    return tuple(texts[part] if part in texts else Special(part) for part in chosen.prompt)


def stop_tokens_of(chosen: InfillFormat) -> tuple[str, ...]:
    """Names of the control tokens that end an answer; for a format from `resolve_format`."""
    return tuple(dict.fromkeys((*chosen.stop, *chosen.may_stop)))


def _learnt(backend: Any) -> str | None:
    """Of a model trained here."""
    learnt: tuple[str, ...] | None = getattr(getattr(backend, "training", None), "infill_formats", None)
    if learnt is None:
        return None
    if not learnt:
        raise ConfigError(
            "infill: auto: the model was trained with neither the objective infill nor span_corruption; train one "
            "with `objectives: fim` or `codegen2`, or name a format to measure it all the same"
        )
    return learnt[0]


def _first(controls: Any) -> str:
    for each in formats().values():
        if all(token in controls for token in each.needs()):
            return each.name
    raise ConfigError(
        f"infill: auto: the tokenizer has the control tokens of no format ({', '.join(formats())}); the model was not "
        "trained to fill in the middle, or in a format that configs/infill.yaml lacks"
    )
