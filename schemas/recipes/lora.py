"""Defines the settings of low-rank adaptation, which all training methods share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Real, Strict, Whole

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


def refuse_pissa_in_four_bits(lora: LoraSettings, quantization: str) -> None:
    """Raise ValueError if the adapter begins with PiSSA and the base model is quantised."""
    if lora.initialisation == "pissa" and quantization != "none":
        raise ValueError(
            "the initialisation `pissa` needs the weights in full precision; set quantization to none or initialisation to "
            "default"
        )


def refuse_altered_reference(lora: LoraSettings, method: str) -> None:
    """Raise ValueError for an initialisation that alters the base model, to which `method` compares what it trains."""
    if lora.initialisation == "pissa":
        raise ValueError(
            f"the initialisation `pissa` alters the base model, which is {method}'s reference; set it to default"
        )
