"""Who judges: a constitution of checkable rules, a language model in this process, or any OpenAI-compatible endpoint."""
