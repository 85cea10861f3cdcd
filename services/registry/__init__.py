"""Registers versions of models with their lineage, and moves aliases."""
