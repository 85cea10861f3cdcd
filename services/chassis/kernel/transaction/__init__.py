"""Runs one database transaction: locks rows, folds events, decides, and writes everything together."""
