"""Projections made again from the log: verified, rebuilt while they serve, healed row by row (design section 3, rule 7)."""
