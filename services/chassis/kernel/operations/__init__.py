"""Carries out what an operator does to a running service: retry or discard dead letters, step over records."""
