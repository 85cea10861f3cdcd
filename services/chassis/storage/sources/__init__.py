"""Controls which folders, schemes and hosts a job may name; the decision is pure, connections go to the checked address."""
