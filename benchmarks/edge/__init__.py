"""How fast answers over HTTP are, against the least that FastAPI and asyncpg need for the same."""
