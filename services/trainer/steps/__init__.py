"""Implements the steps, one module per kind: what the child process does from inputs to StepResult."""
