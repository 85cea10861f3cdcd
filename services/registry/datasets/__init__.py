"""Finds registered data sets, for people and for jobs, and the versions that were made from them."""
