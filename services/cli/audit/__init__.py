"""What an auditor does: verify every service against the log, and read the log itself."""
