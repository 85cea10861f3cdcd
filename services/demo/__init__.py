"""The demo: its data, base model, job, and the report about what came of it."""
