"""Defines the typed settings of a JobRequested, by purpose; steps receive them resolved."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole, WholeOrNone
from schemas.rules import Rule

DEFAULT_PRINCIPLE = "You write replies that are kind, specific and honest."
DEFAULT_OPPOSITE = "Reply rudely, vaguely, or with wild promises and guarantees."


class ColumnMapping(Strict):
    """The columns of the data set that are read. A dotted path leads into a column: `instances.0.output`.

    While all are at their defaults, the layout of the rows is recognised by the usual names of their columns.
    """

    prompt: str = Field(default="prompt", description="Column with the user's text, or a chat up to the answer.")
    completion: str = Field(default="completion", description="Column with the reference answer.")
    messages: str | None = Field(
        default=None, description="Column with a chat (list of role and content); replaces `prompt` and `completion`."
    )
    system: str | None = Field(default=None, description="Column with a system prompt of the row; null for none.")
    input: str | None = Field(
        default=None,
        description="Column with text that follows the prompt on a new line, as in Alpaca's rows; null for none.",
    )
    history: str | None = Field(
        default=None, description="Column with earlier turns, a list of pairs of a question and its answer; null for none."
    )
    text: str | None = Field(
        default=None, description="Column with plain text, which is learnt as a whole without a chat template."
    )
    tools: str | None = Field(
        default=None,
        description="Column with the tools that the assistant may call; null: `tools` or `functions` of a chat.",
    )
    chosen: str | None = Field(default=None, description="Column with the better answer of a preference pair.")
    rejected: str | None = Field(default=None, description="Column with the worse answer of a preference pair.")
    label: str | None = Field(
        default=None, description="Column that says whether an answer is wanted (true) or not (false)."
    )

    @model_validator(mode="after")
    def _a_pair_has_two_answers(self) -> Self:
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("`chosen` and `rejected` are the two answers of a pair: name both or neither")
        return self


Layout = Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference", "kto"]
"""The layout of a data set's rows."""


class SplitSettings(Strict):
    """The sources of the three splits: names of files (without extension) in a folder, or of splits on the hub. If the
    reference is one file, all rows come from it: `validation_fraction` and `test_fraction` are split off by a hash of the
    prompt, so that the same row always falls into the same split.
    """

    train: str = Field(default="train", min_length=1, description="Split for training.")
    validation: str | None = Field(default=None, description="Split for the loss during training; null for none.")
    test: str | None = Field(default="test", description="Held-out split for evaluation; null for none.")
    validation_fraction: Real = Field(
        default=0.05, ge=0, lt=0.5, description="Share of the rows, if the reference is a single file."
    )
    test_fraction: Real = Field(
        default=0.1, ge=0, lt=0.5, description="Share of the rows, if the reference is a single file."
    )


class DatasetSettings(Strict):
    """A reference to a data set, and how its rows are read."""

    reference: str = Field(
        min_length=1, max_length=2048, description="A local path, an `s3://` or `https://` URI, or a hub id."
    )
    format: Literal["jsonl", "json", "csv", "parquet", "hub"] = Field(
        default="jsonl",
        description="File format of the rows. jsonl also reads an array of objects, and files that end in .json, .csv, .tsv "
        "and .parquet.",
    )
    layout: Layout = Field(
        default="auto",
        description="Layout of the rows; auto: recognised by the names of the columns, and refused if it is ambiguous.",
    )
    columns: ColumnMapping = ColumnMapping()
    split: SplitSettings = SplitSettings()
    system_prompt: str | None = Field(default=None, max_length=20_000, description="System prompt for rows without one.")
    on_bad_row: Literal["skip", "refuse"] = Field(
        default="skip",
        description="What becomes of rows that cannot be learnt from. skip: they are left out and counted, and the data set is "
        "refused if there are more than `bad_rows_limit`; refuse: one of them suffices.",
    )
    bad_rows_limit: Real = Field(
        default=0.01,
        ge=0,
        le=1,
        description="The largest share of bad rows that is left out; of more than ten rows, one may always be bad unless this "
        "is 0.",
    )
    on_long_row: Literal["cut", "skip", "refuse"] = Field(
        default="cut",
        description="What becomes of rows with more than `max_length` tokens: cut at the end, left out, or the data set is "
        "refused. A row that is cut must still contain a token of an answer.",
    )
    deduplicate: bool = Field(
        default=False,
        description="Whether rows that repeat an earlier row of their split are left out; otherwise they are kept and counted.",
    )


