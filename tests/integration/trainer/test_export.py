"""What is exported is loaded by the libraries themselves, computes the same, and comes back by an import with the same digest."""

from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.models import ModelRegistered
from schemas.recipes.lora import LoraSettings
from schemas.steps import ImportSettings
from services.audit.packaging.contents import contents_of
from services.audit.packaging.hugging_face import write_folder
from services.chassis.storage.artifacts.store import ArtifactStore
from services.language_models.chat_format.chat import Chat
from services.trainer.modelling.adapter import load_for_inference, new_adapter, write_adapter
from services.trainer.modelling.base import load_base
from services.trainer.steps.import_model import import_model
from tests.audit import changed
from tests.bundle import collected, events_of, raw_records
from tests.trainer import context_of

CPU = torch.device("cpu")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> ArtifactRef:
    """Return a stored adapter that changes what its base model computes."""
    adapted = new_adapter(load_base(base, torch.float32, CPU), LoraSettings(rank=2), seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    folder = tmp_path / "made"
    folder.mkdir()
    write_adapter(adapted, folder, str(base))
    Chat(base).save(folder)
    return ArtifactStore(str(tmp_path / "artifacts")).put(folder)


def exported(home: Path, artifact: ArtifactRef, kind: str) -> Path:
    events = [
        changed(event, event.data.model_copy(update={"kind": kind})) if isinstance(event.data, ModelRegistered) else event
        for event in events_of(artifact)
    ]
    store = ArtifactStore(str(home / "artifacts"))
    write_folder(contents_of(collected(raw_records(events)), lambda ref: store.fetch(ref, home / "cache")), home / "given")
    return home / "given"


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


def test_an_exported_adapter_is_loaded_by_peft_on_its_base_model(tmp_path: Path, base: Path, adapter: ArtifactRef) -> None:
    from peft import AutoPeftModelForCausalLM

    given = exported(tmp_path, adapter, "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(given).eval()
    assert torch.allclose(
        logits(loaded), logits(load_for_inference(base, Path(adapter.uri), torch.float32, CPU)), atol=1e-5
    )
    result = import_model(context_of(tmp_path, ImportSettings(base_model=str(base), source=str(given))))
    assert result.outputs["adapter"] == adapter


def test_an_exported_model_is_loaded_by_transformers_with_its_template(tmp_path: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    artifact = ArtifactStore(str(tmp_path / "artifacts")).put(base)
    given = exported(tmp_path, artifact, "model")
    assert torch.equal(
        logits(AutoModelForCausalLM.from_pretrained(given).eval()),
        logits(AutoModelForCausalLM.from_pretrained(base).eval()),
    )
    assert AutoTokenizer.from_pretrained(given).chat_template
    result = import_model(context_of(tmp_path, ImportSettings(base_model=str(given), source=str(given))))
    assert result.outputs["model"] == artifact
