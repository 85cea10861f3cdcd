"""How an adapter learns: one loop, an objective for each method, checkpoints that prove themselves."""
