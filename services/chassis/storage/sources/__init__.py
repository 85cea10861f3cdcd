"""Controls which folders, schemes and hosts a job may name; the decision is pure, and connections go to the checked address."""
