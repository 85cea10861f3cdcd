"""Writes a byte-level BPE tokenizer and its chat template into a GGUF file, as llama.cpp's converter does.

llama.cpp does not read the rule by which a tokenizer splits texts before it merges; it knows some rules by name. A tokenizer with
another rule is refused, because its tokens would differ from those that the model was trained on.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.trainer.modelling.base_files import BaseFault

_REMEDY = "register the merged model, and convert it with the convert_hf_to_gguf.py of llama.cpp"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BY_PATTERN = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
_NORMALISED = {None: ("gpt-2", "smollm", "llama-bpe", "qwen2"), "NFC": ("qwen2",)}
"""llama.cpp does not normalise; of Qwen's tokenizers this is known and accepted."""


def rule_of(folder: Path) -> str:
    """Return llama.cpp's name of the rule by which the tokenizer in `folder` splits texts. Raises BaseFault if it has none."""
    described = _described(folder)
    model = described.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _unknown("it is no byte-level BPE")
    steps = _steps(described.get("pre_tokenizer"))
    rule = _rule(steps) or (None if model.get("merges") else "gpt-2")
    if rule is None or any(step.get("add_prefix_space") for step in steps):
        raise _unknown("it splits texts by a rule that llama.cpp has no name for")
    normaliser = (described.get("normalizer") or {}).get("type")
    if rule not in _NORMALISED.get(normaliser, ()):
        raise _unknown(f"it changes texts before it splits them ({normaliser})")
    return rule


def add_tokenizer(writer: Any, folder: Path, size: int) -> None:
    """Add the tokenizer in `folder`, with as many tokens as the model has embeddings (`size`). Raises BaseFault."""
    from gguf import SpecialVocab, TokenType

    rule, described = rule_of(folder), _described(folder)
    tokens, kinds = [f"[PAD{number}]" for number in range(size)], [TokenType.UNUSED] * size
    added = {token["id"]: token for token in described.get("added_tokens", ())}
    for text, number in {**described["model"]["vocab"], **{t["content"]: i for i, t in added.items()}}.items():
        if number >= size:
            raise _unknown(f"it has the token {number}, and the model {size} embeddings")
        tokens[number], kinds[number] = text, TokenType.NORMAL
        if number in added:
            kinds[number] = TokenType.CONTROL if added[number].get("special") else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    SpecialVocab(folder, load_merges=True, n_vocab=size).add_to_gguf(writer, quiet=True)


def _described(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise _unknown("it has no tokenizer.json")
    described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return described


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _rule(steps: list[Mapping[str, Any]]) -> str | None:
    match steps:
        case [{"type": "ByteLevel", "use_regex": True}]:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]:
            return "smollm"
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "invert": False},
            {"type": "ByteLevel", "use_regex": False},
        ]:
            return _BY_PATTERN.get(pattern)
    return None


def _unknown(why: str) -> BaseFault:
    return BaseFault(f"its tokenizer cannot be written to GGUF: {why}", _REMEDY)
