"""Connects to PostgreSQL: URLs, sessions, advisory locks and notifications."""
