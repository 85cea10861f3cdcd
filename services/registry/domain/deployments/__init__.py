"""Deployments: which version serves callers under a name, and how the next one takes its place."""
