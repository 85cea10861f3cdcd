"""What the system promises under fire, with servers and processes that really die (docs/reliability.md)."""
