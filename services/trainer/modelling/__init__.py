"""Handles models and tokenizers: loading, precision, adapters, chat format, generation."""
