"""Defines what every method of compression gets, and loads the model that it works on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from schemas.reasons import Reason
from schemas.recipes.compression import CompressionSettings
from services.chassis.executor.child import UserFault
from services.trainer.compression.proof import difference, logits_of, probes, refuse_other_merge
from services.trainer.modelling.adapter import read_adapter
from services.trainer.modelling.base import load_base
from services.trainer.steps.loading import LoadedModel


@dataclass(frozen=True)
class Compression:
    """One run of a method."""

    parent: LoadedModel
    """Adapter, model or base model from which the other one is made, in fp32."""
    settings: CompressionSettings
    dtype: torch.dtype
    """Type of the stored weights."""
    logits: torch.Tensor
    """The parent's logits on the probes."""
    texts: Path
    """A folder with tokenizer and chat template, as they are stored beside the weights."""
    folder: Path
    """An empty folder for the weights and the configuration of the model that is made."""

    def whole(self) -> Any:
        """Return the parent as one model in full precision, whatever its adapter was trained on.

        Raises UserFault if an adapter cannot be merged, or the merge computes something else.
        """
        try:
            model = self.parent.model()
        except ValueError as error:  # PEFT's for weights that are no numbers
            what = "the adapter cannot be merged: its weights contain NaN or infinity"
            remedy = "train it again with a lower learning rate"
            raise UserFault(Reason(field="inputs.adapter", message=what, remedy=remedy)) from error
        if self.parent.adapter is not None:
            refuse_other_merge(difference(logits_of(model, probes(model.config)), self.logits))
        return model


def unmerged(parent: LoadedModel) -> Any:
    """Return the parent for inference in full precision, with its adapter beside the base model's weights."""
    if parent.adapter is None:
        return parent.model()
    base = load_base(parent.base, torch.float32, parent.device)
    return read_adapter(base, parent.adapter, trainable=False).eval().get_base_model()
