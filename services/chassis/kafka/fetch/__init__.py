"""Parses fetched bytes into aiokafka's records, so that no invalid batch stops a consumer."""
