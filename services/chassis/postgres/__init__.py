"""PostgreSQL as the chassis meets it: addresses, sessions, locks and notifications."""
