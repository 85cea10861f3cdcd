"""Says which files a stored model may consist of: weights without code, configuration, tokenizer, template, notes."""

ALLOWED = frozenset({".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".model", ".md", ".gguf"})
"""Endings of the names of files that a model may contain; a file of another type could run code when it is loaded."""
CARD = "README.md"
"""The model card of a folder in Hugging Face layout."""
