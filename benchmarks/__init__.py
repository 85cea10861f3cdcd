"""How fast the chassis is, as ratios to the least that the same work can cost, measured in one run (docs/performance.md)."""
