"""Unit tests of what jobs may name."""
