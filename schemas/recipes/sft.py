"""Defines the settings of supervised fine-tuning."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import RealOrNone, Strict, Whole
from schemas.recipes.lora import LoraSettings, refuse_pissa_in_four_bits
from schemas.recipes.model import AssistantTurns, Precision
from schemas.recipes.optimiser import OptimiserSettings


class TrainingSettings(Strict):
    """Supervised fine-tuning of an adapter or of all weights. QLoRA (Dettmers et al. 2023) is `quantization: nf4`."""

    method: Literal["sft"] = Field(default="sft", description="The method.")
    adaptation: Literal["lora", "full"] = Field(
        default="lora",
        description="What is trained. lora: an adapter; full: all weights of the text model, in fp32 with moments in fp32, so that the "
        "step makes a whole `model` in fp32, and each checkpoint takes three times its size with adamw.",
    )
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
    packing: bool = Field(
        default=False,
        description="Put several rows behind each other into one sequence of at most `max_length` tokens, without padding; each row "
        "attends to itself only, so the loss is the same. With flash attention all rows of a forward pass are one sequence. "
        "Refused for architectures that read across rows.",
    )
    checkpoint_steps: Whole = Field(default=25, ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")
    neftune_alpha: RealOrNone = Field(
        default=None,
        gt=0,
        le=100,
        description="Strength of the noise on the embeddings of training rows (NEFTune, Jain et al. 2024; they use 5 to 15); "
        "null: none.",
    )
    seed: Whole = Field(default=0, ge=0, lt=2**32, description="Seed of data order and initialisation.")

    @model_validator(mode="after")
    def _all_weights_are_trained_as_they_are(self) -> Self:
        if self.adaptation == "full" and self.quantization != "none":
            raise ValueError(
                "`adaptation: full` trains all weights, and quantised ones cannot be; set quantization to none"
            )
        if self.adaptation == "full" and self.lora != LoraSettings():
            raise ValueError("`lora` sets the adapter, and `adaptation: full` trains none; leave `lora` out")
        return self

    @model_validator(mode="after")
    def _pissa_needs_whole_weights(self) -> Self:
        refuse_pissa_in_four_bits(self.lora, self.quantization)
        return self
