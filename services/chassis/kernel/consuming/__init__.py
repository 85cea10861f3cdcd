"""How records reach the transaction: partitions, positions, gaps, other logs, records that fail."""