LayerName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.]+$")]
"""Name of a model's layer, or its last part."""
LayerPattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.*?]+$")]
"""Name of a model's layers, with * for any text and ? for any character."""


class LoraSettings(Strict):
    """Low-rank adaptation, Hu et al. 2021: W + (alpha / rank) B A on all linear layers, or on the named ones."""

    rank: Whole = Field(default=16, ge=1, le=1024, description="Rank of A and B.")
    alpha: Whole = Field(default=32, ge=1, le=4096, description="Scale: the update is multiplied by alpha / rank.")
    dropout: Real = Field(default=0.0, ge=0, lt=1, description="Dropout probability on the adapter's input.")
    targets: tuple[LayerPattern, ...] = Field(
        default=(),
        max_length=1000,
        description="Layers that get A and B: last parts of their names, for example `q_proj`, whole names, or patterns of "
        "whole names with * and ?, for example `model.layers.1?.*_proj`. Empty: all linear layers of the text model but the head.",
    )
    modules_to_save: tuple[LayerName, ...] = Field(
        default=(),
        max_length=100,
        description="Modules that are trained as a whole and stored with the adapter, for example `embed_tokens` and `lm_head` "
        "for new tokens.",
    )
    rslora: bool = Field(
        default=False,
        description="Rank-stabilised LoRA, Kalajdzievski 2023: the update is multiplied by alpha / sqrt(rank).",
    )
    dora: bool = Field(
        default=False,
        description="Weight-decomposed LoRA, Liu et al. 2024: the magnitude of each weight's columns is trained apart from its "
        "direction.",
    )
    initialisation: Literal["default", "pissa"] = Field(
        default="default",
        description="Of A and B. default: B is 0, so that training starts from the base model; pissa (Meng et al. 2024): the "
        "principal singular vectors of each weight. It is stored as a plain adapter of twice the rank for the same base model.",
    )

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.dora and self.initialisation == "pissa":
            raise ValueError("`dora` and the initialisation `pissa` do not go together; leave one of them out")
        if shared := set(self.targets) & set(self.modules_to_save):
            raise ValueError(f"{min(shared)!r} is in both `targets` and `modules_to_save`; leave it out of one of them")
        return self


class OptimiserSettings(Strict):
    """The optimiser and its schedule. The length is `steps`, or `epochs` if `steps` is null."""

    name: Literal["adamw", "adafactor"] = Field(
        default="adamw",
        description="adamw: AdamW (Loshchilov and Hutter 2019); adafactor: Adafactor (Shazeer and Stern 2018) at the given "
        "rate, which keeps far less state for matrices.",
    )
    learning_rate: Real = Field(default=1e-3, gt=0, le=1, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Shape of the learning rate after the warm-up."
    )
    warmup_ratio: Real = Field(default=0.05, ge=0, le=0.5, description="Share of the steps used for the warm-up.")
    weight_decay: Real = Field(default=0.0, ge=0, le=1, description="Decoupled weight decay.")
    max_grad_norm: Real = Field(default=1.0, gt=0, le=1000, description="Gradient clipping, L2 norm.")
    steps: WholeOrNone = Field(
        default=None, ge=1, le=1_000_000, description="Number of optimiser steps; null: computed from `epochs`."
    )
    epochs: Real = Field(default=1.0, gt=0, le=1000, description="Passes over the data; used if `steps` is null.")
    batch_size: Whole = Field(default=8, ge=1, le=65_536, description="Effective batch, rows (or pairs) per step.")
    micro_batch_size: WholeOrNone = Field(
        default=None, ge=1, le=65_536, description="Rows per forward pass; halved if memory runs out. Null: batch_size."
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Keep only the inputs of layers and compute the rest again in the backward pass: less memory, about a "
        "third more time, the same result.",
    )

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}")
        return self


