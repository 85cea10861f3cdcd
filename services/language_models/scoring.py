"""Loads reward models and scores whole chats with them, in the same way in training and for a judge.

A reward model is a language model with a head of one number (`score`) in place of its own, read behind the last token of a chat.
It is stored as an adapter that contains the head.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schemas.lines import Message
from services.language_models.adapters import CONFIG, ForeignOption, stored_lora
from services.language_models.chats import Tools, render, token_ids
from services.language_models.loading import GIVEN, load_config, without_report
from services.language_models.padding import pad_rows
from services.language_models.precision import cast_weights

HEAD = "score"
"""The name of the head in the library's models that score."""
TASK = "SEQ_CLS"
"""PEFT's name for what such a model does, in `adapter_config.json`."""
_WEIGHTS = "adapter_model.safetensors"
_STORED = f"base_model.model.{HEAD}."
Scored = tuple[Sequence[Message], str, Tools]
"""A chat up to the answer, the answer that is scored, and the tools."""


class Unscorable(Exception):
    """A folder is no reward model, or a base model cannot become one; the message says why."""


class ScoreHead(torch.nn.Linear):
    """A head that computes in fp32 whatever the precision of its model, since scores are compared by small differences."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the score behind every token, [rows, tokens, 1]."""
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight.float())


def scoring_class(config: Any) -> Any:
    """Return the library's class of models that score, for a language model's configuration; None if it has none."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    try:
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    except (KeyError, ImportError):
        return None


def is_scoring(model: Any) -> bool:
    """Whether a model gives scores."""
    return isinstance(getattr(model, HEAD, None), torch.nn.Module)


def load_scoring(folder: Path, dtype: torch.dtype, seed: int = 0, **options: Any) -> Any:
    """Load a language model with a head for scores, which is drawn at random from the seed.

    Raises Unscorable if the library has no such model or it lacks other weights, and the library's errors.
    """
    from transformers import AutoModelForSequenceClassification

    options["config"] = config = load_config(folder)
    config.num_labels = 1
    with without_report():  # of the head, which is not among the weights
        model, found = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, output_loading_info=True, **GIVEN, **options
        )
    refuse_lost(found["missing_keys"])
    put_head(model, seed)
    return model


def refuse_lost(missing: Sequence[str] | set[str]) -> None:
    """Raise Unscorable if a model that scores lacks more weights than those of its head, so that they would be random."""
    lost = sorted(name for name in missing if not name.startswith(f"{HEAD}."))
    if lost:
        raise Unscorable(f"the library's model that scores does not find {len(lost)} of its weights, for example {lost[0]}")


def put_head(model: Any, seed: int) -> None:
    """Give a model that scores a head in fp32, drawn from the seed. Raises Unscorable if its head is of another kind."""
    head = getattr(model, HEAD, None)
    width = getattr(head, "in_features", None)
    if width is None:
        raise Unscorable("the library's model that scores has no linear head")
    made = ScoreHead(width, 1, bias=False, device=model.device, dtype=torch.float32)
    if model.device.type != "meta":
        drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) / width
        made.weight.data.copy_(drawn)
    setattr(model, HEAD, made)


def load_reward_model(base: Path, adapter: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a reward model for inference: the adapter is merged in fp32, without loss, and all but the head is cast to `dtype`.

    Raises Unscorable if `adapter` contains no reward model for this base.
    """
    from peft import get_peft_model
    from safetensors.torch import load_file

    refuse_writer(adapter)
    model = load_scoring(base, torch.float32)
    try:
        config = stored_lora(adapter)
        config.inference_mode = True
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
        wrong = misfits(adapted, load_file(adapter / _WEIGHTS))
    except ForeignOption as error:
        raise Unscorable(str(error)) from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise Unscorable(f"its adapter cannot be read ({type(error).__name__})") from error
    if wrong:
        raise Unscorable(f"its adapter does not fit the base model: {wrong}")
    merged = cast_weights(adapted.merge_and_unload(safe_merge=True), dtype).to(device).eval()
    getattr(merged, HEAD).float()
    return merged


def refuse_writer(adapter: Path) -> None:
    """Raise Unscorable if a folder contains no adapter, or one of a model that writes answers."""
    try:
        task = json.loads((adapter / CONFIG).read_bytes())["task_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unscorable(f"it has no {CONFIG} that can be read") from error
    if task != TASK:
        raise Unscorable("it is an adapter of a model that writes answers, and has no head for scores")


def misfits(adapted: Any, state: dict[str, torch.Tensor], *, new_head: bool = False) -> str | None:
    """Load weights into an adapter; return what is missing or unknown, None if they fit. Raises RuntimeError for other shapes.

    `new_head`: the head for scores is not among them, and is kept.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    if new_head:
        own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        state = {**{name: weight for name, weight in own.items() if name.startswith(_STORED)}, **state}
    found = set_peft_model_state_dict(adapted, state)
    trained = ("lora_", "modules_to_save", "token_adapter")
    missing = [key for key in found.missing_keys if any(part in key for part in trained)]
    if not missing and not found.unexpected_keys:
        return None
    return (
        f"{len(missing)} weights are missing, for example {missing[:1]}, and {len(found.unexpected_keys)} belong to layers that "
        "the base model does not have"
    )


def scored_tokens(tokenizer: Any, chats: Sequence[Scored]) -> list[list[int]]:
    """Return the tokens of whole chats as their template writes them, at the end of which the score is read.

    Raises jinja2.TemplateError where the template refuses a chat.
    """
    texts = [
        render(tokenizer, [*messages, Message(role="assistant", content=answer)], answered=True, tools=tools)
        for messages, answer, tools in chats
    ]
    return token_ids(tokenizer, texts)


def padding_beside(rows: Sequence[Sequence[int]]) -> int:
    """Return a token that none of the rows ends with.

    The library's models read the score at the last token that is not the padding token, and the usual one, which ends texts,
    is the last token of an answer.
    """
    ends = {row[-1] for row in rows}
    return next(token for token in itertools.count() if token not in ends)


def read_at_ends(model: Any, pad_id: int) -> None:
    """Let a model read scores at the last token that is not `pad_id`."""
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = pad_id


def scores_of(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> list[float]:
    """Return the score of each row of tokens, computed as one batch; none of them ends with `pad_id`."""
    read_at_ends(model, pad_id)
    batch = pad_rows(rows, pad_id, "right", model.device)
    with torch.inference_mode():
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
    return [float(score) for score in logits.squeeze(-1).float()]
