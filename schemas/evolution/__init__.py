"""How the contract may change: what was released, what a change breaks, and how old data becomes new (docs/evolution.md)."""
