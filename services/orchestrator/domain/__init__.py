"""Contains the orchestrator's decisions and folds: pure, without I/O, clock or randomness."""
