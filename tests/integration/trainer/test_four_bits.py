"""A step's process imports bitsandbytes and torch's compiler only where it quantises, and never MLflow."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")

_STEP = """
import sys
from pathlib import Path
import services.trainer.child
from services.trainer.modelling.four_bits import without_bitsandbytes
without_bitsandbytes()
import torch
from schemas.recipes.lora import LoraSettings
from services.trainer.modelling.adapter import new_adapter
from services.trainer.modelling.base import load_base
base, cpu = Path(sys.argv[1]), torch.device("cpu")
plain = new_adapter(load_base(base, torch.float32, cpu), LoraSettings(), seed=0)
import services.trainer.engine.rollouts
heavy = {"bitsandbytes.nn", "torch._inductor.compile_fx", "mlflow"} & set(sys.modules)
assert not heavy, heavy
quantised = new_adapter(load_base(base, torch.float32, cpu, quantization="nf4"), LoraSettings(), seed=0)
kinds = {type(part).__name__ for part in quantised.modules()}
assert "Linear4bit" in kinds, kinds
ids = torch.tensor([[5, 6, 7, 8]])
quantised(ids).logits.sum().backward()
assert any(weight.grad is not None for weight in quantised.parameters())
"""


def test_a_plain_step_imports_none_of_them_and_a_quantised_one_finds_what_it_needs_after_all(base: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _STEP, str(base)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
