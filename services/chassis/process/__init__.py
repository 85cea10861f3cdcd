"""What every process needs: logging, metrics, health, redaction of secrets, and the handling of transient errors."""
