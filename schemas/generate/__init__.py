"""Generates files for users of other languages from the contract: JSON Schema, AsyncAPI and `docs/contract.md`."""
