"""Connects to Kafka: clusters, topics, consumer groups, connections, and the parsing of fetched bytes."""
