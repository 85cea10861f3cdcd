"""Packs a version for others: a folder in Hugging Face layout, or an OCI artifact, each with the model card that follows from the log."""
