"""Every configuration of codesieve as strict pydantic models; those of training are in `train/config.py`.

Values are checked when the file is read, before any work starts. `codesieve schema` exports the JSON Schema for
editors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from .strict import Config, Fraction, Name, override, parse, read_yaml, resolve, unknown
from .train.config import TrainConfig

KINDS = ("code", "markup", "adjacent", "synthetic", "text")
"""The five streams of Aryabumi et al. 2024, section 2.1; `text` is their natural language."""

SHARED_BY_ARMS = frozenset({"vocab_size", "tokenizer", "seeds"})
"""Settings of `train` in which arms cannot differ: they share one token store, and their seeds are paired."""

Kind = Literal["code", "markup", "adjacent", "synthetic", "text"]


class ColumnsConfig(Config):
    """Which column of a table holds what; one that is not named is looked for under well-known names."""

    text: str | None = Field(None, description="the document; `a.b` is field b of column a, here and below")
    path: str | None = None
    repository: str | None = None
    revision: str | None = None
    license: str | None = Field(None, description="an SPDX expression, or a list that is joined by AND")
    language: str | None = Field(None, description="of any vocabulary; where it is unknown, path and content decide")
    blob_id: str | None = Field(None, description="names a blob that holds the text, where the table does not")
    encoding: str | None = Field(None, description="of the blob")


class ContentConfig(Config):
    """Where blobs are fetched that a table names."""

    url: str = Field(description="any fsspec URL with {blob_id} in it; gzip is taken off")
    storage: dict[str, Any] = Field(default_factory=dict, description="options of that file system")

    @model_validator(mode="after")
    def _names_the_blob(self) -> Self:
        if "{blob_id}" not in self.url:
            raise ValueError("url must hold {blob_id}")
        return self


class SourceConfig(Config):
    """Where documents come from."""

    name: Name
    type: Literal["directory", "git", "archive", "table", "huggingface", "environment", "problems"] = Field(
        description="directory: files below `path`. git: a repository at `revision`. archive: zip, wheel, jar, tar and "
        "their compressed forms, read without unpacking. table: Parquet or JSONL, one document a row. huggingface: a "
        "data set on the hub, or a local folder of that layout. environment: the interpreter's standard library and "
        "the installed packages. problems: JSONL of problem, solution and tests."
    )
    path: str | None = Field(
        None,
        description="folder, file or fsspec URL; huggingface: a data set's name as well; `configs:` in front means "
        "beside codesieve's configs",
    )
    revision: str = Field("HEAD", description="git only: commit, tag or branch")
    history: bool = Field(True, description="git only: last-change dates, by one pass over the history")
    columns: ColumnsConfig = Field(default_factory=ColumnsConfig, description="table and huggingface only")
    extra: tuple[str, ...] = Field((), description="columns of a table that are kept in the JSON column `extra`")
    preset: Name | None = Field(None, description="huggingface: a layout of configs/datasets.yaml; default: by name")
    languages: tuple[str, ...] = Field((), description="huggingface: these language folders only; default all")
    content: ContentConfig | None = Field(None, description="tables without text: where blobs are fetched")
    storage: dict[str, Any] = Field(
        default_factory=dict, description="options of the file system of a URL; secrets belong into its environment"
    )
    max_archive_bytes: int = Field(
        64_000_000_000, gt=0, description="of an archive, unpacked; what lies behind that is a named skip"
    )
    parts: tuple[Literal["code", "documentation"], ...] = Field(
        ("code",), description="environment only: source files, or METADATA descriptions and documentation files"
    )
    kind: Kind | None = Field(None, description="set for every document; default: from the language table")
    exclude: tuple[str, ...] = Field((), description="glob patterns on the path relative to `path`")
    max_file_bytes: int = Field(64_000_000, gt=0, description="a larger file is a named skip, never read into memory")
    sample_bytes: int | None = Field(
        None, gt=0, description="read at most this much: whole files, in the order of a hash of their path"
    )

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if self.type != "environment" and not self.path:
            raise ValueError(f'source "{self.name}": type {self.type} needs `path`')
        return self


class AnnotateConfig(Config):
    """How documents are measured."""

    gates: bool = Field(True, description="skip the parse of documents that a cheap gate already speaks against")
    max_parse_bytes: int = Field(1_000_000, gt=0, description="gate `too_large`: longer documents are not parsed")
    unparsed_languages: tuple[str, ...] = Field(
        (), description="leave these without syntax signals: for a grammar that crashes on some document"
    )
    unit_bytes: int = Field(16_000_000, gt=0, description="text in one unit of work, which makes one shard")
    batch_bytes: int = Field(8_000_000, gt=0, description="text in one batch")
    rules: str = Field("codesieve", description="rule set: configs/rules/<name>.yaml or a path")
    also_rules: tuple[str, ...] = Field(
        (), description="more rule sets, for selections to name: reasons_<set>, reason_count_<set>"
    )
    workers: int = Field(0, ge=0, description="processes; 0 = one per core")


class SplitConfig(Config):
    """Which documents are held out for evaluation: whole families, never single files."""

    heldout_fraction: Fraction = 0.15
    family: Literal["repository", "source"] = "repository"
    seed: int = 0


class NearDuplicatesConfig(Config):
    """Which documents are near duplicates of another, and which of a cluster is kept."""

    threshold: float = Field(
        0.7, ge=0.3, le=0.99, description="least Jaccard similarity of runs of five tokens (StarCoder: 0.7)"
    )
    within_language: bool = Field(False, description="compare documents of one language only")
    keep: tuple[str, ...] | None = Field(
        None,
        description="SQL expressions; of a cluster the document is kept for which the first is larger (or true), then "
        "the second and so on, then the shorter path. Default: permissive licence, not vendored, not generated, no "
        "test, more bytes",
    )


class DecontaminateConfig(Config):
    """Benchmark items that no document of the corpus should hold."""

    against: tuple[str, ...] = Field(
        (),
        description="files or folders of JSONL (also .gz, .zst) or Parquet, one item a row; `configs:` in front means "
        "beside codesieve's configs. Our own problems are added where `eval` has the task `problems`",
    )
    columns: tuple[str, ...] = Field(
        (), description="text columns of the items, `a.b` for nested ones; default: all that hold text"
    )
    ngram: int = Field(13, ge=4, le=64, description="tokens that match in a row (GPT-3: 13 words)")
    threshold: Fraction = Field(
        0.5, gt=0.0, description="least share of a passage's n-grams that makes a document contaminated"
    )
    generic_documents: int = Field(
        10, ge=0, description="n-grams that more documents hold, without the rest of the item, are no evidence (GPT-3)"
    )


class ClassifierConfig(Config):
    """A fastText quality classifier trained on weak labels."""

    name: Name = "quality"
    labels: str = Field("weak", description="label set: configs/labels/<name>.yaml or a path")
    where: str = Field("kind = 'code'", description="SQL predicate: the documents it is trained on and scores")
    max_documents: int = Field(6000, gt=1, description="training documents over both classes, after balancing")
    max_characters: int = Field(4000, gt=0, description="of each document; longer ones give begin, middle and end")
    calibration_fraction: Fraction = Field(0.2, description="of the families: held out to calibrate and to audit")
    dim: int = Field(16, gt=0)
    epoch: int = Field(10, gt=0)
    lr: float = Field(0.5, gt=0)
    word_ngrams: int = Field(2, gt=0)
    bucket: int = Field(200_000, gt=0)
    min_count: int = Field(2, gt=0)
    seed: int = 0


class SelectionConfig(Config):
    """A predicate over annotated columns and layers: the documents that go into a corpus."""

    name: Name
    where: str = Field("TRUE", description="Polars SQL predicate")
    control_of: Name | None = Field(
        None, description="instead of `where`: a random drop matched in bytes per language to that selection"
    )
    weights: dict[str, float] = Field(default_factory=dict, description="source -> share of the training tokens")
    train: dict[str, Any] = Field(
        default_factory=dict, description="settings of `train` for this arm alone, such as objectives: fim"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.control_of and self.where != "TRUE":
            raise ValueError(f'selection "{self.name}": give `where` or `control_of`, not both')
        return self


class VerifyConfig(Config):
    """How synthetic problems are verified, which runs them."""

    sandbox_level: int = Field(
        2, ge=1, le=3, description="least containment under which they are run; at 1 with your rights"
    )


class EvalConfig(Config):
    """What trained models are measured on, and how."""

    tasks: tuple[str, ...] = Field(
        ("heldout", "problems"), description="configs/tasks/<name>.yaml, suites in configs/papers, or paths"
    )
    data: tuple[str, ...] = Field((), description="files, or folders that hold them, of tasks whose data you bring")
    heldout_where: str = Field(
        "TRUE", description="SQL predicate: which held-out documents a model should be good at; decides what is better"
    )
    min_families: int | None = Field(
        None, ge=1, description="a language of fewer held-out families is left out; default: the task's"
    )
    documents_per_stream: int = Field(240, gt=0, description="held-out documents a language or stream, for likelihood")
    max_items: int | None = Field(None, gt=0, description="of a task: the first by a hash of their ids; default: all")
    max_new_tokens: int = Field(96, gt=0, description="of an answer, where the task does not say")
    samples: int = Field(1, gt=0, description="answers to an item of code and infilling tasks")
    pass_at: tuple[int, ...] = Field((1,), min_length=1, description="k of pass@k; each at most `samples`")
    temperature: float = Field(0.0, ge=0, description="0: greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, gt=0)
    seed: int = Field(0, description="of sampled answers")
    attention: Literal["auto", "causal", "prefix"] = Field(
        "auto", description="prefix: every token of a context sees the whole of it; auto: as the model was trained"
    )
    infill: str = Field("auto", description="prompt format of infilling tasks, from configs/infill.yaml")
    sandbox_level: int = Field(2, ge=1, le=3, description="least containment under which answers are executed")

    @model_validator(mode="after")
    def _samples_suffice(self) -> Self:
        if max(self.pass_at) > self.samples:
            most = max(self.pass_at)
            raise ValueError(f"pass@{most} needs at least {most} samples (got {self.samples})")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 are the same answer; set a temperature")
        return self


class DecideConfig(Config):
    """Which arms are compared, with what, and what counts as a difference."""

    name: Name = "quality-filter"
    question: str = "Does the selection train a better model than everything, and than a random drop of that size?"
    baseline: Name = "everything"
    control: Name | None = "random-drop"
    arms: tuple[Name, ...] = Field((), description="default: every other selection")
    metric: str = Field(
        "bits_per_byte", description="or error_rate: the share of wrong answers; lower is better for both"
    )
    stream: str = Field(
        "code",
        description="what decides: a stream of held-out documents, or a task's name; other streams are guardrails",
    )
    margin_fraction: float = Field(
        0.003, ge=0, description="smallest relative difference that matters; research default 0.3 % of bits per byte"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0)


class RunConfig(Config):
    """Everything that `codesieve run` does."""

    name: Name
    seed: int = 0
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    annotate: AnnotateConfig = Field(default_factory=AnnotateConfig)
    near_duplicates: NearDuplicatesConfig | None = None
    decontaminate: DecontaminateConfig | None = None
    verify: VerifyConfig = Field(default_factory=VerifyConfig)
    split: SplitConfig | None = None
    classifier: ClassifierConfig | None = None
    selections: tuple[SelectionConfig, ...] = (SelectionConfig(name="selected", where="reason_count = 0"),)
    train: TrainConfig | None = None
    eval: EvalConfig | None = None
    decide: DecideConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _unique("source", [source.name for source in self.sources])
        names = [selection.name for selection in self.selections]
        _unique("selection", names)
        for selection in self.selections:
            if selection.control_of and selection.control_of not in names:
                raise ValueError(unknown("selection", selection.control_of, names))
        for selection in self.selections:
            if selection.train:
                self.train_of(selection)
        if self.decide:
            if not (self.train and self.eval):
                raise ValueError("`decide` needs `train` and `eval`")
            for arm in (self.decide.baseline, self.decide.control, *self.decide.arms):
                if arm is not None and arm not in names:
                    raise ValueError(unknown("selection", arm, names))
        return self

    def train_of(self, selection: SelectionConfig) -> TrainConfig:
        """How the arm of a selection is trained: the run's `train` with the selection's own settings.

        Raises:
            ValueError: if they are wrong, or would give arms different tokens or seeds.
        """
        where = f'selection "{selection.name}": train'
        if self.train is None:
            raise ValueError(f"{where}: the run has no `train`")
        shared = sorted(SHARED_BY_ARMS & selection.train.keys())
        if shared:
            raise ValueError(f"{where}.{shared[0]}: all arms share it; set it in the run's `train`")
        settings = {**self.train.model_dump(mode="json"), **selection.train}
        if "stages" in selection.train and "tokens" not in selection.train:
            del settings["tokens"]
        return parse(TrainConfig, settings, where)


class TrainJobConfig(Config):
    """What `codesieve train` reads: models on corpus shards that are there."""

    corpus: str | tuple[str, ...] = Field(
        description="folder or folders of Parquet shards with `text`, as `select` and `curate` write them"
    )
    where: str = Field("TRUE", description="SQL predicate over the shards' columns, applied without rewriting them")
    streams: Literal["source", "kind", "language"] = Field("source", description="column that weights speak of")
    weights: dict[str, float] = Field(
        default_factory=dict, description="stream -> share; default: as much of each as there is"
    )
    validation: str | None = Field(None, description="Parquet of held-out documents, such as RUN/evals/heldout.parquet")
    train: TrainConfig = Field(default_factory=TrainConfig)
    out: str = Field(description="folder: tokenizer, token store, and models/<seed>/")


class DecideJobConfig(Config):
    """What `codesieve decide` reads: a decision from the evaluations of a finished run."""

    run: str = Field(description="the run directory")
    decide: DecideConfig


def load_run(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe of that name in `configs/`, or the YAML file at that path, with `key=value` overrides applied."""
    path = resolve(name_or_path, "")
    return parse(RunConfig, override(read_yaml(path), overrides), where=str(path))


def _unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} names must differ; twice: {', '.join(twice)}")