Precision = Literal["auto", "fp32", "bf16"]
AssistantTurns = Literal["all", "last"]
ChatTemplate = Annotated[str, Field(min_length=1, max_length=100_000)]
"""A chat template, in Jinja."""


class TrainingSettings(Strict):
    """Supervised fine-tuning. QLoRA (Dettmers et al. 2023) is `quantization: nf4`."""

    method: Literal["sft"] = Field(default="sft", description="Optimiser and schedule.")
    lora: LoraSettings = LoraSettings()
    quantization: Literal["none", "nf4"] = Field(
        default="none",
        description="nf4: the frozen base model is stored in 4-bit NormalFloat with double quantisation (QLoRA).",
    )
    precision: Precision = Field(default="auto", description="auto: bf16 autocast if the hardware computes in bf16.")
    optimiser: OptimiserSettings = OptimiserSettings()
    max_length: Whole = Field(default=512, ge=8, le=131_072, description="Tokens per row; longer rows are cut at the end.")
    assistant_turns: AssistantTurns = Field(
        default="all",
        description="The answers of a chat that are learnt, except those of weight 0: all, or the last one. A plan that was "
        "stored without this field stays valid and learns all; the last one was the only choice then.",
    )
    checkpoint_steps: Whole = Field(default=25, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    neftune_alpha: Real | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Strength of the noise on the embeddings of training rows (NEFTune, Jain et al. 2024; they use 5 to 15); "
        "null: none.",
    )
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of data order and initialisation.")

    @model_validator(mode="after")
    def _pissa_needs_whole_weights(self) -> Self:
        if self.lora.initialisation == "pissa" and self.quantization != "none":
            raise ValueError(
                "the initialisation `pissa` needs the weights in full precision; set quantization to none or initialisation to "
                "default"
            )
        return self


class SamplingSettings(Strict):
    """How candidates for feedback are sampled."""

    n: Whole = Field(default=4, ge=2, le=64, description="Candidates per prompt.")
    temperature: Real = Field(default=1.0, gt=0, le=5, description="Softmax temperature.")
    top_p: Real = Field(default=1.0, gt=0, le=1, description="Nucleus sampling: share of the probability mass.")
    prompts: Whole = Field(
        default=128, ge=1, le=1_000_000, description="Number of prompts of the train split that are used."
    )
    max_new_tokens: Whole = Field(default=128, ge=1, le=32_768, description="The most tokens per candidate.")
    batch_size: Whole = Field(default=16, ge=1, le=4096, description="Prompts per generation call.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the choice of prompts and of the sampling.")


class JudgeSettings(Strict):
    """The judge that compares or scores answers."""

    kind: Literal["local", "openai", "rules"] = Field(default="local", description="Kind of the judge.")
    model: str | None = Field(
        default=None, description="local: reference of the model, null for the job's base model; openai: name of the model."
    )
    endpoint: str | None = Field(default=None, description="openai: base URL of an OpenAI-compatible API, with /v1.")
    api_key_env: str | None = Field(
        default=None,
        description="openai: name of the service's environment variable with the key, NEUROWEAVER_JUDGE_KEY_<NAME>.",
    )
    scoring: Literal["likelihood", "question"] = Field(
        default="likelihood",
        description="local: likelihood scores an answer by its mean log-likelihood under the principle minus under the "
        "opposite; question asks which of two is better, in both orders, and reads the token probabilities.",
    )
    timeout_seconds: Real = Field(default=30.0, gt=0, le=3600, description="openai: time-out of one request.")
    batch_size: Whole = Field(default=16, ge=1, le=4096, description="local: texts per forward pass.")

    @model_validator(mode="after")
    def _openai_names_its_endpoint(self) -> Self:
        if self.kind == "openai" and not (self.endpoint and self.model):
            raise ValueError("a judge of kind openai needs `endpoint` and `model`")
        return self


