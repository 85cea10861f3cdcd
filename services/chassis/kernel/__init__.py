"""Takes each record from Kafka through one PostgreSQL transaction to rows and outbox, and relays own events back to Kafka."""
