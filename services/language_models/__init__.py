"""Loads models, chooses their precision, applies chat templates and pads batches for the trainer and the local judge.

It depends on torch and on no service.
"""
