"""Stores the identity of the log beside the positions, compares it with the cluster, and stops partitions of another log."""
