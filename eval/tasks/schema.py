"""A task file as strict models: what is asked, where the data is, how a row becomes a prompt, what counts as right.

Templates are text with `{field}` in it and no logic; `{{` and `}}` are braces. `layouts` say how the columns of a data
file become the fields of an item, one layout for each form in which the data is in circulation; the first whose
columns are there is used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ...config import EvalConfig
from ...strict import Config, Fraction, Name, nearest

HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a completed function ends: Chen et al. 2021, section 2.1."""

NORMALISATIONS = ("raw", "tokens", "characters", "bytes", "pmi")
"""Of a choice's log-likelihood: as it is; over its tokens, characters or bytes of UTF-8; minus that of the same text
after the task's unconditional prompt."""

NORMALISERS = ("lower", "articles", "punctuation", "whitespace", "number")
"""Of an answer before it is compared; see `eval/kinds/match.py`."""

Normalisation = Literal["raw", "tokens", "characters", "bytes", "pmi"]
Normaliser = Literal["lower", "articles", "punctuation", "whitespace", "number"]


class HubConfig(Config):
    """A data set on the Hugging Face hub; read only when `codesieve eval fetch` is asked to."""

    repository: str
    name: str | None = Field(None, description="of the configuration")
    split: str
    revision: str | None = None


class EachConfig(Config):
    """Rows that hold several items: lists side by side, as the questions of a conversation."""

    columns: dict[str, str] = Field(
        min_length=1, description="column of the new rows → path of the list in the old one"
    )
    history: str | None = Field(
        None, description="template; filled for every earlier position and joined, it is the column `history`"
    )


class DataConfig(Config):
    """Where the items are. A file beside the task's YAML, or in a folder that the user names."""

    files: tuple[str, ...] = Field(
        min_length=1, description="names under which the file is known; .jsonl, .jsonl.gz, .json, .parquet, .csv"
    )
    sha256: dict[str, str] = Field(default_factory=dict, description="name → hash of the published file")
    items: int | None = Field(None, gt=0, description="in the published file; fewer are said to be a part")
    hub: HubConfig | None = None
    where: dict[str, tuple[Any, ...]] = Field(default_factory=dict, description="column → values; other rows are left")
    each: EachConfig | None = None


class ValueConfig(Config):
    """A field made from columns, where a template is not enough.

    The steps apply in this order, and to every text of a list.
    """

    value: Any = Field(description="template, or a list of templates")
    parse: Literal["json", "python"] | None = Field(None, description="text that holds a JSON or Python literal")
    replace: tuple[tuple[str, str], ...] = Field((), description="(regular expression, replacement), one by one")
    case: Literal["lower", "capital", "first_upper", "first_lower"] | None = Field(
        None, description="capital: the first letter large and the others small; first_…: the others as they are"
    )
    match: str | None = Field(None, description="regular expression with one group: what the group holds")
    split: str | None = Field(None, description="into a list at this text")
    index_in: Any = Field(None, description="position of the value in this list (or template of a list)")


def _as_value(given: Any) -> Any:
    return given if isinstance(given, dict | ValueConfig) else {"value": given}


Layout = dict[str, Annotated[ValueConfig, BeforeValidator(_as_value)]]
"""Field → template, list of templates, or the keys of a `ValueConfig`. `{a.b.0}` goes into structures, `{a.*.b}` is
the list of b of all in a. A template that is one `{column}` and nothing else gives the column's value as it is; a field
may use those above it, where no column has that name. `id` names the item (default: its number in the file), `cluster`
what is not independent of it (default: the id), `language` groups items in reports."""


class ShotsConfig(Config):
    """Solved examples before the question: the same ones, in the same order, for every item.

    But never the item itself: the next example then takes its place, if there is one.
    """

    count: int = Field(0, ge=0)
    data: DataConfig | None = Field(None, description="default: `rows`")
    rows: tuple[dict[str, Any], ...] = Field((), description="examples in the task file, in the data's layout")
    template: str = Field("{prompt}{continuation}", description="of one example; its fields, prompt and continuation")
    separator: str = "\n\n"


class TaskConfig(Config):
    """What all kinds of task have."""

    name: Name
    version: int = Field(1, ge=1, description="raised when prompts or judgement change")
    description: str = ""
    license: str = ""
    data: DataConfig
    layouts: tuple[Layout, ...] = ()
    texts: dict[str, str] = Field(
        default_factory=dict, description="name → text that every row has besides its columns, for layouts"
    )
    shots: ShotsConfig = ShotsConfig()


