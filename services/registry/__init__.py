"""The registry: registers model versions with their lineage, and moves aliases."""
