"""Stores and reads files: content-addressed artifacts, the models and data sets that jobs reference, and their retention."""
