"""Compares a train step of the project with bare TRL on the same model, rows, order, seed and steps."""
