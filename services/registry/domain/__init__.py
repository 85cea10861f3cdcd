"""The registry's decisions: attempts at `register` steps, models with their versions and aliases. Pure."""
