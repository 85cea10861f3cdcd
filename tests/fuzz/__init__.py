"""Whole records as nobody would write them, through a real broker into a running service."""
