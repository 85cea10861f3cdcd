"""One module per kind of step: what the child does for it, from inputs to StepResult."""
