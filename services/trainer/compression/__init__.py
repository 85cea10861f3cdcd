"""Makes smaller or faster models from trained ones: one module per method, and what the methods share."""
