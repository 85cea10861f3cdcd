"""Reads the rows of data sets, maps them to chats, and assigns them to splits."""
