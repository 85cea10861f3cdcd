"""A tiny random Llama with a byte tokenizer and a chat template, built in seconds: what a base model looks like, never a download.

Import it inside a test or fixture, or run `python -m tests.tiny_model FOLDER` where the process must not import torch.
"""

import sys
from pathlib import Path

from tests.tiny_tokenizers import CHAT_TEMPLATE, END, SPECIAL, bytes_tokenizer

__all__ = ["CHAT_TEMPLATE", "END", "build"]


def build(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2) -> Path:
    """Write model and tokenizer to `folder`, the same bytes for the same arguments; returns `folder`.

    Every byte of a text is one token, so that lengths are easy to reason about; about 30,000 parameters. Its weights
    are large enough that its next token is not evenly spread and that an adapter learns within a few steps.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    bytes_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + 256, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        initializer_range=0.2, bos_token_id=None, eos_token_id=SPECIAL.index(END), pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    build(Path(sys.argv[1]))
