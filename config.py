"""Every configuration of codesieve, in one place, as strict pydantic models.

A config is YAML. An unknown key is an error that names the nearest known one; values are checked when the file is
read, before any work starts. `fingerprint` hashes what a stage depends on, so that a finished shard can tell whether
it still answers the question that is asked. `codesieve schema` exports the JSON Schema for editors.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CONFIGS = Path(__file__).parent / "configs"

TABLES = frozenset({"datasets", "languages", "licences", "origin", "syntax"})
"""Files beside the recipes in `configs/` that are none."""

KINDS = ("code", "markup", "adjacent", "synthetic", "text")
"""The five streams of Aryabumi et al. 2024, section 2.1; `text` is their natural language."""

Kind = Literal["code", "markup", "adjacent", "synthetic", "text"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="used as a file and column name")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


C = TypeVar("C", bound=BaseModel)


class ConfigError(ValueError):
    """The user's configuration or arguments are wrong; the command line exits with 2."""


class Config(BaseModel):
    """Base of all configs: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.control_of and self.where != "TRUE":
            raise ValueError(f'selection "{self.name}": give `where` or `control_of`, not both')
        return self


class ModelConfig(Config):
    """Shape of a decoder of the Llama family."""

    hidden_size: int = Field(128, gt=0)
    intermediate_size: int = Field(352, gt=0)
    num_hidden_layers: int = Field(4, gt=0)
    num_attention_heads: int = Field(4, gt=0)
    num_key_value_heads: int = Field(4, gt=0)
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("hidden_size must divide by num_attention_heads, and those by num_key_value_heads")
        if (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("the head dimension must be even (rotary embedding)")
        return self


class TrainConfig(Config):
    """One training run: model, tokens, objective, schedule. All durations are in tokens."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    vocab_size: int = Field(4096, ge=300)
    sequence_length: int = Field(512, ge=8)
    window_tokens: int = Field(512, ge=8, description="at most this much of each document, one window an epoch")
    tokens: int = Field(400_000, gt=0, description="training tokens of one run, padding not counted")
    step_tokens: int = Field(2048, gt=0, description="tokens in one optimiser step")
    objective: Literal["causal"] = "causal"
    optimizer: Literal["adamw"] = "adamw"
    learning_rate: float = Field(4e-3, gt=0)
    final_learning_rate_fraction: Fraction = 0.1
    schedule: Literal["cosine", "wsd", "linear"] = "cosine"
    warmup_fraction: Fraction = 0.05
    decay_fraction: Fraction = Field(0.2, description="wsd only: the last part of the run, linear to the final rate")
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = Field(1.0, gt=0)
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="auto: bfloat16 where it is native")
    threads: int = Field(1, ge=1, description="of one run; 1 is bit-reproducible and lets runs share the cores")
    seeds: tuple[int, ...] = Field((0, 1, 2, 3), min_length=1, description="paired: every arm uses the same")

    @model_validator(mode="after")
    def _rows(self) -> Self:
        if self.step_tokens % self.sequence_length:
            raise ValueError("step_tokens must be a multiple of sequence_length")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        return self


class EvalConfig(Config):
    """What trained models are measured on."""

    tasks: tuple[str, ...] = Field(("heldout", "problems"), description="configs/tasks/<name>.yaml or paths")
    heldout_where: str = Field(
        "TRUE", description="SQL predicate: which held-out documents a model should be good at; decides what is better"
    )
    min_families: int | None = Field(
        None, ge=1, description="a language of fewer held-out families is left out; default: the task's"
    )
    documents_per_stream: int = Field(240, gt=0, description="held-out documents a language or stream, for likelihood")
    max_new_tokens: int = Field(96, gt=0)


class DecideConfig(Config):
    """Which arms are compared, with what, and what counts as a difference."""

    name: Name = "quality-filter"
    question: str = "Does the selection train a better model than everything, and than a random drop of that size?"
    baseline: Name = "everything"
    control: Name | None = "random-drop"
    arms: tuple[Name, ...] = Field((), description="default: every other selection")
    metric: str = Field("bits_per_byte", description="lower is better")
    stream: str = Field("code", description="the stream of held-out documents that decides; the others are guardrails")
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
                raise ValueError(_unknown("selection", selection.control_of, names))
        if self.decide:
            if not (self.train and self.eval):
                raise ValueError("`decide` needs `train` and `eval`")
            for arm in (self.decide.baseline, self.decide.control, *self.decide.arms):
                if arm is not None and arm not in names:
                    raise ValueError(_unknown("selection", arm, names))
        return self


