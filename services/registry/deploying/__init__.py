"""Serves versions: what a deployment wants, the drivers that bring processes to it, and what they observe."""
