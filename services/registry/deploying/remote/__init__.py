"""What the drivers have in common whose versions are served by programs that run elsewhere."""
