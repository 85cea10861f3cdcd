"""What an auditor asks of the log: stories, traces, exports, proofs, and whether rows and log agree."""