class TrainJobConfig(Config):
    """What `codesieve train` reads: one model on corpus shards that are there."""

    corpus: str = Field(description="folder of Parquet shards with `text`, as `select` and `curate` write them")
    where: str = Field("TRUE", description="SQL predicate over the shards' columns, applied without rewriting them")
    weights: dict[str, float] = Field(default_factory=dict, description="source -> share; default: by bytes")
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


def resolve(name_or_path: str, folder: str) -> Path:
    """A path as it is, or `configs/<folder>/<name>.yaml`; an unknown name is an error with the nearest one."""
    as_path = Path(name_or_path)
    if as_path.suffix in {".yaml", ".yml"} or "/" in name_or_path:
        if not as_path.is_file():
            raise ConfigError(f"{name_or_path}: no such file")
        return as_path
    known = {path.stem: path for path in sorted((CONFIGS / folder).glob("*.yaml")) if folder or path.stem not in TABLES}
    if name_or_path not in known:
        raise ConfigError(_unknown(folder.rstrip("s") or "recipe", name_or_path, known))
    return known[name_or_path]


def read_yaml(path: Path) -> Any:
    """The parsed file; a syntax error names file and line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def parse(model: type[C], data: Any, where: str) -> C:
    """Validate `data` as `model`.

    Raises:
        ConfigError: with one line a problem: where, which key, which value, and the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_describe(problem, model) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def override(data: Any, overrides: Sequence[str]) -> Any:
    """`data` with each `a.b.0.c=value` (value is YAML) put in; lists are addressed by index or by `name`."""
    result = json.loads(json.dumps(data))
    for item in overrides:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {item}: expected key=value")
        node = result
        last, rest = _next_part(node, key.split("."))
        while rest:
            node = _child(node, last, item)
            last, rest = _next_part(node, rest)
        if isinstance(node, list):
            node[_position(node, last, item)] = yaml.safe_load(value)
        elif isinstance(node, dict):
            node[last] = yaml.safe_load(value)
        else:
            raise ConfigError(f"--set {item}: {key.rpartition('.')[0]} is a value, not a section")
    return result


def fingerprint(*parts: Any) -> str:
    """128-bit hex hash of configs and plain values, independent of key order."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def _next_part(node: Any, parts: list[str]) -> tuple[str, list[str]]:
    """The part of a key that is meant for `node`, and the rest; a name in a list may hold dots."""
    if isinstance(node, list):
        names = {str(entry.get("name")) for entry in node if isinstance(entry, dict)}
        for length in range(len(parts), 1, -1):
            if ".".join(parts[:length]) in names:
                return ".".join(parts[:length]), parts[length:]
    return parts[0], parts[1:]


def _child(node: Any, part: str, item: str) -> Any:
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    if isinstance(node, list):
        return node[_position(node, part, item)]
    raise ConfigError(f"--set {item}: {part} is below a plain value")


def _position(node: list[Any], part: str, item: str) -> int:
    names = [str(entry.get("name")) for entry in node if isinstance(entry, dict)]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    raise ConfigError(f"--set {item}: no entry {part!r}{nearest(part, names)}")


def _describe(problem: Any, model: type[BaseModel]) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path) or "(file)"
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return f'unknown key "{key}"{nearest(path[-1], known)}; known here: {", ".join(known)}'
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = f" (got {problem['input']!r})" if not isinstance(problem["input"], dict | list) else ""
    return f"{key}: {message}{shown}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Field names of the model that the error path leads to; list positions lead through."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            continue
        found = next((inner for inner in _models_in(field.annotation)), None)
        if found is None:
            return []
        current = found
    return list(current.model_fields)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} names must differ; twice: {', '.join(twice)}")


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    return f'unknown {what} "{name}"{nearest(name, known)}; known: {", ".join(known)}'
