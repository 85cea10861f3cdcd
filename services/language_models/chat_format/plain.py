"""Converts plain texts to tokens, without a chat template: a whole text is learnt, as in pretraining."""

from typing import Any

from services.language_models.chat_format.tokens import Tokens


def plain_start(tokenizer: Any) -> list[int]:
    """Return the token that a text begins with: the tokenizer's own, or, as for GPT-2, the one that ends the text before."""
    start = tokenizer.bos_token_id
    return [int(tokenizer.eos_token_id if start is None else start)]


def plain_tokens(tokenizer: Any, text: str) -> Tokens:
    """Return the tokens of a text with the one that ends it; all but the start are learnt."""
    start = plain_start(tokenizer)
    return Tokens.of(start, [*tokenizer(text, add_special_tokens=False)["input_ids"], int(tokenizer.eos_token_id)])
