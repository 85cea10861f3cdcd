"""Implements the steps of the feedback service, one module per kind; they run in a child process."""