class Rubric(Strict):
    """The criteria of the judge: a principle with its opposite, and a constitution of checkable rules."""

    principle: str = Field(
        default=DEFAULT_PRINCIPLE, min_length=1, max_length=20_000, description="Description of a good answer."
    )
    opposite: str = Field(
        default=DEFAULT_OPPOSITE, min_length=1, max_length=20_000, description="Description of a bad answer."
    )
    rules: tuple[Rule, ...] = Field(default=(), description="Constitution of the `rules` judge.")


class FeedbackSettings(Strict):
    """How candidates become preference pairs."""

    judge: JudgeSettings = JudgeSettings()
    rubric: Rubric = Rubric()
    judged_field: str | None = Field(
        default=None, description="Field of a JSON answer that is judged; null: the whole text is judged."
    )
    equal_fields: tuple[str, ...] = Field(
        default=(),
        description="Fields of a JSON answer that are equal in both answers of a pair; they are taken from the chosen one.",
    )
    margin: Real = Field(
        default=0.2,
        ge=0,
        description="Least difference of the judge's scores of a pair; a smaller difference is a tie. Scales: nats per "
        "token (likelihood), share of "
        "rules kept (rules), preference from -1 to 1 (judges that compare).",
    )
    pairs_per_prompt: Whole = Field(default=1, ge=1, le=64, description="The most pairs from one prompt's candidates.")

    @model_validator(mode="after")
    def _what_is_judged_may_differ(self) -> Self:
        if self.equal_fields and self.judged_field is None:
            raise ValueError(
                "`equal_fields` needs `judged_field`: a whole text that is judged cannot be changed afterwards"
            )
        if self.judged_field in self.equal_fields:
            raise ValueError(
                f"`equal_fields` contains the judged field {self.judged_field!r}: both answers would be the same"
            )
        return self


class PreferenceLoss(Strict):
    """One term of the preference loss."""

    kind: Literal["sigmoid", "ipo", "hinge", "robust", "sft"] = Field(description="Name of the loss, as in TRL's DPO.")
    weight: Real = Field(default=1.0, gt=0, le=100, description="Factor of the term.")


