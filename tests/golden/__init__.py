"""Event logs of every released version, which every later version must read to the same states."""
