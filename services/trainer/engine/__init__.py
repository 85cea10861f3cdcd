"""Runs TRL's trainers with what is promised about every run: verified checkpoints, a stop within a step, an exact resume."""
