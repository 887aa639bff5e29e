"""Configuration of training: the model, the objectives, the stages, and the run. Every duration is in tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..strict import Config, Fraction, Name, read_yaml, resolve
from .schedule import spans

Range = tuple[float, float]


class ModelConfig(Config):
    """Shape of a decoder. The family decides what is not a number: which norm, which rotation, which feed-forward.

    `llama`: sequential block, RMSNorm, SwiGLU, no biases. `cohere`: parallel block (attention and feed-forward read the
    same norm), LayerNorm without bias, SwiGLU, interleaved rotation, scaled logits: that of Aryabumi et al. 2024.
    `codegen`: parallel block, LayerNorm with bias, interleaved rotation of the first `rotary_dim` dimensions, GELU with
    biases, a head with bias: CodeGen2.
    """

    family: Literal["llama", "cohere", "codegen"] = "llama"
    hidden_size: int = Field(128, gt=0)
    intermediate_size: int = Field(352, gt=0)
    num_hidden_layers: int = Field(4, gt=0)
    num_attention_heads: int = Field(4, gt=0)
    num_key_value_heads: int = Field(4, gt=0)
    rotary_dim: int | None = Field(None, gt=0, description="codegen: dimensions of a head that turn; default: all")
    rope_theta: float = Field(10_000.0, gt=0)
    norm_eps: float = Field(1e-5, gt=0)
    tie_word_embeddings: bool = True
    logit_scale: float = Field(1.0, gt=0, description="cohere: logits are multiplied by it")
    initializer_range: float = Field(0.02, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _as_many_key_heads(cls, data: Any) -> Any:
        """As many key heads as heads, where only those are given."""
        if isinstance(data, dict) and "num_attention_heads" in data:
            return {"num_key_value_heads": data["num_attention_heads"], **data}
        return data

    @property
    def head_dim(self) -> int:
        """Dimensions of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("hidden_size must divide by num_attention_heads, and those by num_key_value_heads")
        if self.head_dim % 2 or (self.rotary_dim or 0) % 2:
            raise ValueError("the head dimension and rotary_dim must be even (rotary embedding)")
        if self.rotary_dim and (self.family != "codegen" or self.rotary_dim > self.head_dim):
            raise ValueError("rotary_dim is for the codegen family, and at most the head dimension")
        if self.logit_scale != 1.0 and self.family != "cohere":
            raise ValueError("logit_scale is for the cohere family")
        if self.family == "codegen" and self.rope_theta != 10_000:
            raise ValueError(
                f"codegen: rope_theta {self.rope_theta:g}; transformers' CodeGen always rotates with 10000"
            )
        if self.family == "codegen" and (
            self.tie_word_embeddings
            or self.num_attention_heads % 4
            or self.num_key_value_heads != self.num_attention_heads
        ):
            raise ValueError(
                "codegen: tie_word_embeddings must be false, num_attention_heads a multiple of 4 (transformers stores "
                "queries, keys and values in 4 groups) and num_key_value_heads the same"
            )
        return self


class CausalObjective(Config):
    """Plain next-token prediction."""

    type: Literal["causal"] = "causal"
    weight: float = Field(1.0, gt=0)


class PrefixObjective(Config):
    """Prefix-LM: a prefix of uniform length sees itself both ways, the suffix is predicted."""

    type: Literal["prefix_lm"]
    weight: float = Field(1.0, gt=0)
    loss: Literal["suffix", "all"] = Field("suffix", description="all: prefix tokens are targets too, though visible")
    mode: Literal["R", "S", "X"] | None = Field(None, description="UL2's mode token before the document")


class SpanObjective(Config):
    """Span corruption in CodeGen2's form: spans become <mask_k>; behind <sep> each follows, closed by <eom>."""

    type: Literal["span_corruption"]
    weight: float = Field(1.0, gt=0)
    mask_ratio: Range = Field((0.05, 0.5), description="share of the tokens that is masked, drawn uniformly a document")
    span_tokens: tuple[int, int] = Field((1, 64), description="length of a span, drawn uniformly")
    bidirectional: bool = Field(False, description="the corrupted document sees itself both ways (UL2)")
    loss: Literal["all", "targets"] = Field("all", description="targets: only what stands behind <sep>")
    mode: Literal["R", "S", "X"] | None = Field(None, description="UL2's mode token before the document")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.mask_ratio[0] <= self.mask_ratio[1] < 1:
            raise ValueError("mask_ratio: expected 0 < lowest <= highest < 1")
        if not 1 <= self.span_tokens[0] <= self.span_tokens[1]:
            raise ValueError("span_tokens: expected 1 <= shortest <= longest")
        return self


