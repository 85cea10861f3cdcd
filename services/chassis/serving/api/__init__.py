"""Defines the routes that every service has."""
