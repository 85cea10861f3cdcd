"""Measures models on tasks of lm-evaluation-harness: `prepare` stores tasks with their data, `evaluate` measures them."""
