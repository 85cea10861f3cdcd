"""Brings records from Kafka to the transaction; handles assignments, positions, gaps, replaced logs and failing records."""
