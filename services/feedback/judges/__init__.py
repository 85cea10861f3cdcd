"""Provides the judges: a constitution of checkable rules, a local language model, or any OpenAI-compatible endpoint."""
