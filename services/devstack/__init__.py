"""Runs real Apache Kafka and PostgreSQL for development, tests and the demo, with nothing installed but Python."""
