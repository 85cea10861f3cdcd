"""Loads models and chooses their precision for the trainer and the local judge. It depends on torch and on no service."""