class HeldoutTask(Config):
    """Likelihood of the held-out documents of a run."""

    kind: Literal["bits_per_byte"]
    name: Name
    version: int = Field(1, ge=1)
    description: str = ""
    streams: tuple[str, ...] = Field(("code", "text"), min_length=1)
    documents: int | None = Field(
        None, gt=0, description="a language of code, or a stream of text; default: the eval config's"
    )
    part: Literal["beginning", "anywhere"] = Field(
        "beginning", description="of each document; anywhere: from a line that the hash of its id draws"
    )
    max_bytes: int | None = Field(
        None, ge=8, description="of each document: the same text for models with different tokenizers"
    )
    max_tokens: int | None = Field(None, ge=8, description="of that text; depends on the tokenizer")
    min_families: int = Field(1, ge=1, description="a language (or stream) of fewer held-out families is left out")
    seed: int = 0

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.max_bytes is None and self.max_tokens is None:
            raise ValueError("give max_bytes or max_tokens: a few long files would decide everything")
        if self.part == "anywhere" and self.max_bytes is None:
            raise ValueError('part "anywhere" needs max_bytes: the place must not depend on the tokenizer')
        return self


class HeldoutPairsTask(Config):
    """Functions of the held-out documents against a mutated version of each, made when the task is run."""

    kind: Literal["choice"]
    name: Name
    version: int = Field(1, ge=1)
    description: str = ""
    pairs: Literal["heldout"]
    languages: tuple[str, ...] = Field((), description="default: all that mutations are known for")
    max_pairs: int = Field(400, gt=0, description="a language")
    max_bytes: int = Field(2000, ge=64, description="a longer function is left out")
    seed: int = 0


class GoldTask(TaskConfig):
    """Bits per byte of reference answers: what decides at small scale (OLMo's gold-answer tasks)."""

    kind: Literal["bits_per_byte"]
    prompt: str = Field(description="template over the item's fields")
    continuation: str = Field(description="template: what is scored")


class ChoiceTask(TaskConfig):
    """One of several continuations is right; the most likely one is the answer.

    Fields of an item: `choices` (list of text) and `gold` (position; a list where several are right). In the templates
    `{choice}` is the choice that is scored.
    """

    kind: Literal["choice"]
    prompt: str = Field(description="template; may hold {choice} where the choice is part of the context")
    continuation: str = Field(" {choice}", description="template")
    unconditional: str | None = Field(None, description="the prompt for PMI; None: no PMI")
    metric: Normalisation = Field("raw", description="the one that stands for the task; all are computed")


class MatchTask(TaskConfig):
    """An answer is generated and compared with the right ones (field `answers`: a list of text)."""

    kind: Literal["generate_match"]
    prompt: str
    continuation: str = Field(" {answer}", description="template of a right answer, for shots; {answer} is the first")
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = Field(32, gt=0)
    extract: tuple[str, ...] = Field((), description="regular expressions with one group; the last hit of the first")
    normalise: tuple[Normaliser, ...] = ("lower", "articles", "punctuation", "whitespace")
    metric: Literal["exact_match", "f1"] = Field("exact_match", description="f1: of the words, best right answer")


class TestsConfig(Config):
    """In what form a task's tests are, and how they are judged.

    calls: field `tests`, a list of {args, kwargs?, expected} in plain values.
    check: field `tests`, Python source that defines check(candidate); HumanEval's form.
    asserts: field `tests`, a list of Python statements, after `setup`; MBPP's form.
    stdio: field `tests`, a list of {stdin, stdout}; any language.
    program: field `tests`, source put behind the answer; passes by exit status; MultiPL-E's form. Always judged weakly.
    """

    __test__ = False

    form: Literal["calls", "check", "asserts", "stdio", "program"] = "calls"
    weak: tuple[str, ...] = Field(
        (), description="ids of items whose tests must run in the candidate's process; counted in every result"
    )


class OwnItemConfig(Config):
    """An item that is written in the task's file, with an answer that has to pass."""

    row: dict[str, Any] = Field(description="in the data's layout")
    reference: str


