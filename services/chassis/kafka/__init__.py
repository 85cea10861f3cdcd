"""Kafka as the chassis meets it: clusters, topics, groups, connections, and the bytes of a fetch."""
