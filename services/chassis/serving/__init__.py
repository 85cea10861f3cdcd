"""A running service and its HTTP: what is wired together, started, stopped, answered and limited."""