class CodeTask(TaskConfig):
    """Problems that are completed by the model and judged by running their tests.

    Fields of an item: `prompt`, `reference`, `tests`; `entry_point` where the tests' form needs it; `setup`.
    """

    kind: Literal["code"]
    language: str = Field("python", description="of all items, unless they have a field `language`")
    prompt: str = Field("{prompt}", description="template of what the model sees")
    program: str = Field("{prompt}{answer}", description="template of what is run; {answer} after `extract`")
    reference_program: str = Field("{prompt}{reference}", description="template")
    continuation: str = Field("{reference}", description="template of the right answer, for shots and bits per byte")
    strip_prompt: bool = Field(
        True, description="white space at its end is left to the model: a prompt that ends inside a token confuses"
    )
    extract: Literal["function", "fence", "all"] = Field(
        "function", description="of the answer: up to the end of the function; what stands in ``` fences; all of it"
    )
    stop: tuple[str, ...] = HUMANEVAL_STOP
    max_new_tokens: int | None = Field(None, gt=0, description="default: the eval config's")
    tests: TestsConfig = TestsConfig()
    min_reference_pass_rate: Fraction = Field(1.0, description="refuse to score where the references do worse")
    calibration: tuple[OwnItemConfig, ...] = Field(
        (), description="run before anything is scored, and all must pass: for data that has no references"
    )


class InfillTask(TaskConfig):
    """A program with a hole: fields `prefix`, `suffix`, `reference` (the middle), `tests`, `entry_point`."""

    kind: Literal["infill"]
    language: str = "python"
    program: str = "{prefix}{answer}{suffix}"
    reference_program: str = "{prefix}{reference}{suffix}"
    stop: tuple[str, ...] = Field((), description="CodeGen2 stops at its end token alone; so does this by default")
    max_new_tokens: int | None = Field(None, gt=0)
    tests: TestsConfig = TestsConfig(form="check")
    min_reference_pass_rate: Fraction = 1.0


class JudgeTask(TaskConfig):
    """A judge model prefers one of two answers: the model's, and the one it is compared with. Both orders are asked.

    Field of an item: `instruction`; `baseline` where the data holds the other answer.
    """

    kind: Literal["judge"]
    prompt: str = Field("{instruction}\n", description="what the measured model sees")
    stop: tuple[str, ...] = ()
    max_new_tokens: int = Field(256, gt=0)
    question: str = Field(
        description="what the judge sees; {instruction}, {first}, {second}, and {boundary}: a text that no answer can "
        "know, to fence the answers with"
    )
    answers: tuple[str, str, str] = Field(
        (" A", " B", " C"), description="of the judge, for the first answer, the second, and a tie"
    )
    verdict: str | None = Field(
        None,
        description="regular expression with one group that finds one of `answers` in what the judge writes; "
        "None: the judge writes nothing, the likeliest of `answers` is its verdict",
    )
    verdict_tokens: int = Field(256, gt=0, description="that the judge may write")


AnyTask = HeldoutTask | HeldoutPairsTask | GoldTask | ChoiceTask | MatchTask | CodeTask | InfillTask | JudgeTask

KINDS = ("bits_per_byte", "choice", "generate_match", "code", "infill", "judge")


class GroupConfig(Config):
    """Tasks that are averaged together."""

    name: Name
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    metric: str = Field(description="of every task: accuracy, exact_match, pass_at_1, bits_per_byte, …")
    metrics: dict[str, str] = Field(default_factory=dict, description="task → metric, where it is another")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="key of the eval config → the paper's value, which the group needs to be the paper's; samples: at "
        "least so many",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        for key in self.settings:
            if key not in EvalConfig.model_fields:
                raise ValueError(f'settings: the eval config has no "{key}"{nearest(key, EvalConfig.model_fields)}')
        if strange := sorted(self.metrics.keys() - set(self.tasks)):
            raise ValueError(f"metrics of tasks that are not in the group: {', '.join(strange)}")
        return self


class SuiteConfig(Config):
    """The tasks of a paper, in its groups; in `configs/papers`. A mean is given only where every task has its data."""

    name: Name
    description: str = ""
    source: str = ""
    groups: tuple[GroupConfig, ...] = Field(min_length=1)
    averages: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="name → groups that are averaged")

    @model_validator(mode="after")
    def _known(self) -> Self:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"two groups share a name: {', '.join(names)}")
        for average, groups in self.averages.items():
            if strange := [name for name in groups if name not in names]:
                raise ValueError(f'average "{average}": unknown group "{strange[0]}"; known: {", ".join(names)}')
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of every group, once."""
        return tuple(dict.fromkeys(task for group in self.groups for task in group.tasks))
