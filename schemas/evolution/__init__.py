"""Controls how the contract may change: released versions, compatibility checks, and upcasting (docs/evolution.md)."""
