"""Converts chats to tokens in the one way in which models are trained, evaluated and served."""
