"""Reads the filter of a list of versions and makes conditions of it. A value of a filter is a parameter, never SQL text."""
