"""Mirrors what the log says into systems of others, each of which can be filled again from the start of the log."""
