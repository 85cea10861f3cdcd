"""Stores and reads files: content-addressed artifacts, models and data sets that jobs reference, and their retention."""
