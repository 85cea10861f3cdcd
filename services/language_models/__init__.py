"""Loads models, chooses their precision, converts chats to tokens, generates answers and scores chats, for trainer, local judges and server.

It depends on torch and on no service.
"""