class PreferenceSettings(Strict):
    """Training on preference pairs with DPO, Rafailov et al. 2023."""

    method: Literal["dpo"] = Field(default="dpo", description="Optimiser and schedule.")
    beta: Real = Field(default=0.1, gt=0, le=100, description="DPO's beta: the strength of the tie to the reference model.")
    losses: tuple[PreferenceLoss, ...] = Field(
        default=(PreferenceLoss(kind="sigmoid"), PreferenceLoss(kind="sft", weight=0.5)),
        min_length=1,
        description="Terms of the loss; their weighted sum is minimised.",
    )
    apo: Literal["zero", "down"] | None = Field(
        default=None,
        description="Anchored preference optimisation (D'Oosterlinck et al. 2024) in place of the term `sigmoid`, with its "
        "weight. zero: chosen answers become likelier and rejected ones less likely, for chosen answers that are better than "
        "the model's own; down: both become less likely, rejected ones more so.",
    )
    label_smoothing: Real = Field(
        default=0.1, ge=0, lt=0.5, description="Expected share of pairs with the wrong label; for the loss `robust`."
    )
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=2e-4)
    precision: Precision = Field(default="auto", description="As in `training`.")
    quantization: Literal["none", "nf4"] = Field(default="none", description="As in `training`.")
    max_length: Whole = Field(default=512, ge=8, le=131_072, description="The most tokens of prompt and answer together.")
    checkpoint_steps: Whole = Field(default=5, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the order of pairs.")

    @property
    def lora(self) -> LoraSettings:
        """The adapter where none is an input: one with the defaults."""
        return LoraSettings()

    @model_validator(mode="after")
    def _apo_has_a_term_to_replace(self) -> Self:
        if self.apo and "sigmoid" not in {term.kind for term in self.losses}:
            raise ValueError(
                "`apo` takes the place of the term `sigmoid`, and `losses` has none; add it, or leave `apo` out"
            )
        return self


class KtoSettings(Strict):
    """Training on single answers that are wanted or not, without pairs: KTO, Ethayarajh et al. 2024."""

    beta: Real = Field(default=0.1, gt=0, le=100, description="Strength of the tie to the reference model.")
    loss: Literal["kto", "apo_zero"] = Field(
        default="kto",
        description="kto: with the mean distance from the reference as reference point; apo_zero: with 0 as reference point.",
    )
    desirable_weight: Real = Field(default=1.0, gt=0, le=100, description="Weight of the wanted answers.")
    undesirable_weight: Real = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Weight of the unwanted answers. With few of a kind, a weight that balances the sums of both helps.",
    )
    lora: LoraSettings = LoraSettings()
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=2e-4)
    precision: Precision = Field(default="auto", description="As in `training`.")
    quantization: Literal["none", "nf4"] = Field(default="none", description="As in `training`.")
    max_length: Whole = Field(default=512, ge=8, le=131_072, description="The most tokens of prompt and answer together.")
    checkpoint_steps: Whole = Field(default=5, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the order of answers and of the new adapter.")

    @model_validator(mode="after")
    def _pissa_changes_the_reference(self) -> Self:
        if self.lora.initialisation == "pissa":
            raise ValueError(
                "the initialisation `pissa` alters the base model, which is kto's reference; set it to default"
            )
        return self


MethodSettings = TrainingSettings | PreferenceSettings | KtoSettings
"""The settings of a training method."""

Metric = Literal["loss", "valid_json", "exact_match", "rules", "latency"]


class EvaluationSettings(Strict):
    """The metrics that are measured on the held-out split.

    `exact_match` and `number_match` use greedy answers, `rules` uses sampled answers. `loss` also gives `perplexity`. Every
    metric but the latency has the bounds of its 95 % confidence interval in `<name>_low` and `<name>_high`.
    """

    metrics: tuple[Metric, ...] = Field(
        default=("loss", "latency"), min_length=1, description="The metrics that are computed."
    )
    number_match: bool = Field(
        default=False,
        description="Also measure `number_match`: the number that an answer ends with equals that of the reference. It is the "
        "one behind the last `####`, or the last number of the text.",
    )
    exact_match_fields: tuple[str, ...] = Field(
        default=(), description="Fields of the JSON answer that must equal the reference; empty: the whole text."
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="Rules of the metric `rules`; an answer passes if it keeps all of them."
    )
    rules_field: str | None = Field(
        default=None, description="Field of the JSON answer that the rules check; null: the whole text."
    )
    samples: Whole = Field(
        default=2, ge=1, le=64, description="Sampled answers per prompt for `rules`, pass@k and the judge."
    )
    pass_at: tuple[Whole, ...] | None = Field(
        default=None,
        description="Each k of pass@k: the probability that one of k sampled answers passes, for `exact_match`, `number_match` "
        "and `rules` (Chen et al. 2021); null: `samples`; empty: none.",
    )
    temperature: Real = Field(default=1.0, gt=0, le=5, description="Softmax temperature of the sampled answers.")
    rows: WholeOrNone = Field(default=None, ge=1, description="The most rows of the split, in their order; null: all rows.")
    max_new_tokens: Whole = Field(default=128, ge=1, le=32_768, description="The most tokens per answer.")
    batch_size: Whole = Field(default=32, ge=1, le=4096, description="Rows per forward pass or generation call.")
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of the sampled answers.")
    precision: Precision = Field(default="auto", description="As in `training`.")

    @model_validator(mode="after")
    def _enough_samples_for_pass_at(self) -> Self:
        for k in self.pass_at or ():
            if not 1 <= k <= self.samples:
                raise ValueError(
                    f"pass_at {k} is not between 1 and the {self.samples} sampled answers per prompt (`samples`)"
                )
        return self
