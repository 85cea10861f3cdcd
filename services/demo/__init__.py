"""The demo: its data, base model and job, and the report on the result."""
