"""Stores, limits, lists and copies dead letters, and parks the later records of an aggregate behind a failed one."""
