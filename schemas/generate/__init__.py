"""What people of other languages need, generated from the contract: JSON Schema, AsyncAPI and `docs/contract.md`."""
