"""The outbox on its way to Kafka."""
