"""Leaves a report of each finished step as one HTML file that needs nothing from elsewhere."""
