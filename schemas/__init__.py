"""The contract: every event as a typed model, the topics they travel on, and what is generated from both."""
