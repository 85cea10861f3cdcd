"""Loads models, chooses their precision, applies chat templates, pads batches and scores chats for trainer and local judges.

It depends on torch and on no service.
"""