class InfillObjective(Config):
    """Fill in the middle (Bavarian et al. 2022): prefix, suffix and middle of a document, rearranged."""

    type: Literal["infill"]
    weight: float = Field(1.0, gt=0)
    order: Literal["psm", "spm", "spm_separate"] = Field(
        "psm",
        description="psm <pre>P<suf>S<mid>M; spm <pre><suf>S<mid>PM (their variant 2); spm_separate <suf>S<pre>P<mid>M",
    )
    split: Literal["character", "token"] = "character"
    loss: Literal["all", "middle"] = "all"


Objective = Annotated[CausalObjective | PrefixObjective | SpanObjective | InfillObjective, Field(discriminator="type")]
Shape = Literal["constant", "cosine", "linear", "wsd"]


def _objectives(value: Any) -> Any:
    """A name stands for the list in configs/objectives/<name>.yaml."""
    return read_yaml(resolve(value, "objectives")) if isinstance(value, str) else value


class StageConfig(Config):
    """A part of a run with a mixture, objectives and a schedule of its own; what is not given is the run's."""

    name: Name
    tokens: int = Field(gt=0)
    weights: dict[str, float] = Field(default_factory=dict, description="source -> share; default: the run's")
    where: str = Field(
        "TRUE",
        description="SQL predicate over the columns of the documents: which of them, such as "
        "quality_percentile >= 0.9 for annealing",
    )
    objectives: tuple[Objective, ...] | None = Field(None, min_length=1)
    join: Literal["continue", "fresh", "anneal"] = Field(
        "continue",
        description="learning rate at the join. continue: the schedule before spans this stage too; fresh: one of its "
        "own with warmup; anneal: one of its own that falls from the rate that was reached, no warmup",
    )
    reset_optimizer: bool = Field(False, description="forget momentum and variance at the join")
    learning_rate: float | None = Field(None, gt=0, description="peak; fresh only")
    schedule: Shape | None = None
    final_learning_rate: float | None = Field(
        None,
        ge=0,
        description="absolute; default: 0 if it anneals, else the peak times the run's final_learning_rate_fraction",
    )
    warmup_fraction: Fraction | None = None
    decay_fraction: Fraction | None = None

    _named = field_validator("objectives", mode="before")(_objectives)

    @model_validator(mode="after")
    def _schedule_of_its_own(self) -> Self:
        own = ("learning_rate", "schedule", "final_learning_rate", "warmup_fraction", "decay_fraction")
        given = [name for name in own if getattr(self, name) is not None]
        if self.join == "continue" and given:
            raise ValueError(f'stage "{self.name}": {given[0]} needs `join: fresh` or `join: anneal`')
        if self.join == "anneal" and (self.learning_rate or self.warmup_fraction):
            raise ValueError(f'stage "{self.name}": `join: anneal` starts at the rate reached: no peak, no warmup')
        return self


