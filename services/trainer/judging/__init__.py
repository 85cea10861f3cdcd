"""Rewards by the judges of the feedback service, which this service asks over HTTP."""
