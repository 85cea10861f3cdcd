"""Defines the typed settings of a JobRequested, one module per purpose; steps receive them resolved."""
