"""Merges an adapter into its base model. The base is loaded in full precision, whatever the adapter was trained on."""

from typing import Any

import torch

from schemas.reasons import Reason
from schemas.results import PRECISION
from services.chassis.executor.child import UserFault
from services.trainer.compression.made import Compression, Made
from services.trainer.compression.proof import difference, logits_of, probes, refuse_difference
from services.trainer.compression.weights import wanted_dtype, write_model
from services.trainer.modelling.adapter import read_adapter
from services.trainer.modelling.base import load_base

_STAGES = 4


def merge(work: Compression) -> Made:
    """Write the merged model. Raises UserFault if what was written computes something else than base model and adapter."""
    parent = work.parent
    if parent.adapter is None:
        raise TypeError("a merge needs an adapter")
    dtype = wanted_dtype(work.settings, parent.base)
    work.stage(0, _STAGES)
    adapted = read_adapter(load_base(parent.base, torch.float32, parent.device), parent.adapter, trainable=False).eval()
    rows = probes(adapted.config)
    wanted = logits_of(adapted, rows)
    work.stage(1, _STAGES)
    merged = _merged(adapted)
    work.stage(2, _STAGES)
    write_model(merged, work.folder, dtype)
    del adapted, merged
    work.stage(3, _STAGES)
    found = difference(logits_of(load_base(work.folder, torch.float32, parent.device).eval(), rows), wanted)
    refuse_difference(found, dtype, work.settings.tolerance)
    work.stage(4, _STAGES)
    return Made({"logits_difference": found}, {PRECISION: str(dtype).removeprefix("torch.")})


def _merged(adapted: Any) -> Any:
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT's for weights that are no numbers
        what = "the adapter cannot be merged: its weights contain NaN or infinity"
        remedy = "train it again with a lower learning rate"
        raise UserFault(Reason(field="inputs.adapter", message=what, remedy=remedy)) from error
