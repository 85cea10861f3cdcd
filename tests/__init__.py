"""Tests as specifications; real Kafka and PostgreSQL where the behaviour is theirs."""
