"""datatrove's Document filters as a step of ours: their verdicts become a column, and no row goes.

Comes in: `text`, and the columns that `where` names. Goes out: `<name>_reasons`, every block that would drop the
document and why; empty where all would keep it, null outside `where`. Each block sees the document's own text: blocks
that rewrite what they keep (C4QualityFilter) do not hand it on to the next.

Works with no download: GopherQualityFilter, GopherRepetitionFilter, FineWebQualityFilter, C4QualityFilter (these four
with `language=PlainWords()`, or spaCy installed), C4ParagraphFilter, RegexFilter, LambdaFilter on a named function,
SamplerFilter with a seed. C4BadWordsFilter, UnigramLogProbFilter, LanguageFilter and FastTextClassifierFilter fetch a
list or a model at their first document; URLFilter needs metadata `url`, tldextract and pyahocorasick.
Price: the blocks' own, 5 to 200 µs a kB of text; use `where`.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.utils.word_tokenizers import WhitespaceTokenizer

from ..strict import ConfigError
from .corpus import predicate
from .faults import MESSAGE_CHARACTERS, describe
from .steps import with_errors


class PlainWords(WhitespaceTokenizer):  # type: ignore[misc]
    """Words and single marks by a regular expression, for `language=` of datatrove's filters instead of spaCy.

    spaCy's English rules also split `don't` and `e.g.`; over prose the counts differ by some percent.
    """

    _word = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")

    def word_tokenize(self, text: str) -> list[str]:
        """The words of `text`, punctuation marks among them."""
        return self._word.findall(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlainWords)

    def __hash__(self) -> int:
        return hash(PlainWords)


class Blocks:
    """Step: adds `<name>_reasons` (List(String)), each `<Filter>.<reason>` that a block gives for dropping.

    Args:
        name: of the step and its column.
        blocks: datatrove filters without exclusion writers.
        where: SQL predicate: which documents they see.
        metadata: columns that the blocks find in the documents' metadata.

    Raises:
        ConfigError: if a block is no filter, cannot be pickled for a worker, or `where` does not parse.
    """

    def __init__(
        self,
        name: str,
        blocks: Sequence[PipelineStep],
        where: str = "kind = 'text'",
        metadata: Sequence[str] = (),
    ):
        if not blocks:
            raise ConfigError(f'blocks "{name}": none given')
        for block in blocks:
            _check(name, block)
        self.name = name
        self.blocks = list(blocks)
        self.where = where
        self.metadata = tuple(metadata)
        self.column = f"{name}_reasons"
        used = _columns_of(where, f'blocks "{name}": where')
        self.requires: tuple[str, ...] = tuple(dict.fromkeys(["id", "text", *used, *metadata]))
        self.provides: Mapping[str, pl.DataType] = {self.column: pl.List(pl.String())}
        self._live: list[tuple[str, BaseFilter]] = []

    @property
    def made_from(self) -> dict[str, Any]:
        """The settings in words, for the plan of the stage that runs this step."""
        return {
            "blocks": [
                {"filter": name, **_settings(block)} for name, block in zip(self._names(), self.blocks, strict=True)
            ],
            "where": self.where,
            "metadata": list(self.metadata),
        }

    def setup(self) -> None:
        """Fresh copies, so that a block with state (a seeded sampler) is the same for every shard; tried once.

        Raises:
            ConfigError: if a block lacks a package, with what to do.
        """
        self._live = list(zip(self._names(), copy.deepcopy(self.blocks), strict=True))
        for name, block in zip(self._names(), copy.deepcopy(self.blocks), strict=True):
            try:
                block.filter_batch([Document(text=_PROBE, id="probe", metadata=dict.fromkeys(self.metadata, ""))])
            except ImportError as error:
                raise ConfigError(
                    f'blocks "{self.name}": {name}: {error}\n'
                    "Install that, or give the block language=codesieve.curation.blocks.PlainWords()"
                ) from error
            except OSError as error:
                raise ConfigError(f'blocks "{self.name}": {name} cannot fetch what it needs: {error}') from error
            except Exception:  # the probe is about packages and files; documents are judged one by one
                continue

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the column. A block that fails on a document goes to `step_errors`; the others' reasons stay."""
        assert self._live, "setup() was not called"
        wanted = batch.select(predicate(self.where, batch.columns).alias("wanted"))["wanted"]
        reasons: list[list[str] | None] = []
        errors: list[str | None] = []
        for is_wanted, row in zip(wanted, batch.select(self.requires).iter_rows(named=True), strict=True):
            found, failed = self._judge(row) if is_wanted else (None, None)
            reasons.append(found)
            errors.append(failed)
        return with_errors(batch.with_columns(pl.Series(self.column, reasons, dtype=pl.List(pl.String))), errors)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_live": []}

    def _judge(self, row: Mapping[str, Any]) -> tuple[list[str], str | None]:
        reasons, errors = [], []
        for name, block in self._live:
            document = Document(text=row["text"], id=row["id"], metadata={key: row[key] for key in self.metadata})
            try:
                kept, reason = get_filter_result(block.filter_batch([document])[0])
            except Exception as error:
                errors.append(f"{self.name}: {name}: {describe(error)}")
                continue
            if not kept:
                reasons.append(f"{name}.{reason}" if reason else name)
        return reasons, "; ".join(errors)[:MESSAGE_CHARACTERS] or None

    def _names(self) -> list[str]:
        names: list[str] = []
        for block in self.blocks:
            name = type(block).__name__
            count = sum(1 for other in names if other.partition("-")[0] == name)
            names.append(f"{name}-{count + 1}" if count else name)
        return names


_PROBE = "This is a sentence of the probe. It has words, and it ends.\n" * 20


def _columns_of(where: str, place: str) -> list[str]:
    """Which columns there are is checked against the other steps, by `requires`."""
    try:
        names = pl.sql_expr(where).meta.root_names()
    except (pl.exceptions.PolarsError, TypeError):
        names = []
    predicate(where, names, place)  # says what is wrong with it
    return names


def _check(name: str, block: PipelineStep) -> None:
    kind = type(block).__name__
    if not isinstance(block, BaseFilter):
        raise ConfigError(f'blocks "{name}": {kind} is not a datatrove filter; only verdicts become columns')
    if block.exclusion_writer is not None:
        raise ConfigError(f'blocks "{name}": {kind}: drop its exclusion_writer; the verdict is kept as a column')
    try:
        pickle.dumps(block)
    except Exception as error:
        raise ConfigError(
            f'blocks "{name}": {kind} cannot be sent to a worker ({error}); give it a function of a module, no lambda'
        ) from error


def _settings(block: BaseFilter) -> dict[str, Any]:
    skipped = {"stats", "exclusion_writer"}
    return {key: _plain(value) for key, value in sorted(vars(block).items()) if key not in skipped}


def _plain(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
