"""How far two sets of weights are apart: nothing for equal ones, and never less than the largest difference."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from services.trainer.modelling.distance import distance

ONE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.5]], dtype=torch.bfloat16)}


def weights(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir()
    for name, tensor in tensors.items():
        save_file({name: tensor}, folder / f"model-{name}.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changed", "largest", "tensor"),
    [
        ({}, 0.0, "a"),
        ({"a": torch.tensor([1.0, 2.5])}, 0.5, "a"),
        ({"b": torch.tensor([[0.75]], dtype=torch.bfloat16)}, 0.25, "b"),
        ({"a": torch.tensor([1.0, 2.0, 3.0])}, float("inf"), "a"),
        ({"b": torch.tensor([[float("nan")]])}, float("inf"), "b"),
    ],
)
def test_the_largest_difference_is_found_with_its_tensor(
    tmp_path: Path, changed: dict[str, torch.Tensor], largest: float, tensor: str
) -> None:
    found = distance(weights(tmp_path / "one", **ONE), weights(tmp_path / "other", **{**ONE, **changed}))
    assert (found.largest, found.tensor, found.only_one) == (largest, tensor, ())


def test_tensors_that_only_one_has_are_named(tmp_path: Path) -> None:
    found = distance(weights(tmp_path / "one", a=ONE["a"]), weights(tmp_path / "other", **ONE))
    assert (found.largest, found.only_one) == (0.0, ("b",))
