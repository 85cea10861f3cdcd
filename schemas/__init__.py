"""Defines the contract between services: typed models of all events, their topics, and the files generated from both."""
