"""What TRL's trainers of preferences share here: examples that are tokens already, and a reference that is computed once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

_REFERENCE = "ref"


class FixedReference:
    """A mixin in front of a trainer of TRL. The reference is the adapter before training, and what it computes is part of the rows."""

    model: Any
    _on_part: Callable[[], None]
    """Is called between the passes of the reference; it reports that the run is alive and may end it."""

    def _drop_reference(self) -> None:
        """Remove the adapter that TRL keeps for the reference; call it when the trainer is built."""
        if _REFERENCE in self.model.peft_config:
            self.model.delete_adapter(_REFERENCE)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """Compute one batch of the reference, without dropout."""
        self._on_part()
        return super().compute_ref_log_probs(model.eval(), inputs)  # type: ignore[misc]  # of the trainer behind the mixin


def reference_columns(examples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return those of the reference's columns that the rows have already, [examples]."""
    return {name: torch.tensor([example[name] for example in examples]) for name in names if name in examples[0]}
