"""Defines the settings of the compression of a trained model."""

from typing import Literal

from pydantic import Field

from schemas.base import Real, RealOrNone, Strict, Whole

CompressionMethod = Literal["merge", "int8", "prune", "gguf"]


class PruneSettings(Strict):
    """Which weights a method of pruning removes. A training on the pruned model afterwards recovers much of its quality."""

    what: Literal["weights", "channels", "heads", "layers"] = Field(
        default="channels",
        description="weights: of each linear layer the smallest ones become 0, and the model keeps its size (magnitude "
        "pruning, Han et al. 2015). The others make the model smaller: channels of the MLPs, by the norms of their "
        "weights; heads: groups of attention heads that share keys and values, by the norm of what they write; layers: whole "
        "ones, those that change their input least (Men et al. 2024).",
    )
    share: Real = Field(default=0.25, gt=0, le=0.9, description="Share that is removed, rounded down but at least one.")


class CompressionSettings(Strict):
    """How a model is made from an adapter and its base model, or from another whole model.

    An adapter is merged first, whatever the method.
    """

    method: CompressionMethod = Field(
        default="merge",
        description="merge: the adapter is merged into the base model in full precision; the result is a whole model. int8: "
        "the linear layers are stored in 8 bits, and their inputs are quantised while they are computed (LLM.int8(), Dettmers "
        "et al. 2022); it needs bitsandbytes wherever it is loaded. prune: a part of the weights is removed. gguf: one file for llama.cpp, with "
        "tokenizer and chat template; for architectures like Llama, Qwen 2 and Qwen 3 with a byte-level tokenizer.",
    )
    dtype: Literal["base", "fp32", "bf16", "fp16"] = Field(
        default="base",
        description="Type of the stored weights, of int8 those that are not quantised; base: that of the parent's files.",
    )
    tolerance: RealOrNone = Field(
        default=None,
        gt=0,
        le=1,
        description="For merge and gguf: the largest difference between the logits of the stored model and those of its "
        "parent, as a share of the spread of the latter (both as L2 norms); beyond it the step fails. Null: 0.0001 for fp32, "
        "0.02 for fp16, 0.1 for bf16, 0.2 for q8_0. A merge is within 0.0001 before it is rounded.",
    )
    prune: PruneSettings = PruneSettings()
    gguf_type: Literal["f32", "f16", "bf16", "q8_0"] = Field(
        default="q8_0", description="For gguf, in place of `dtype`: type of the matrices. q8_0: 8 bits in blocks of 32."
    )
    rows: Whole = Field(
        default=64,
        ge=1,
        le=100_000,
        description="The most held-out rows on which parent and result are compared, if the step binds a data set.",
    )