class TrainConfig(Config):
    """One training run."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="a mapping, or a name in configs/models")
    backend: Literal["codesieve", "transformers"] = Field(
        "codesieve", description="transformers: any causal language model that init_from names"
    )
    init_from: str | None = Field(None, description="folder of a checkpoint to go on from; default: random weights")
    init_optimizer: bool = Field(False, description="take the optimiser's state from init_from as well")
    tokenizer: str | None = Field(None, description="folder with tokenizer.json; default: train one on the corpus")
    vocab_size: int = Field(4096, ge=384, description="of the tokenizer that is trained")
    sequence_length: int = Field(512, ge=8)
    window_tokens: int = Field(512, ge=8, description="at most this much of each document, one window an epoch")
    tokens: int = Field(400_000, gt=0, description="training tokens of one run; with stages: their sum")
    step_tokens: int = Field(2048, gt=0, description="tokens in one optimiser step")
    micro_batch_tokens: int | None = Field(None, gt=0, description="GPU: tokens in one pass; default: step_tokens")
    objectives: tuple[Objective, ...] = Field(
        (CausalObjective(),), min_length=1, description="a list, or a name in configs/objectives"
    )
    stages: tuple[StageConfig, ...] = ()
    max_epochs: float | None = Field(None, gt=0, description="refuse a run that repeats a document more often")
    simulate_tokens: int | None = Field(
        None,
        gt=0,
        description="repeat as a run of so many tokens would: only tokens / simulate_tokens of each source is used",
    )
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(4e-3, gt=0)
    muon_learning_rate: float = Field(0.02, gt=0, description="muon: peak for the matrices of the layers")
    final_learning_rate_fraction: Fraction = Field(0.1, description="of the peak; stages that anneal end at 0 instead")
    schedule: Shape = "cosine"
    warmup_fraction: Fraction = 0.05
    decay_fraction: Fraction = Field(0.2, description="wsd only: the last part of the run, linear to the final rate")
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = Field(1.0, gt=0)
    z_loss: float = Field(0.0, ge=0, description="weight of log(sum(exp(logits)))^2; CodeGen1 used 1e-4")
    skip_sigma: float | None = Field(
        6.0, gt=0, description="skip a step whose loss or gradient norm lies so many deviations above the last 128"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="auto: bfloat16 where it is native")
    compile: bool | None = Field(None, description="torch.compile; default: on a GPU")
    threads: int = Field(1, ge=1, description="of one run; 1 is bit-reproducible and lets runs share the cores")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="with torchrun: replicas, or sharded parameters (FSDP2)"
    )
    checkpoint_tokens: int | None = Field(
        None, gt=0, description="save the state every so many tokens; default: only at Ctrl-C or SIGTERM"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints stay")
    keep_checkpoints_every_tokens: int | None = Field(
        None,
        gt=0,
        description="save the state every so many tokens for good, to branch from: these stay, uncounted by "
        "keep_checkpoints",
    )
    validate_tokens: int | None = Field(
        None, gt=0, description="bits per byte on held-out documents every so many tokens"
    )
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    seeds: tuple[int, ...] = Field((0, 1, 2, 3), min_length=1, description="paired: every arm uses the same")

    _named = field_validator("objectives", mode="before")(_objectives)

    @field_validator("model", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """A name stands for configs/models/<name>.yaml."""
        return read_yaml(resolve(value, "models")) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _sum_of_stages(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("stages"):
            given = [s.get("tokens") if isinstance(s, dict) else getattr(s, "tokens", None) for s in data["stages"]]
            sizes = [size for size in given if isinstance(size, int)]
            if len(sizes) == len(given):
                if data.get("tokens", sum(sizes)) != sum(sizes):
                    raise ValueError(f"tokens {data['tokens']}: the stages have {sum(sizes)}; leave `tokens` out")
                return {**data, "tokens": sum(sizes)}
        return data

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.step_tokens % self.sequence_length:
            raise ValueError("step_tokens must be a multiple of sequence_length")
        if self.micro_batch_tokens and (
            self.micro_batch_tokens % self.sequence_length or self.step_tokens % self.micro_batch_tokens
        ):
            raise ValueError("micro_batch_tokens must be a multiple of sequence_length that divides step_tokens")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError("names of stages must differ")
        if self.stages and self.stages[0].join == "anneal":
            raise ValueError(f'stage "{names[0]}": the first stage has no rate to anneal from')
        if self.optimizer == "muon" and self.parallel == "fsdp":
            raise ValueError("muon needs whole matrices: use parallel: ddp, or adamw")
        if self.init_optimizer and not self.init_from:
            raise ValueError("init_optimizer needs init_from")
        if self.backend == "transformers" and not self.init_from:
            raise ValueError("backend transformers needs init_from: a checkpoint, or a folder with config.json alone")
        if self.simulate_tokens and self.simulate_tokens < self.tokens:
            raise ValueError(f"simulate_tokens {self.simulate_tokens}: less than the run's own {self.tokens} tokens")
        spans(self)  # refuses stages that make no schedule
        return self

    def resolved_stages(self) -> tuple[StageConfig, ...]:
        """The stages with the run's objectives filled in; a run without stages is one stage named `train`."""
        stages = self.stages or (StageConfig(name="train", tokens=self.tokens, join="fresh"),)
        return tuple(
            stage if stage.objectives else stage.model_copy(update={"objectives": self.objectives}) for stage in stages
        )

    def stage_steps(self) -> tuple[int, ...]:
        """Optimiser steps of each stage; a stage shorter than one step is one step."""
        return tuple(max(1, stage.tokens // self.step_tokens) for stage in self.resolved_stages())
