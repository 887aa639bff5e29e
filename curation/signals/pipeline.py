"""The steps of annotation in their order: text, origin, licence, gate, syntax."""

from __future__ import annotations

from ...config import AnnotateConfig
from ..steps import Step
from .gate import Gate
from .licence import LicenceSignals
from .origin import OriginSignals
from .syntax import SyntaxSignals
from .text import TextSignals


def standard_steps(config: AnnotateConfig) -> list[Step]:
    """New steps, not set up; `signals` in `curation/schema.py` lists their columns."""
    return [
        TextSignals(),
        OriginSignals(),
        LicenceSignals(),
        Gate(enabled=config.gates, max_parse_bytes=config.max_parse_bytes),
        SyntaxSignals(unparsed=config.unparsed_languages),
    ]
