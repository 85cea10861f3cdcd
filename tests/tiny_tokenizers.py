"""Tokenizers that need no download: one token for each byte, or Llama 2's way of marking the beginnings of words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

END = "<|im_end|>"
SPECIAL = ("<|pad|>", "<|im_start|>", END)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, the template of SmolLM2 and many other models."""


def bytes_tokenizer(
    folder: Path, template: str | dict[str, str] | None = CHAT_TEMPLATE, control: Sequence[str] = SPECIAL, end: str = END
) -> Path:
    """Write a tokenizer whose every byte is a token, so that lengths are easy to reason about, and its control tokens, of which
    the first is for padding.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: place for place, sign in enumerate([*control, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return _saved(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=control[0]), folder, template
    )


def llama2_tokenizer(folder: Path, template: str | dict[str, str] | None) -> Path:
    """Write a tokenizer that puts the beginning of a word before whatever it is given, and joins a space with what follows."""
    from transformers import LlamaTokenizer

    signs = "▁abcdefghijklmnopqrstuvwxyzINSTASUER?.:<|>[]/\n"
    vocabulary = {sign: place for place, sign in enumerate(["<unk>", "<s>", "</s>", *dict.fromkeys(signs), "▁n", "▁no"])}
    made = LlamaTokenizer(vocab=vocabulary, merges=[("▁", "n"), ("▁n", "o")])
    return _saved(made, folder, template)


def _saved(tokenizer: Any, folder: Path, template: str | dict[str, str] | None) -> Path:
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder
