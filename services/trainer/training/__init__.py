"""Trains adapters: one loop, an objective for each method, and checkpoints that are verified by digest."""
